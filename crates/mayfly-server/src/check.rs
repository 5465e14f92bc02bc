//! What a start would be refused for, found out without one, and told in the same words. Nothing is left behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_store::{Store, StoreError};

use crate::ServerConfig;
use crate::data::STORE;
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

/// Looks at the database of a data folder in which no orchestrator runs. Gives its path, if there is one.
///
/// # Errors
/// If it is none of ours, of a later version, or damaged.
pub fn check_database(data: &Path) -> Result<Option<PathBuf>, StartError> {
    let path = data.join(STORE);
    Store::look(&path).map_err(unusable(&path))?;
    Ok(path.exists().then_some(path))
}

/// Listens on an address for a moment.
///
/// # Errors
/// If it cannot be had.
pub async fn check_port(address: SocketAddr) -> Result<(), StartError> {
    listen(address, None, 1).await.map(drop)
}

/// A door on a port, with the address that it got.
pub(crate) async fn listen(
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    places: usize,
) -> Result<(Door, SocketAddr), StartError> {
    Door::at(address, tls, places).await.map_err(|source| StartError::Port { address, source })
}

/// What is wrong with a database.
pub(crate) fn unusable(path: &Path) -> impl FnOnce(StoreError) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Store { path, source }
}
