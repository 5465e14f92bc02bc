//! Machines as Linux sandboxes on this box.
//!
//! A machine is a set of namespaces with our worker as its first process, and a folder. Its *holder*, a small
//! process of our own binary, makes it, waits for its end, and outlives the orchestrator: the lifeline runs
//! between machine and holder, so a restarted orchestrator finds its machines alive.
//!
//! ```text
//! orchestrator ──spec──► holder ──clone──► init ──exec──► worker (PID 1, user `agent`)
//!        ▲──"it is up"─────┘  └ waits for init, keeps the lock       └ claude, tools
//!
//! machines/.making/<attempt>   locked while somebody makes or unmakes the machine
//! machines/<attempt>/lock      locked while the holder lives
//!                   /state.json  holder, init and cgroups, for whoever unmakes it
//!                   /home upper work workspace    what the agent wrote
//!                   /worker.log  what the worker said on its stderr
//! bases/                       shared checkouts, see `bases` and `shelf`
//! ```
//!
//! The agent is nobody on the host: as root an id of no user, else our own; either way in a second user
//! namespace, below the one that owns the mounts and the network, so that it has no capability over them.
//!
//! One shared kernel: this contains mistakes and ordinary prompt injection. It is no boundary against somebody
//! with a kernel exploit. The disk that a machine's folder takes is bounded by its worker, which is told the limit.
//! What runs inside is the worker's business; so is the socket in its way out
//! the orchestrator's.

mod bases;
mod cgroup;
mod create;
mod holder;
mod layers;
mod machine;
mod remove;
mod shelf;
mod sys;

use std::path::PathBuf;

use mayfly_core::AttemptId;
use mayfly_holder::Machines;
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError};

pub use holder::{HOLDER_VERB, holder_main};
pub use layers::{Layer, LayerState};

/// The provider's name.
const NAME: &str = "sandbox";

/// The agent's user and group id on the host where we are root: far outside what systems give to users,
/// services, containers or subordinate ranges.
pub const AGENT_HOST_ID: u32 = 0x7000_0000 + mayfly_wire::boot::AGENT_ID;

/// Where things are on this host.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// A folder of ours alone, made if missing: a folder for each machine.
    pub machines: PathBuf,
    /// A folder of ours alone, made if missing: the checkouts that workspaces start from.
    pub bases: PathBuf,
    /// The CLI.
    pub claude: PathBuf,
    /// Our own binary, which answers to `worker` and [`HOLDER_VERB`].
    pub mayfly: PathBuf,
}

/// Makes machines as sandboxes of this host.
///
/// Where we are root, the agent ([`AGENT_HOST_ID`]) must be able to enter a spec's way out (mode 0755 or 0711) and
/// to write to the socket in it (0666); keep others out by the mode of the folder above it.
#[derive(Debug)]
pub struct Sandbox {
    machines: Machines<SandboxConfig>,
}

impl Sandbox {
    /// Nothing is made or tried until a verb is called.
    pub fn new(config: SandboxConfig) -> Self {
        let SandboxConfig { machines, bases, claude, mayfly } = config;
        // The holder works from `/`. Only an empty path has no absolute form, and is refused when it is used.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let config = SandboxConfig {
            machines: absolute(machines),
            bases: absolute(bases),
            claude: absolute(claude),
            mayfly: absolute(mayfly),
        };
        Self { machines: Machines::new(config) }
    }

    /// Has the kernel hand limits down to machines that this process makes, where it would not while the process
    /// is in the cgroup that has them. To be called once, before anything else is started.
    pub fn step_aside() {
        cgroup::step_aside();
    }

    /// Tries each part of a sandbox here, in the order in which a machine is made. Only that they could not be
    /// tried is an error.
    pub async fn layers(&self) -> Result<Vec<Layer>, ProviderError> {
        self.machines
            .blocking("layers", |config| layers::layers(config).map_err(|failure| failure.answer(NAME)))
            .await
    }
}

#[async_trait::async_trait]
impl Provider for Sandbox {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        self.machines.probe().await
    }

    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        self.machines.create(spec).await
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        self.machines.destroy(attempt).await
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.machines.list().await
    }
}
