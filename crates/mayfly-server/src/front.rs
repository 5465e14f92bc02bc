//! The owner's side of a data folder for whoever serves the API there without being an orchestrator: its lock, its
//! socket, and a port of the loopback for who has the folder's token.
//!
//! One process at a time has a data folder, so that whoever asks at its socket always finds the one that is meant.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ServerConfig;
use crate::data::DataFolder;
use crate::http;
use crate::listen::{Door, House};
use crate::port::Port;
use crate::server::{StartError, open_socket};
use crate::tokens::FileToken;

/// A data folder that is ours while this value lives, and its doors.
pub struct Front {
    config: ServerConfig,
    doors: Doors,
    house: House,
    data: DataFolder,
}

struct Doors {
    socket: Door,
    port: Option<(Port, FileToken)>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("socket", &self.socket()).finish_non_exhaustive()
    }
}

/// An API that is being served.
#[derive(Debug)]
pub struct Serving {
    house: House,
    _data: DataFolder,
}

impl Front {
    /// Takes the folder, and opens its socket and, if one is wished for, a port. Who comes before
    /// [`serve`](Self::serve) waits.
    pub async fn open(data: &Path, listen: Option<SocketAddr>) -> Result<Self, StartError> {
        let config = ServerConfig { listen, ..ServerConfig::in_dir(data) };
        let folder = config.data.clone();
        let data = spawn_blocking(move || DataFolder::open(&folder)).await.expect("it does not panic")?;
        let socket = open_socket(&config)?;
        let token = FileToken::of(&data)?;
        let port = Port::open(&config, &data)?;
        let doors = Doors { socket, port: port.map(|port| (port, token)) };
        let house = House { stopping: CancellationToken::new(), running: TaskTracker::new() };
        Ok(Self { config, doors, house, data })
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.config.socket()
    }

    /// The port, if there is one.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.doors.port.as_ref().map(|(port, _)| port.address)
    }

    /// The file of the token that opens it.
    pub fn token_file(&self) -> PathBuf {
        self.config.token_file()
    }

    /// Serves `api` to all who come.
    pub fn serve(self, api: Router) -> Serving {
        let count = watch::channel(0).0;
        if let Some((Port { door, hosts, .. }, token)) = self.doors.port {
            let routes = http::guarded(api.clone(), token);
            self.house.serve(door, http::port(routes, hosts), count.clone());
        }
        self.house.serve(self.doors.socket, http::private(api), count);
        Serving { house: self.house, _data: self.data }
    }
}

impl Serving {
    /// Ends all exchanges, and lets go of the folder.
    pub async fn stop(self) {
        self.house.end().await;
    }
}
