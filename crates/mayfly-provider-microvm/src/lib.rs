//! Machines as virtual machines of this box: a kernel of their own, and no network.
//!
//! A machine is a virtual machine monitor, QEMU, with a device beside it that carries vsock, and a folder. Its *holder*, a
//! small process of our own binary, starts both, hands over what the guest's worker boots from, waits for its end, and
//! outlives the orchestrator.
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
//! vsock, and of that only the two ports that have a socket in its folder. Without hardware for it, QEMU emulates the
//! processor: slower, and as isolated.
//!
//! What runs inside is the worker's business (`mayfly worker --vm`), and making the guest is the image's.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod create;
mod holder;
mod machine;
mod memory;
mod programs;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_holder::Machines;
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError, Sight};
use serde::{Deserialize, Serialize};

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
    /// What machines are started from.
    pub guest: Guest,
    /// How long a guest may take from its start until it asks for its handover.
    pub boot_max: Duration,
}

/// What machines are started from; nobody writes to it any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Guest {
    /// A Linux kernel, as a bzImage.
    pub kernel: PathBuf,
    /// What loads the kernel's modules, and enters the image.
    pub initramfs: PathBuf,
    /// The root file system.
    pub image: PathBuf,
}

/// Makes machines as virtual machines of this host.
#[derive(Debug)]
pub struct Microvm {
    machines: Machines<MicrovmConfig>,
}

impl Microvm {
    /// Nothing is made or tried until a verb is called.
    pub fn new(config: MicrovmConfig) -> Self {
        Self { machines: Machines::new(config) }
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
        self.machines.blocking("look", move |config| machine::look(config, attempt)).await
    }
}
