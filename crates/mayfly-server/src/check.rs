//! What a start would be refused for, found out without one, and told in the same words. Nothing is left behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_store::{Store, StoreError};

use crate::ServerConfig;
use crate::data::{STORE, check_key_kept};
use crate::listen::Door;
use crate::server::StartError;

/// Checks that clients can name the owner's socket.
///
/// # Errors
/// If its path is too long.
pub fn check_socket(config: &ServerConfig) -> Result<(), StartError> {
    let path = config.socket();
    if Door::fits(&path) { Ok(()) } else { Err(StartError::LongPath { path }) }
}

/// How long the doctor reads a database for damage: a gigabyte takes a few seconds.
const EXAMINED_MAX: Duration = Duration::from_secs(20);

/// A database that a start would take.
#[derive(Debug)]
pub struct Database {
    /// Where it is.
    pub path: PathBuf,
    /// Whether all of it was read: a start reads the tables of the queue alone.
    pub whole: bool,
}

/// Looks at the database of a data folder in which no orchestrator runs, and at the key to it, and reads all of it if
/// that does not take too long. `None`: there is none.
///
/// # Errors
/// If it is none of ours, of a later version, or damaged; or if the key is gone that its tasks need.
pub fn check_database(data: &Path) -> Result<Option<Database>, StartError> {
    let path = data.join(STORE);
    let unfinished = Store::look(&path).map_err(unusable(&path))?;
    if !path.exists() {
        return Ok(None);
    }
    check_key_kept(data, unfinished)?;
    let whole = Store::examine(&path, EXAMINED_MAX).map_err(unusable(&path))?;
    Ok(Some(Database { path, whole }))
}

/// Listens on an address for a moment.
///
/// # Errors
/// If it cannot be had.
pub fn check_port(address: SocketAddr) -> Result<(), StartError> {
    listen(address, None, 1).map(drop)
}

/// A door on a port, with the address that it got.
pub(crate) fn listen(
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    places: usize,
) -> Result<(Door, SocketAddr), StartError> {
    Door::at(address, tls, places).map_err(|source| StartError::Port { address, source })
}

/// What is wrong with a database.
pub(crate) fn unusable(path: &Path) -> impl FnOnce(StoreError) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Store { path, source }
}
