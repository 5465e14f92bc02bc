//! The pool: credentials that tasks use by their names, sealed, and which of them each task is to use.
//!
//! A task has its choice from its submit on, by name: what the pool has under that name counts whenever it is asked.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::error::{StoreError, corrupt};
use crate::store::Store;

/// The one that a task uses that names none.
const DEFAULT: &str = "default";

/// A credential in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooled {
    /// What its owner calls it; each name is there once.
    pub name: String,
    /// The credential, sealed.
    pub sealed: Vec<u8>,
    /// When it was put there.
    pub created: Timestamp,
    /// Whether a task can use it for the model.
    pub for_model: bool,
}

/// Whose credential a new task uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Its own, sealed; it is deleted with the task's end.
    Own(Vec<u8>),
    /// That of this name in the pool; if it names none, the one called `default`, else the only one.
    Pool(Option<String>),
}

/// The credential of a task, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// It came with the task.
    Own(Vec<u8>),
    /// It is in the pool, or was.
    Pooled {
        /// Its name there.
        name: String,
        /// As it is there now; none if it was removed.
        sealed: Option<Vec<u8>>,
    },
}

impl Store {
    /// Every credential in the pool, by name.
    pub async fn pool(&self) -> Result<Vec<Pooled>, StoreError> {
        self.readers
            .read(|connection| {
                let sql = "SELECT name, sealed, created_ms, for_model FROM pool ORDER BY name";
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_and_then([], |row| {
                    let created = Timestamp::from_millisecond(row.get(2)?).map_err(corrupt)?;
                    Ok(Pooled { name: row.get(0)?, sealed: row.get(1)?, created, for_model: row.get(3)? })
                })?;
                rows.collect()
            })
            .await
    }

    /// Puts a credential into the pool. Whether its name was free, or is to be taken over.
    pub async fn put_into_pool(&self, pooled: Pooled, replace: bool) -> Result<bool, StoreError> {
        self.writer
            .run(move |connection| {
                let or = if replace { "REPLACE" } else { "IGNORE" };
                let sql = format!(
                    "INSERT OR {or} INTO pool (name, sealed, created_ms, for_model) VALUES (?1, ?2, ?3, ?4)"
                );
                let Pooled { name, sealed, created, for_model } = pooled;
                let values = params![name, sealed, created.as_millisecond(), for_model];
                Ok(connection.prepare_cached(&sql)?.execute(values)? > 0)
            })
            .await
    }

    /// Takes a credential out of the pool. Whether there was one of this name.
    pub async fn remove_from_pool(&self, name: String) -> Result<bool, StoreError> {
        self.writer
            .run(move |connection| {
                let sql = "DELETE FROM pool WHERE name = ?1";
                Ok(connection.prepare_cached(sql)?.execute([name])? > 0)
            })
            .await
    }

    /// The credential of a task, as it is now: its own until it is over, else that which it uses of the pool.
    pub async fn credential(&self, task: mayfly_core::TaskId) -> Result<Option<Sealed>, StoreError> {
        self.readers
            .read(move |connection| {
                let sql = "SELECT credentials.sealed, tasks.pooled, pool.sealed FROM tasks \
                           LEFT JOIN credentials ON credentials.task = tasks.id \
                           LEFT JOIN pool ON pool.name = tasks.pooled WHERE tasks.id = ?1";
                let mut statement = connection.prepare_cached(sql)?;
                let found = statement.query_row([task.to_string()], |row| {
                    let pooled: Option<String> = row.get(1)?;
                    Ok(match row.get(0)? {
                        Some(own) => Some(Sealed::Own(own)),
                        None => match pooled {
                            Some(name) => Some(Sealed::Pooled { name, sealed: row.get(2)? }),
                            None => None,
                        },
                    })
                });
                Ok(found.optional()?.flatten())
            })
            .await
    }
}

/// The name in the pool that a new task is to use; none if it has its own.
pub(crate) fn choose(connection: &Connection, whose: &Whose) -> Result<Option<String>, StoreError> {
    let wanted = match whose {
        Whose::Own(_) => return Ok(None),
        Whose::Pool(wanted) => wanted.as_deref(),
    };
    let sql = "SELECT name FROM pool WHERE name = coalesce(?1, ?2) AND for_model \
               UNION ALL SELECT max(name) FROM pool WHERE ?1 IS NULL AND for_model HAVING count(*) = 1 LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let chosen: Option<String> = statement.query_row([wanted, Some(DEFAULT)], |row| row.get(0)).optional()?;
    chosen.map(Some).ok_or_else(|| StoreError::NoCredential(wanted.map(str::to_owned)))
}
