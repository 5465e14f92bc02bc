//! Why the store did not do as asked.

use std::path::PathBuf;

/// Sorted by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; nothing was written, and later may be better.
    #[error("the disk that holds the database is full: free some space")]
    Full(#[source] rusqlite::Error),
    /// The file cannot be made or opened.
    #[error("`{path}` cannot be opened: check the folder and its permissions")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file belongs to another program.
    #[error("`{0}` is not a mayfly database: choose another data folder")]
    Foreign(PathBuf),
    /// The file is one of ours, and broken.
    #[error(
        "`{0}` is damaged: put a copy of it back, or move it away with the files beside it to start with an empty queue"
    )]
    Damaged(PathBuf),
    /// The file was written by a later mayfly.
    #[error(
        "`{path}` was written by a newer mayfly (version {found} of its tables, this one knows {known}): use that one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The version known here.
        known: i64,
    },
    /// The idempotency key was used for another task.
    #[error("this idempotency key was used for another task: choose a new one")]
    KeyConflict,
    /// What the task was to go on with is not kept any more.
    #[error("what came out of task {0} is not kept any more: it was over too long ago")]
    Pruned(String),
    /// The pool has no credential for the task.
    #[error("{}", no_credential(.0.as_deref()))]
    NoCredential(Option<String>),
    /// The file is broken where it was read or written.
    #[error(
        "the database is damaged: end the orchestrator, and put a copy of the file back, or move it away with the files \
         beside it to start with an empty queue"
    )]
    Broken(#[source] rusqlite::Error),
    /// SQLite said no.
    #[error("the database cannot be used")]
    Sqlite(#[source] rusqlite::Error),
    /// A row does not read back.
    #[error("the database holds something that this version did not write: {0}")]
    Corrupt(String),
    /// The writer has ended.
    #[error("the database is closed")]
    Closed,
}

fn no_credential(wanted: Option<&str>) -> String {
    match wanted {
        Some(name) => format!(
            "there is no credential `{name}` in the pool: `mayfly credential ls` lists those that are there, and \
             `mayfly credential add {name}` adds it"
        ),
        None => "the task brings no credential, and the pool has none that is called `default` and not exactly one: \
                 `mayfly credential add NAME` adds one, and `credential_name` (--credential NAME) chooses among several"
            .to_owned(),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full(error),
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Self::Broken(error),
            _ => Self::Sqlite(error),
        }
    }
}

/// For a value that cannot be what was written.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn corrupt(what: impl ToString) -> StoreError {
    StoreError::Corrupt(what.to_string())
}
