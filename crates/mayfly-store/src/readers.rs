//! The connections that read: as many as are busy at once, up to [`READERS_MAX`].
//!
//! Each read is one call on a thread for what waits. A connection is used by one at a time, and kept for the next.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, yield_now};

use crate::error::StoreError;
use crate::schema;

/// The most reads at once.
const READERS_MAX: usize = 8;

/// Where reads are done. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
    /// Whether a read waits for no thread.
    in_place: bool,
}

impl Readers {
    /// For the file at `path`, which is open elsewhere. One connection is made now. `in_place`: on the caller's
    /// thread, for a simulation.
    pub(crate) fn open(path: &Path, in_place: bool) -> Result<Self, StoreError> {
        let idle = Mutex::new(vec![schema::connect(path)?]);
        let shared = Shared { path: path.to_owned(), idle, turns: Semaphore::new(READERS_MAX), in_place };
        Ok(Self(Arc::new(shared)))
    }

    /// Does `query` on one of the connections.
    pub(crate) async fn read<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let turn = self.0.turns.acquire().await.map_err(|_| StoreError::Closed)?;
        let shared = Arc::clone(&self.0);
        let read = move || {
            let connection = match shared.idle().pop() {
                Some(connection) => connection,
                None => schema::connect(&shared.path)?,
            };
            let done = query(&connection);
            shared.idle().push(connection);
            done
        };
        let done = match self.0.in_place {
            true => {
                yield_now().await;
                read()
            }
            false => spawn_blocking(read).await.map_err(|_| StoreError::Closed)?,
        };
        drop(turn);
        done
    }
}

impl Shared {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
