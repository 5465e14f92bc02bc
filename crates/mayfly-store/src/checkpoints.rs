//! Moves what was committed from the log beside the file into the file, beside the one who writes.
//!
//! Did the writer do it, all who wait for a commit would wait for as many bytes once more, and for the file to be
//! synced. The log begins anew only where nobody has written since: that is left to the writer, which finds little left
//! to move once the log has [`LOG_PAGES_MAX`](crate::schema::LOG_PAGES_MAX), and so is the bound of the log.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rusqlite::{Connection, ErrorCode};

use crate::writer::end_of_disk;

/// The bytes of events after which they are moved.
const BYTES_EACH: usize = 4 * 1024 * 1024;

/// Has the thread that moves do so, from time to time. It ends when this is gone.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    wake: SyncSender<()>,
    bytes: usize,
}

impl Checkpoints {
    /// On a connection of its own.
    pub(crate) fn start(connection: Connection) -> Self {
        let (wake, woken) = sync_channel(1);
        thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || {
                while woken.recv().is_ok() {
                    checkpoint(&connection);
                }
            })
            .expect("a thread can be started at start-up");
        Self { wake, bytes: 0 }
    }

    /// So many bytes of events were committed.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= BYTES_EACH {
            self.bytes = 0;
            // If it is at work, it is woken once more.
            let _ = self.wake.try_send(());
        }
    }
}

fn checkpoint(connection: &Connection) {
    let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    match moved {
        Ok(()) => {}
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => end_of_disk(&error),
        // What is not moved now stays in the log, and is moved later.
        Err(error) => tracing::warn!(%error, "no checkpoint"),
    }
}
