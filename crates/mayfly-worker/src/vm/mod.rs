//! The first program of a virtual machine on its owner's own box: `mayfly worker --vm`.
//!
//! It is root, and PID 1 of the whole machine. It makes the machine what a worker expects, asks the host for what makes
//! it a machine of its own (a [`Handover`]), starts the worker beside it, and turns the machine off when that has ended.
//!
//! ```text
//! kernel ─► initramfs: modules, the image ─► this ─┬─ mounts (view), loopback (loopback)
//!                                                  ├─ dials the host, waits for the handover
//!                                                  ├─ clock, entropy, names
//!                                                  ├─ unshare ─► worker --boot FILE ─► the worker, PID 1 of its own
//!                                                  └─ reaps until that ends ─► the machine is off
//! ```
//!
//! The host notices that the machine is off, and nothing else: so whatever fails here is said on the console, and turns it
//! off. A panic does so too, since the kernel is told to restart when its first process ends.
//!
//! Nothing secret is there before the handover: a machine that waits for it can be saved, and each copy of it, whose
//! connection is gone, asks again.

mod loopback;
mod view;

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::Duration;

use mayfly_core::causes;
use mayfly_link::{Dial as _, LinkError, Route};
use mayfly_wire::boot::{HANDOVER_PORT, Handover, MAYFLY};
use mayfly_wire::endpoint::Endpoint;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getpid, setrlimit, wait};
use rustix::system::{RebootCommand, reboot, sethostname};
use rustix::time::{ClockId, Timespec, clock_settime};
use tokio::io::AsyncReadExt as _;

use crate::boot::BOOT_BYTES_MAX;

/// Where the worker finds its boot record: in memory, for root alone.
const BOOT_FILE: &str = "/run/mayfly-boot.json";
/// What gives the worker processes of its own, with this one out of its agent's reach. It is of every Debian's essential
/// packages.
const NAMESPACE: [&str; 5] = ["/usr/bin/unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];

/// Lives as the machine's first process. It returns only where it is none.
pub(crate) fn first() -> VmError {
    if !getpid().is_init() || !rustix::process::geteuid().is_root() {
        return VmError::NotFirst;
    }
    let Err(error) = live();
    if let Some(error) = error {
        tracing::error!(error = causes(&error), "the machine ends early");
    }
    match reboot(RebootCommand::Restart) {
        Err(errno) => VmError::Off(errno.into()),
        // The kernel does not come back from that.
        Ok(()) => VmError::NotFirst,
    }
}

/// With no error: the worker has ended.
fn live() -> Result<Infallible, Option<VmError>> {
    view::build()?;
    loopback::bring_up().map_err(VmError::Loopback)?;
    let handover = handed_over()?;
    become_own(&handover).map_err(VmError::Own)?;
    let worker = start(&handover).map_err(VmError::Worker)?;
    reap_until(worker).map_err(VmError::Worker)?;
    Err(None)
}

/// Asks the host, and waits for as long as it takes: the host has a bound for that.
fn handed_over() -> Result<Handover, VmError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let json = runtime.map_err(VmError::NoHandover)?.block_on(async {
        loop {
            if let Some(json) = asked().await? {
                return Ok::<_, VmError>(json);
            }
        }
    })?;
    serde_json::from_slice(&json).map_err(VmError::Malformed)
}

/// None: the connection was lost without a word, as it is in a copy of a machine.
async fn asked() -> Result<Option<Vec<u8>>, VmError> {
    let mut host = Route::from(Endpoint::Vsock(HANDOVER_PORT)).connect().await.map_err(VmError::NoHost)?;
    let mut json = Vec::new();
    let read = (&mut host).take(BOOT_BYTES_MAX).read_to_end(&mut json).await;
    match read {
        Ok(_) if !json.is_empty() => Ok(Some(json)),
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(VmError::NoHandover(error)),
        _ => Ok(None),
    }
}

/// Takes what no other machine has: the time, randomness, names.
fn become_own(handover: &Handover) -> io::Result<()> {
    let now = Duration::from_millis(handover.now_ms);
    let now = Timespec::try_from(now).map_err(|_| io::ErrorKind::InvalidData)?;
    clock_settime(ClockId::Realtime, now)?;
    fs::write("/dev/urandom", handover.entropy.expose())?;
    let number = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().replace('-', "");
    fs::write("/etc/machine-id", format!("{number}\n"))?;
    fs::write("/etc/hostname", format!("{}\n", handover.hostname))?;
    Ok(sethostname(handover.hostname.as_bytes())?)
}

/// Starts the worker, as in any machine that is a whole VM.
fn start(handover: &Handover) -> io::Result<Pid> {
    let mut file = File::options().write(true).create_new(true).mode(0o400).open(BOOT_FILE)?;
    file.write_all(&serde_json::to_vec(&handover.boot)?)?;
    drop(file);
    // Of the agent's user; root's processes are not counted.
    let most = Some(handover.pids_max.into());
    setrlimit(Resource::Nproc, Rlimit { current: most, maximum: most })?;
    let (program, options) = NAMESPACE.split_first().expect("it names a program");
    let mut command = Command::new(program);
    command.args(options).args([MAYFLY, "worker", "--boot", BOOT_FILE]);
    Ok(Pid::from_child(&command.spawn()?))
}

/// Waits for every process that ends, and returns at the end of `worker`.
fn reap_until(worker: Pid) -> io::Result<()> {
    loop {
        let ended = rustix::io::retry_on_intr(|| wait(WaitOptions::empty()))?;
        if ended.is_some_and(|(pid, _)| pid == worker) {
            return Ok(());
        }
    }
}

/// Why a machine has no worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VmError {
    /// Somebody ran it by hand.
    #[error("`mayfly worker --vm` is the first program of a virtual machine: a provider starts it")]
    NotFirst,
    /// The kernel or the image is not one of ours.
    #[error("cannot {step}")]
    View {
        /// What was tried.
        step: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There would be no way to the model.
    #[error("cannot bring the loopback interface up")]
    Loopback(#[source] io::Error),
    /// The host does not listen, or the kernel has no vsock.
    #[error("cannot reach the host by vsock")]
    NoHost(#[source] LinkError),
    /// The host hung up in the middle.
    #[error("cannot read what the host hands over")]
    NoHandover(#[source] io::Error),
    /// The host speaks another version.
    #[error("what the host hands over is not of this version: build the image with the host's own mayfly")]
    Malformed(#[source] serde_json::Error),
    /// The image is not one of ours.
    #[error("cannot make this a machine of its own")]
    Own(#[source] io::Error),
    /// The image is not one of ours.
    #[error("cannot start the worker")]
    Worker(#[source] io::Error),
    /// Nothing is left to try.
    #[error("cannot turn the machine off")]
    Off(#[source] io::Error),
}
