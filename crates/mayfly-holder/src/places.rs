//! Where machines are on the disk, and who works on one.
//!
//! Who makes or unmakes a machine holds the lock in `.making`, and a maker shares it with the holder until the machine is
//! up: a maker that dies does not let anybody into a half-made machine.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mayfly_core::AttemptId;

use crate::failure::{Failure, Step};
use crate::folder::Folder;
use crate::lock::{self, Lock};

const MAKING: &str = ".making";

/// A folder with a folder for each machine, named by its attempt.
#[derive(Debug, Clone)]
pub struct Places(PathBuf);

impl Places {
    /// Nothing is made until it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The folder of `attempt`'s machine; it need not be there.
    pub fn of(&self, attempt: AttemptId) -> Folder {
        Folder::new(self.0.join(attempt.to_string()))
    }

    /// Waits until nobody else makes or unmakes the machine.
    pub fn lock(&self, attempt: AttemptId) -> Result<Lock, Failure> {
        let path = self.making(attempt);
        let locked = make_private(&self.0.join(MAKING)).and_then(|()| Lock::acquire(&path));
        locked.step(format!("lock {}", path.display()))
    }

    /// Whether somebody makes or unmakes it.
    pub fn is_being_made(&self, attempt: AttemptId) -> io::Result<bool> {
        lock::is_held(&self.making(attempt))
    }

    /// Whose folders there are.
    pub fn attempts(&self) -> io::Result<Vec<AttemptId>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().to_str()?.parse().ok()).transpose())
            .collect()
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn making(&self, attempt: AttemptId) -> PathBuf {
        self.0.join(MAKING).join(attempt.to_string())
    }
}

/// Makes `path`, for us alone.
pub fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
