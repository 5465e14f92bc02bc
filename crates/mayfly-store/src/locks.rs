//! Locks: which resources of the library a task runs with, each kept once by its content.

use mayfly_core::TaskId;
use rusqlite::{Connection, OptionalExtension as _};

use crate::error::StoreError;
use crate::store::Store;

impl Store {
    /// The lock of this SHA-256, as JSON.
    pub async fn lock(&self, sha256: String) -> Result<Option<String>, StoreError> {
        let sql = "SELECT json FROM locks WHERE sha256 = ?1";
        self.readers.read(move |connection| one(connection, sql, &sha256)).await
    }

    /// The lock of a task, as JSON. `None`: there is no such task, or it has none.
    pub async fn lock_of(&self, task: TaskId) -> Result<Option<String>, StoreError> {
        let sql = "SELECT json FROM locks JOIN tasks ON tasks.lock = locks.sha256 WHERE tasks.id = ?1";
        self.readers.read(move |connection| one(connection, sql, &task.to_string())).await
    }

    /// Keeps a lock, so that tasks can ask for it.
    pub async fn keep_lock(&self, sha256: String, json: String) -> Result<(), StoreError> {
        self.writer.run(move |connection| keep(connection, &sha256, &json)).await
    }
}

fn one(connection: &Connection, sql: &str, key: &str) -> Result<Option<String>, StoreError> {
    Ok(connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
}

pub(crate) fn keep(connection: &Connection, sha256: &str, json: &str) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO locks (sha256, json) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute([sha256, json])?;
    Ok(())
}
