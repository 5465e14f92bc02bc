//! A door: a unix socket, and the connections that come through it.
//!
//! Bounds: [`SOCKET_PATH_BYTES_MAX`], [`CONNECTIONS_MAX`] at once (more wait in the system's queue),
//! [`HEAD_MAX`] for a request to say what it wants. When the server stops, each connection ends after the
//! exchange that it is in, or after [`STOP_MAX`].

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::STOP_MAX;

/// The longest path of a socket; the systems' own bounds are 103 (macOS) and 107 (Linux).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 100;
/// Connections at once through one door.
const CONNECTIONS_MAX: usize = 512;
/// The time for a request's head.
const HEAD_MAX: Duration = Duration::from_secs(20);
/// The pause after the system gave no connection, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket; its file is removed with it.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Binds `path`. The folder's lock is held, so a socket that is there already is a dead one's.
    pub(crate) fn open(path: PathBuf, mode: u32) -> io::Result<Self> {
        if fs::symlink_metadata(&path).is_ok_and(|is| is.file_type().is_socket()) {
            fs::remove_file(&path)?;
        }
        let door = Self { listener: UnixListener::bind(&path)?, path };
        fs::set_permissions(&door.path, Permissions::from_mode(mode))?;
        Ok(door)
    }

    /// Whether a socket can have this path.
    pub(crate) fn fits(path: &Path) -> bool {
        path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What the connections of all doors share.
#[derive(Debug, Clone)]
pub(crate) struct House {
    /// Ends everything.
    pub(crate) stopping: CancellationToken,
    /// Everything that runs.
    pub(crate) running: TaskTracker,
}

impl House {
    /// Serves `router` to all who come through `door`, until the server stops. `connections` counts them.
    pub(crate) fn serve(&self, door: Door, router: Router, connections: watch::Sender<usize>) {
        let house = self.clone();
        self.running.spawn(async move {
            let stopping = house.stopping.clone();
            stopping.run_until_cancelled(house.accept(door, router, connections)).await;
        });
    }

    async fn accept(self, door: Door, router: Router, connections: watch::Sender<usize>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let slot = slots.clone().acquire_owned().await.expect("it is never closed");
            match door.listener.accept().await {
                Ok((stream, _)) => {
                    let guest = Guest::new(connections.clone(), slot);
                    self.running.spawn(exchange(stream, router.clone(), self.stopping.clone(), guest));
                }
                Err(error) => {
                    tracing::warn!(cause = %error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection, counted while it is there.
struct Guest {
    connections: watch::Sender<usize>,
    _slot: OwnedSemaphorePermit,
}

impl Guest {
    fn new(connections: watch::Sender<usize>, slot: OwnedSemaphorePermit) -> Self {
        connections.send_modify(|count| *count += 1);
        Self { connections, _slot: slot }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connections.send_modify(|count| *count -= 1);
    }
}

/// The requests of one connection, one after another.
async fn exchange(stream: UnixStream, router: Router, stopping: CancellationToken, _guest: Guest) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection.with_upgrades());
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(STOP_MAX, connection).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        tracing::debug!(cause = %error, "a connection broke");
    }
}
