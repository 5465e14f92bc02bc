//! Doors in memory, for a simulation of the whole: named by the paths that their sockets would have.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mayfly_link::ByteStream;
use tokio::sync::mpsc;

/// The doors that are open. Clones are one street; whoever opens a door again has the only one of its name.
#[derive(Debug, Clone, Default)]
pub struct Street(Arc<Mutex<Open>>);

type Open = HashMap<PathBuf, mpsc::UnboundedSender<Box<dyn ByteStream>>>;

impl Street {
    /// Brings the far end of a new connection to the door at `path`.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody is behind it.
    pub fn arrive(&self, path: &Path, stream: Box<dyn ByteStream>) -> io::Result<()> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        self.doors().get(path).ok_or_else(refused)?.send(stream).map_err(|_| refused())
    }

    pub(crate) fn open(&self, path: PathBuf) -> mpsc::UnboundedReceiver<Box<dyn ByteStream>> {
        let (door, arrivals) = mpsc::unbounded_channel();
        let mut doors = self.doors();
        doors.retain(|_, door| !door.is_closed());
        doors.insert(path, door);
        arrivals
    }

    fn doors(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
