//! The lock: one process has a data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::{DataError, io_error};
use super::secret::NO_LINK;
use crate::STOP_MAX;
use crate::config::OWNER_SOCKET;

/// How long an orchestrator that has closed its door may take to end.
const ENDING_MAX: Duration = STOP_MAX.saturating_mul(3);
/// More than a process id has.
const PID_BYTES_MAX: usize = 20;
/// The name of the lock's file.
pub(super) const LOCK: &str = "lock";

/// Takes the lock, or tells who has it. The system lets go of it when the process ends, however it ends: one that
/// has no door any more is about to, and is waited for.
pub(super) fn lock(root: &Path) -> Result<File, DataError> {
    let path = root.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_LINK);
    let mut file = options.open(&path).map_err(io_error("open", &path))?;
    let mut locked = file.try_lock();
    if matches!(locked, Err(TryLockError::WouldBlock)) && is_ending(root, &file) {
        wait_until_free(&path);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DataError::Locked { path: root.to_owned(), pid: holder(&file) });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io_error("write", &path))?;
    Ok(file)
}

/// The process that has a data folder, if one has.
pub fn holder_of(root: &Path) -> Option<i32> {
    let lock = OpenOptions::new().read(true).custom_flags(NO_LINK).open(root.join(LOCK)).ok()?;
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| holder(&lock).parse().ok())?
}

/// Waits until nobody has a data folder any more, as long as an orchestrator takes to end. Whether it was.
pub fn wait_until_had_by_none(root: &Path) -> bool {
    wait_until_free(&root.join(LOCK));
    holder_of(root).is_none()
}

/// Who wrote its process id into the lock.
fn holder(lock: &File) -> String {
    let mut pid = [0; PID_BYTES_MAX];
    let read = lock.read_at(&mut pid, 0).unwrap_or_default();
    String::from_utf8_lossy(&pid[..read]).trim().to_owned()
}

/// Whether the holder has closed its door, and is another process than this one.
fn is_ending(root: &Path, lock: &File) -> bool {
    !root.join(OWNER_SOCKET).exists() && holder(lock) != std::process::id().to_string()
}

/// Waits until the lock can be had, though not for ever. No system waits for a lock with a bound: a thread does
/// without one, and lets go of what it got too late.
fn wait_until_free(path: &Path) {
    let Ok(lock) = File::open(path) else { return };
    let (free, freed) = mpsc::channel();
    thread::spawn(move || {
        let locked = lock.lock();
        drop(lock);
        free.send(locked)
    });
    let _ = freed.recv_timeout(ENDING_MAX);
}
