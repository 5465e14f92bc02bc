//! The machines' doors: a folder for each attempt, with a socket in it.
//!
//! ```text
//! way-out/<attempt>/                     0755   all that the attempt's machine sees of it, read-only
//! way-out/<attempt>/orchestrator.sock    0666   whoever has none but this folder has no other door
//! ```
//!
//! A folder stays the same for as long as its attempt lives, over restarts too: a machine that has it mounted finds
//! each new socket in it. A door is bound when the engine asks for it, and from then on what dials waits in the
//! system's queue; it is answered once the server lets it in ([`Opened`]), which needs an engine that runs.
//!
//! A machine elsewhere has no folder, and comes by the port: what its token is of, it is treated as if it had come
//! through that attempt's door ([`Doors::enter`]).
//!
//! Bound: [`MACHINE_CONNECTIONS_MAX`] for each door, so that a machine can fill none but its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mayfly_core::AttemptId;
use mayfly_wire::boot::WAY_OUT_SOCKET;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::guest::Guest;
use crate::listen::{Door, House};
use crate::street::Street;

/// Connections at once through one machine's door: as many as its worker lets `claude` have (64, one a request) and as
/// many to other hosts, and some for the link, a newer link beside it, and uploads.
pub const MACHINE_CONNECTIONS_MAX: usize = 136;

/// The engine's [`Doors`](mayfly_engine::Doors), in one folder.
#[derive(Debug)]
pub(crate) struct Doors {
    way_out: PathBuf,
    house: House,
    open: Mutex<HashMap<AttemptId, Inside>>,
    opened: mpsc::UnboundedSender<Opened>,
    street: Option<Street>,
}

/// What an open door leads to.
#[derive(Debug)]
struct Inside {
    /// Ends what came in.
    closing: CancellationToken,
    /// Its own and those by the port are the same.
    places: Arc<Semaphore>,
}

/// Why a connection by the port has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoEntry {
    /// The attempt is over.
    Closed,
    /// All are taken.
    Full,
    /// It comes from another machine.
    Elsewhere,
}

/// A door that nobody is let in by yet.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Whose it is.
    pub(crate) attempt: AttemptId,
    pub(crate) door: Door,
    /// Ends when the door closes.
    pub(crate) house: House,
}

impl Doors {
    /// Doors in the folder `way_out`, or of such names in a street, which end with `house`. Each comes out of the
    /// receiver once.
    pub(crate) fn new(
        way_out: PathBuf,
        house: House,
        street: Option<Street>,
    ) -> (Self, mpsc::UnboundedReceiver<Opened>) {
        let (opened, receiver) = mpsc::unbounded_channel();
        (Self { way_out, house, open: Mutex::default(), opened, street }, receiver)
    }

    fn door(&self, folder: &Path) -> io::Result<Door> {
        match &self.street {
            Some(street) => Ok(Door::on(street, folder.join(WAY_OUT_SOCKET), MACHINE_CONNECTIONS_MAX)),
            None => Door::open(folder, WAY_OUT_SOCKET, 0o666, MACHINE_CONNECTIONS_MAX),
        }
    }

    fn folder(&self, attempt: AttemptId) -> PathBuf {
        self.way_out.join(attempt.to_string())
    }

    /// Treats a connection that came by the port as one through the attempt's own door: it has a place of that, and
    /// ends with it.
    pub(crate) fn enter(&self, attempt: AttemptId, guest: &Guest) -> Result<(), NoEntry> {
        let open = self.open_now();
        let inside = open.get(&attempt).ok_or(NoEntry::Closed)?;
        let place = inside.places.clone().try_acquire_owned().map_err(|_| NoEntry::Full)?;
        guest.sits_at(place);
        guest.ends_with(inside.closing.clone());
        Ok(())
    }

    fn open_now(&self) -> MutexGuard<'_, HashMap<AttemptId, Inside>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl mayfly_engine::Doors for Doors {
    fn open(&self, attempt: AttemptId) -> io::Result<PathBuf> {
        let (mut open, folder) = (self.open_now(), self.folder(attempt));
        let Entry::Vacant(entry) = open.entry(attempt) else { return Ok(folder) };
        make(&folder)?;
        let door = self.door(&folder)?;
        let house = self.house.room();
        entry.insert(Inside { closing: house.stopping.clone(), places: door.places() });
        // A server that has ended lets nobody in, and the door goes with it.
        let _ = self.opened.send(Opened { attempt, door, house });
        Ok(folder)
    }

    fn close(&self, attempt: AttemptId) -> io::Result<()> {
        let mut open = self.open_now();
        if let Some(Inside { closing, .. }) = open.remove(&attempt) {
            closing.cancel();
        }
        match fs::remove_dir_all(self.folder(attempt)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn list(&self) -> io::Result<Vec<AttemptId>> {
        // What is no attempt's is nobody's business.
        let entries = fs::read_dir(&self.way_out)?;
        entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().to_str()?.parse().ok()).transpose())
            .collect()
    }
}

/// Makes a folder that everybody may enter, whatever the process's mask; the one above it keeps others out.
fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use mayfly_engine::Doors as _;
    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;

    use super::*;

    fn doors() -> (Doors, mpsc::UnboundedReceiver<Opened>, TempDir) {
        let dir = tempfile::tempdir().expect("a folder");
        let house = House { stopping: CancellationToken::new(), running: TaskTracker::new() };
        let (doors, opened) = Doors::new(dir.path().join("way-out"), house, None);
        (doors, opened, dir)
    }

    fn attempt(number: u32) -> AttemptId {
        format!("0193b2c4-0000-7000-8000-0123456789ab.{number}").parse().expect("an id")
    }

    #[tokio::test]
    async fn a_door_is_opened_once_and_everybody_behind_its_folder_may_use_it() {
        let (doors, mut opened, _dir) = doors();
        let folder = doors.open(attempt(1)).expect("opened");
        assert_eq!(doors.open(attempt(1)).expect("found"), folder);
        let one = opened.recv().await.expect("a door");
        assert_eq!((one.attempt, opened.is_empty()), (attempt(1), true));
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(WAY_OUT_SOCKET))), (0o755, 0o666));
    }

    #[tokio::test]
    async fn a_closed_door_lets_nobody_in_and_leaves_nothing() {
        let (doors, mut opened, _dir) = doors();
        for number in [1, 2] {
            doors.open(attempt(number)).expect("opened");
        }
        let (first, second) = (opened.recv().await.expect("one"), opened.recv().await.expect("another"));
        doors.close(attempt(1)).expect("closed");
        doors.close(attempt(1)).expect("closed already");
        assert!(first.house.stopping.is_cancelled() && !second.house.stopping.is_cancelled());
        assert_eq!(doors.list().expect("listed"), [attempt(2)]);
        // What ends late does not take the next one with it.
        let folder = doors.open(attempt(1)).expect("opened anew");
        drop(first);
        assert!(folder.join(WAY_OUT_SOCKET).exists());
    }

    /// What stands in the way is named, and nothing of it is touched.
    #[tokio::test]
    async fn a_folder_that_is_none_is_no_door() {
        let (doors, opened, _dir) = doors();
        fs::create_dir(&doors.way_out).expect("made");
        fs::write(doors.folder(attempt(1)), "precious").expect("written");
        doors.open(attempt(1)).expect_err("a file");
        assert!(opened.is_empty());
        assert_eq!(fs::read_to_string(doors.folder(attempt(1))).expect("there"), "precious");
    }
}
