//! The tokens of owners, as far as they are kept: a name and a hash, never the token.

use jiff::Timestamp;
use rusqlite::params;

use crate::error::{StoreError, corrupt};
use crate::store::Store;

/// An owner's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerToken {
    /// What its owner calls it; each name is there once.
    pub name: String,
    /// The SHA-256 of the token.
    pub hash: [u8; 32],
    /// When it was made.
    pub created: Timestamp,
}

impl Store {
    /// Every owner's token, by name.
    pub async fn owner_tokens(&self) -> Result<Vec<OwnerToken>, StoreError> {
        self.readers
            .read(|connection| {
                let sql = "SELECT name, hash, created_ms FROM owner_tokens ORDER BY name";
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_and_then([], |row| {
                    let created = Timestamp::from_millisecond(row.get(2)?).map_err(corrupt)?;
                    Ok(OwnerToken { name: row.get(0)?, hash: row.get(1)?, created })
                })?;
                rows.collect()
            })
            .await
    }

    /// Keeps an owner's token. Whether its name was free.
    pub async fn add_owner_token(&self, token: OwnerToken) -> Result<bool, StoreError> {
        self.writer
            .run(move |connection| {
                let OwnerToken { name, hash, created } = token;
                let sql = "INSERT OR IGNORE INTO owner_tokens (name, hash, created_ms) VALUES (?1, ?2, ?3)";
                let values = params![name, hash, created.as_millisecond()];
                Ok(connection.prepare_cached(sql)?.execute(values)? > 0)
            })
            .await
    }

    /// Forgets an owner's token. Whether there was one of this name.
    pub async fn remove_owner_token(&self, name: String) -> Result<bool, StoreError> {
        self.writer
            .run(move |connection| {
                let sql = "DELETE FROM owner_tokens WHERE name = ?1";
                Ok(connection.prepare_cached(sql)?.execute([name])? > 0)
            })
            .await
    }
}
