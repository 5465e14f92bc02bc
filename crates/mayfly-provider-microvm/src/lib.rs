//! Machines as virtual machines of this box: a kernel of their own, and no network.
//!
//! A machine is a virtual machine monitor and a folder: Firecracker, or QEMU with a device beside it that carries vsock. Its
//! *holder*, a small process of our own binary, starts it, hands over what the guest's worker boots from, waits for its end,
//! and outlives the orchestrator.
//!
//! ```text
//! orchestrator ──spec──► holder ─┬─► vhost-device-vsock ◄──┐ vsock
//!        ▲──"it runs"──────┘     └─► QEMU ── guest ── worker --vm
//!
//! machines/.making/<attempt>     locked while somebody makes or unmakes the machine
//! machines/<attempt>/lock        locked while the holder lives
//!                   /state.json  the processes, and how it ended
//!                   /disk        the machine's own disk, a sparse file
//!                   /vsock_6293  where a guest that has started asks for its handover, once
//!                   /vsock_6294  a link to the attempt's door
//!                   /console.log what the guest's kernel and worker said
//! ```
//!
//! The guest is the same for all: a kernel, an initramfs and an image, none of which is ever written. What leaves it is
//! vsock, and of that only the two ports that have a socket in its folder. Firecracker needs a processor that virtualises;
//! without one QEMU emulates it: slower, and as isolated. Which of them makes the machines is chosen ([`Vmm`]).
//!
//! What runs inside is the worker's business (`mayfly worker --vm`), and making the guest is the image's.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod create;
mod decide;
mod holder;
mod machine;
mod memory;
mod programs;
mod system;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use decide::Decided;
use mayfly_core::AttemptId;
use mayfly_holder::Machines;
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError, Sight};
use system::Checked;

pub use holder::{HOLDER_VERB, holder_main};

/// The provider's name.
const NAME: &str = "microvm";

/// Where things are on this host.
#[derive(Debug, Clone)]
pub struct MicrovmConfig {
    /// A folder of ours alone, made if missing: a folder for each machine.
    pub machines: PathBuf,
    /// Our own binary, which answers to [`HOLDER_VERB`].
    pub mayfly: PathBuf,
    /// Where the programs are that machines run on, as `PATH` has it.
    pub path: OsString,
    /// The folder of what machines start from, as `mayfly image build --for microvm` makes it.
    pub system: PathBuf,
    /// What they run in.
    pub vmm: Vmm,
    /// How long a guest may take from its start until it asks for its handover.
    pub boot_max: Duration,
}

/// What machines run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// Firecracker where a guest starts by it, as is tried once, and else QEMU.
    Auto,
    /// Firecracker, and nothing else.
    Firecracker,
    /// QEMU, and nothing else.
    Qemu,
}

/// A host, with what was found out about it.
#[derive(Debug)]
struct Host {
    config: MicrovmConfig,
    system: Checked,
    decided: Decided,
}

/// Makes machines as virtual machines of this host.
#[derive(Debug)]
pub struct Microvm {
    machines: Machines<Host>,
}

impl Microvm {
    /// Nothing is made or tried until a verb is called.
    pub fn new(config: MicrovmConfig) -> Self {
        Self {
            machines: Machines::new(Host { config, system: Checked::default(), decided: Decided::default() }),
        }
    }

    /// Why QEMU makes the machines where Firecracker was tried first. None where that was not, and where it does.
    pub async fn fell_back(&self) -> Result<Option<String>, ProviderError> {
        self.machines.blocking("look", |host| Ok(host.decided.fell_back())).await
    }
}

#[async_trait::async_trait]
impl Provider for Microvm {
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

    async fn look(&self, attempt: AttemptId) -> Result<Sight, ProviderError> {
        self.machines.blocking("look", move |host| machine::look(host, attempt)).await
    }
}
