//! The folder of one machine: the lock of its life, and its state. The rest of it is its provider's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lock::is_held;

/// It need not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Held by the holder for its life.
    pub fn life(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Whether its holder lives.
    pub fn is_alive(&self) -> io::Result<bool> {
        is_held(&self.life())
    }

    /// `None` if there is none, or only a half: then nothing that it would name was made.
    pub fn state<S: DeserializeOwned>(&self) -> Option<S> {
        serde_json::from_slice(&fs::read(self.0.join("state.json")).ok()?).ok()
    }

    /// Replaces the whole.
    pub fn write_state(&self, state: &impl Serialize) -> io::Result<()> {
        let next = self.0.join("state.next");
        fs::write(&next, serde_json::to_vec(state)?)?;
        fs::rename(next, self.0.join("state.json"))
    }
}
