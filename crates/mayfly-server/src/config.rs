//! What can be chosen about an orchestrator. Everything but the data folder has a default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_core::Policy;
use mayfly_engine::EngineConfig;
use mayfly_provider::Limits;
use mayfly_wire::boot::WAY_OUT_SOCKET;

/// What one orchestrator is like.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The data folder; one orchestrator at a time has it. It is made if it is not there.
    pub data: PathBuf,
    /// How many attempts at once, and when one is worth another try. Default: [`Policy::default`].
    pub policy: Policy,
    /// The model of tasks that name none. Default: `sonnet`.
    pub model: String,
    /// What one machine may use. Default: [`Limits::default`].
    pub limits: Limits,
    /// The version that `claude` must name in its first message; none accepts any. Default: none.
    pub claude_version: Option<String>,
    /// From asking for a machine to its worker's hello. Default: 60 s.
    pub launch_max: Duration,
    /// The whole run of a task that names no limit. Default: 30 min.
    pub timeout: Duration,
    /// The longest silence of `claude` in a task that names no limit. Default: 10 min.
    pub idle_timeout: Duration,
    /// For bringing the work out. Default: 2 min.
    pub collect_max: Duration,
    /// Silence of a worker after which the owner is told. Default: 30 s.
    pub silent_after: Duration,
    /// How long a machine goes on without an orchestrator. Default: 1 h.
    pub orphan_after: Duration,
}

impl ServerConfig {
    /// The defaults, in the data folder `data`.
    pub fn in_dir(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            policy: Policy::default(),
            model: "sonnet".to_owned(),
            limits: Limits::default(),
            claude_version: None,
            launch_max: Duration::from_secs(60),
            timeout: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(10 * 60),
            collect_max: Duration::from_secs(2 * 60),
            silent_after: Duration::from_secs(30),
            orphan_after: Duration::from_secs(60 * 60),
        }
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
            policy: self.policy,
            model: self.model.clone(),
            limits: self.limits,
            claude_version: self.claude_version.clone(),
            launch_max: self.launch_max,
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            collect_max: self.collect_max,
            silent_after: self.silent_after,
            orphan_after: self.orphan_after,
            workspaces: workspaces.to_owned(),
            results: results.to_owned(),
            key,
        }
    }
}
