//! A git bundle on its way to an orchestrator, known by its content.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sha2::{Digest as _, Sha256};

use crate::ClientError;

/// What is read at once.
const READ_BYTES: usize = 256 * 1024;

/// A git bundle to be handed over.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub(crate) file: PathBuf,
    pub(crate) sha256: String,
    pub(crate) on: Option<String>,
    /// Its length.
    pub bytes: u64,
    /// How much of it is on its way, or there.
    pub sent: Arc<AtomicU64>,
}

impl Bundle {
    /// Looks through the bundle at `file`. `on` is the id of the whole one that it is on top of, if it is not whole itself.
    pub async fn read(file: &Path, on: Option<&str>) -> Result<Self, ClientError> {
        let path = file.to_owned();
        let read = tokio::task::spawn_blocking(move || digest(&path)).await;
        let (sha256, bytes) = read.expect("reading does not panic").map_err(ClientError::file(file))?;
        let (on, sent) = (on.map(str::to_owned), Arc::default());
        Ok(Self { file: file.to_owned(), sha256, on, bytes, sent })
    }

    /// What it is known by.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// The SHA-256 of a file in hex, and its length.
fn digest(path: &Path) -> io::Result<(String, u64)> {
    let (mut file, mut sha256, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut piece = vec![0; READ_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((hex::encode(sha256.finalize()), bytes)),
            read => {
                sha256.update(&piece[..read]);
                bytes += read as u64;
            }
        }
    }
}
