//! What the machine was given at its start.

use std::fs::File;
use std::io::{self, Read as _};

use mayfly_wire::boot::{BOOT_FD, Boot};

/// A longer one is not read.
const BOOT_BYTES_MAX: u64 = 64 * 1024;

/// Reads it, and closes the file descriptor, so that nothing started later can read it again.
pub(crate) fn read() -> Result<Boot, BootError> {
    let mut json = Vec::new();
    let opened = File::open(format!("/proc/self/fd/{BOOT_FD}"));
    let read = opened.and_then(|file| file.take(BOOT_BYTES_MAX).read_to_end(&mut json));
    nix::unistd::close(BOOT_FD).map_err(|error| BootError::Unreadable(error.into()))?;
    read.map_err(BootError::Unreadable)?;
    serde_json::from_slice(&json).map_err(BootError::Malformed)
}

/// Nothing can be done in this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// Somebody ran `mayfly worker` by hand, or the provider is broken.
    #[error(
        "cannot read the boot record from file descriptor {BOOT_FD}: a machine's provider starts the worker"
    )]
    Unreadable(#[source] io::Error),
    /// The provider speaks another version.
    #[error("the boot record is not one of this version")]
    Malformed(#[source] serde_json::Error),
}
