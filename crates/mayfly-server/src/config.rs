//! What can be chosen about an orchestrator: its data folder, and the engine's rules.

use std::path::{Path, PathBuf};

use mayfly_engine::{EngineConfig, Rules};
use mayfly_wire::boot::WAY_OUT_SOCKET;

/// What one orchestrator is like.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The data folder; one orchestrator at a time has it. It is made if it is not there.
    pub data: PathBuf,
    /// What holds for its tasks.
    pub rules: Rules,
}

impl ServerConfig {
    /// The default rules, in the data folder `data`.
    pub fn in_dir(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), rules: Rules::default() }
    }

    /// The owner's socket.
    pub fn socket(&self) -> PathBuf {
        self.data.join("api.sock")
    }

    /// The folder with the machines' socket, which a provider shows to each machine. It is there once the
    /// server has started.
    pub fn way_out(&self) -> PathBuf {
        self.data.join("way-out")
    }

    pub(crate) fn way_out_socket(&self) -> PathBuf {
        self.way_out().join(WAY_OUT_SOCKET)
    }

    pub(crate) fn engine(&self, workspaces: &Path, results: &Path, key: [u8; 32]) -> EngineConfig {
        EngineConfig {
            rules: self.rules.clone(),
            workspaces: workspaces.to_owned(),
            results: results.to_owned(),
            key,
        }
    }
}
