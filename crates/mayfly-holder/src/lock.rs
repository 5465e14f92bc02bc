//! Locks on files: who works on a machine, and whether its holder lives.
//!
//! `flock` belongs to the open file, so it ends with the last process that has it open: there is no stale lock
//! after a crash, and no pid that could be somebody else's by now. A lock that is handed to a child is held
//! until both have closed it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock at `path`, whose file is made if there is none.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        Self::flock(path, FlockOperation::LockExclusive)
    }

    /// The same with others, who may hold it at the same time.
    pub fn acquire_with_others(path: &Path) -> io::Result<Self> {
        Self::flock(path, FlockOperation::LockShared)
    }

    /// `None` if anybody holds it, alone or with others.
    pub fn acquire_if_free(path: &Path) -> io::Result<Option<Self>> {
        match Self::flock(path, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            locked => locked.map(Some),
        }
    }

    fn flock(path: &Path, operation: FlockOperation) -> io::Result<Self> {
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            rustix::io::retry_on_intr(|| flock(&file, operation))?;
            if is_still_at(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Notes in the file's time of change that it was used now.
    pub fn touch(&self) -> io::Result<()> {
        self.file.set_modified(SystemTime::now())
    }

    /// Removes the file and lets go. Whoever waits for it notices, and makes a new one.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// The open file, to share the lock with a child.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Whether somebody holds the lock at `path`.
pub(crate) fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_the_last_one_who_shares_it_lets_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        assert!(!is_held(&path).expect("readable"));
        let lock = Lock::acquire(&path).expect("free");
        let shared = lock.share().expect("a second descriptor");
        drop(lock);
        assert!(is_held(&path).expect("readable"));
        drop(shared);
        assert!(!is_held(&path).expect("readable"));
    }

    #[test]
    fn removing_a_lock_leaves_one_holder_at_a_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = Lock::acquire(&path).expect("a lock");
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        lock.remove().expect("ours");
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
