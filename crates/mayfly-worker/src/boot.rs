//! What the machine was given at its start.

use std::io::{self, Read as _};

use mayfly_wire::boot::Boot;

/// A longer one is not read.
pub(crate) const BOOT_BYTES_MAX: u64 = 64 * 1024;

/// Reads it to its end, so that nothing started later can read it again.
pub(crate) fn read() -> Result<Boot, BootError> {
    let mut json = Vec::new();
    let read = io::stdin().lock().take(BOOT_BYTES_MAX).read_to_end(&mut json);
    read.map_err(BootError::Unreadable)?;
    parse(&json)
}

/// A record, as it was written.
pub(crate) fn parse(json: &[u8]) -> Result<Boot, BootError> {
    serde_json::from_slice(json).map_err(BootError::Malformed)
}

/// Nothing can be done in this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// Somebody ran `mayfly worker` by hand, or the provider is broken.
    #[error("cannot read the boot record from standard input: a machine's provider starts the worker")]
    Unreadable(#[source] io::Error),
    /// The provider speaks another version.
    #[error("the boot record is not one of this version")]
    Malformed(#[source] serde_json::Error),
}
