//! Our process in a machine: PID 1, the `claude` child, the outbox, the collected result.
//!
//! ```text
//! vm: the first program of a virtual machine on its owner's box; enter: where the machine is a whole VM, before all this
//! boot ─► life ─┬─► uplink ─ outbox, spool ─ link ─► orchestrator
//!               ├─► relay: claude's way out; hold: while nobody is at its other end; egress: the way to other hosts
//!               ├─► setup: the commands of the repository, before claude is started
//!               ├─► supervise ─ listen ─► claude (command, input, interpret, verdict); limits, disk: what it may use
//!               ├─► checkout: the code, where the provider brings none; resume: what an earlier task left
//!               ├─► checkpoint: the work so far, while claude works; collect: bundle and session file
//!               └─► reaper: the one who waits for processes; shortage: who is killed for memory
//! simulation: the first of these rows, with the rest played by a test
//! ```
//!
//! One thread drives all of it. The worker itself decides nothing about the task: it reports how `claude`
//! ended, and the orchestrator keeps the first ending that it heard.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod boot;
mod checkout;
mod checkpoint;
mod claude;
mod closed;
mod collect;
mod disk;
mod egress;
mod enter;
mod exchange;
mod hold;
mod library;
mod life;
mod limits;
mod lines;
mod listen;
mod outbox;
mod reaper;
mod relay;
mod resume;
mod setup;
mod shortage;
pub mod simulation;
mod spool;
mod supervise;
mod uplink;
mod vm;
mod words;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mayfly_core::causes;
use mayfly_wire::boot::BASE;
use rustix::process::{DumpableBehavior, getpid, set_dumpable_behavior};

use crate::checkpoint::Pace;
pub use crate::checkpoint::state::WorkTree;
pub use crate::claude::command::Launch;
pub use crate::claude::input::opening;
use crate::enter::Role;
pub use crate::lines::Lines;
use crate::outbox::Bounds;
use crate::reaper::Realm;
use crate::shortage::Place;
use crate::supervise::Graces;

/// How long a thread stays that has nothing to do: longer than any machine.
const THREAD_KEPT: Duration = Duration::from_secs(u32::MAX as u64);

/// Gives any 64 bits at each call.
pub(crate) type Random = fn() -> u64;

/// What a worker finds around it besides its boot record.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Which processes are its to reap and to kill.
    pub(crate) realm: Realm,
    /// Its place in the order of those that are killed for memory, unless it is to be as its programs.
    pub(crate) place: Option<Place>,
    /// How long it waits for `claude`.
    pub(crate) graces: Graces,
    /// When it brings work out before its end.
    pub(crate) pace: Pace,
    /// How much may wait for the orchestrator, on a disk without a limit.
    pub(crate) bounds: Bounds,
    /// The code as it was handed over.
    pub(crate) base: PathBuf,
    /// Where temporary files go.
    pub(crate) scratch: PathBuf,
    /// For jitter.
    pub(crate) random: Random,
    /// Binds the ticket to this process.
    pub(crate) link_secret: String,
}

/// `mayfly worker`: lives the life of one machine. As PID 1, its end is the machine's. With `--boot FILE` it is
/// root in a VM, and becomes the worker; with `--vm` it is the first program of one.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match begin(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = causes(error.as_ref()), "the worker ended early");
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: impl Iterator<Item = OsString>) -> Result<(), Box<dyn std::error::Error>> {
    match enter::asked_for(arguments)? {
        Role::Enters(file) => match enter::enter(&file)? {},
        Role::First => Err(vm::first().into()),
        Role::Worker => start(),
    }
}

fn start() -> Result<(), Box<dyn std::error::Error>> {
    let boot = boot::read()?;
    let place = Place::own()?;
    // What this process holds is not for the agent, which runs as the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let surroundings = Surroundings {
        realm: if getpid().is_init() { Realm::Machine } else { Realm::Children },
        place: Some(place),
        graces: Graces::USUAL,
        pace: Pace::USUAL,
        bounds: Bounds::USUAL,
        base: BASE.into(),
        scratch: std::env::temp_dir(),
        random: || RandomState::new().hash_one(0),
        link_secret: secret()?,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().thread_keep_alive(THREAD_KEPT).build()?;
    // The thread for what waits on the disk: later the machine may have as many as it is allowed.
    runtime.block_on(runtime.spawn_blocking(|| ()))?;
    let lived = runtime.block_on(Box::pin(life::live(boot, surroundings)));
    // A walk through the workspace may still be under way; it has nobody to answer to.
    runtime.shutdown_background();
    Ok(lived?)
}

/// 256 random bits, in hex.
fn secret() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}
