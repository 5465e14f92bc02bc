//! What a machine finds when its worker starts: the agreement between providers and the worker.
//!
//! ```text
//! /opt/mayfly/mayfly         our binary, started as `mayfly worker`, PID 1 of the machine
//! /opt/claude/claude         the CLI, read-only
//! /run/mayfly/               a directory of the host, read-only: the orchestrator's socket is in it
//! /workspace/<name>          the code, writable; else /workspace alone
//! /opt/base                  the code as it was, read-only; absent without code
//! /home/agent, /tmp          private and writable; the one on the disk, the other in memory
//! ```
//!
//! The worker reads one [`Boot`] as JSON from its standard input, until its end: what is secret in it is never
//! in an environment, an argument or a file. A machine that is a whole VM elsewhere has it in a file that only root can
//! read; `mayfly worker --boot FILE` removes the file and becomes that worker. A VM on the orchestrator's box has it from
//! the host, with what else makes it a machine of its own: `mayfly worker --vm` is its first program, dials
//! [`HANDOVER_PORT`] there, and reads one [`Handover`] as JSON until its end. Its orchestrator is at [`ORCHESTRATOR_PORT`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::secret::Secret;

/// Our binary.
pub const MAYFLY: &str = "/opt/mayfly/mayfly";
/// The CLI.
pub const CLAUDE: &str = "/opt/claude/claude";
/// The directory with the orchestrator's socket.
pub const WAY_OUT: &str = "/run/mayfly";
/// The socket's name in it.
pub const WAY_OUT_SOCKET: &str = "orchestrator.sock";
/// Where the code is.
pub const WORKSPACE: &str = "/workspace";
/// The code as it was, with its `.git`, out of the agent's reach.
pub const BASE: &str = "/opt/base";
/// The agent's home.
pub const HOME: &str = "/home/agent";
/// The variable of an orchestrator's environment that has a token which opens its port.
pub const OWNER_TOKEN: &str = "MAYFLY_OWNER_TOKEN";
/// The agent's user and group id inside a machine.
pub const AGENT_ID: u32 = 1000;

/// The port of the host that a virtual machine asks for its [`Handover`].
pub const HANDOVER_PORT: u32 = 6293;
/// The port of the host that leads to the machine's own door.
pub const ORCHESTRATOR_PORT: u32 = 6294;

/// What a virtual machine is given once it has started, and no other has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// The host's time, in milliseconds since 1970.
    pub now_ms: u64,
    /// Random bytes in hex, for the kernel's own.
    pub entropy: Secret,
    /// What it calls itself.
    pub hostname: String,
    /// How many processes and threads its agent may have.
    pub pids_max: u32,
    /// What its worker boots from.
    pub boot: Boot,
}

/// What a worker must know before it can ask for more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The attempt: `<task>.<number>`.
    pub attempt: String,
    /// Proves the attempt in the hello.
    pub ticket: Secret,
    /// Where the orchestrator is reached, as the machine sees it.
    pub endpoint: Endpoint,
    /// The CLI.
    pub claude: PathBuf,
    /// The agent's home, an empty and writable folder.
    pub home: PathBuf,
    /// The folder that holds the workspace.
    pub workspace: PathBuf,
    /// Where the kernel counts kills for lack of memory, if it does: `memory.events` of cgroup v2, or
    /// `memory.oom_control` of v1. Both have a line `oom_kill N`.
    #[serde(default)]
    pub memory_events: Option<PathBuf>,
    /// The limit of processes, if the kernel counts what it refuses for it.
    #[serde(default)]
    pub processes: Option<ProcessLimit>,
    /// The limit of the disk; none where nothing bounds it.
    #[serde(default)]
    pub disk: Option<DiskLimit>,
    /// Places (`HOST:PORT`) that no connection from the machine may get through to. Where one does, nothing is run.
    #[serde(default)]
    pub closed_to: Vec<String>,
}

/// What a machine's files may take of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskLimit {
    /// The most, in bytes.
    pub max: u64,
    /// The folders that hold all the files that a machine's programs can write to the disk; on one file system.
    pub folders: Vec<PathBuf>,
}

/// How many processes a machine may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessLimit {
    /// The most, threads counted as well.
    pub max: u32,
    /// Where the kernel counts what it refused: `pids.events` of cgroup v1 or v2, with a line `max N`.
    pub events: PathBuf,
}
