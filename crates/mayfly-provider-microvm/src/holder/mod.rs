//! The holder: starts one machine, tells its maker, hands over what the guest asks for, and waits for the end.
//!
//! ```text
//! holder                                   QEMU                      guest
//!   ├ the disk, the initramfs, the sockets
//!   ├─► vhost-device-vsock
//!   ├─────────────────────────────────────► dials our QMP socket      (or Firecracker, which carries vsock
//!   │              ◄──capabilities, cont──►                            itself, and has a socket of its own)
//!   ├ answers the maker                     ──────────────────────► boots
//!   │   ◄────────────────── vsock_6293 ──── vsock ──────────────── worker --vm
//!   ├─ the handover, once ───────────────────────────────────────► the worker
//!   └ waits for QEMU's end, and ends the device
//! ```
//!
//! A guest that does not ask in time is started once more, since a guest under emulation may hang in its first seconds:
//! that is noted. No process outlives the holder: the kernel kills those that it has started (`vmm`).
//!
//! It works in the machine's folder, so that no socket's path is too long.
//!
//! Bounds: [`Spec::boot_max`] for a guest to ask; `STARTED_MAX` for the programs to be ready; `LOG_BYTES_MAX` of what the
//! guest's console says are kept, the rest is read and dropped.

mod disk;
mod firecracker;
mod initramfs;
mod qemu;
mod tsc;
mod vmm;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_holder::{Answer, Failure, Folder, Lock, ProcessId, Step, Streams};
use mayfly_wire::Secret;
use mayfly_wire::boot::{Boot, HANDOVER_PORT, Handover, ORCHESTRATOR_PORT};
use rustix::process::{Pid, getpid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use crate::machine::State;
use crate::programs::{Monitor, Programs};
use crate::system::Guest;

/// The hidden verb of our binary that becomes a holder.
pub const HOLDER_VERB: &str = "microvm-holder";
/// What follows the verb where a program is started that is to end with its holder.
const VMM_WORD: &str = "vmm";

/// From the start of a machine's programs until they are ready.
const STARTED_MAX: Duration = Duration::from_secs(20);
/// How often the device's socket is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a guest may take to read its handover.
const HANDOVER_MAX: Duration = Duration::from_secs(20);
/// How much of what a console says is kept.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// How much a program may say when it does not start.
const WORDS_BYTES_MAX: u64 = 4096;
/// The kernel's random bytes of a new machine.
const ENTROPY_BYTES: usize = 64;

/// The names in a machine's folder.
const DISK: &str = "disk";
const INITRAMFS: &str = "initramfs";
const DEVICE: &str = "device.sock";
const QMP: &str = "qmp.sock";
const API: &str = "firecracker.sock";
const VSOCK: &str = "vsock";
const CONSOLE: &str = "console.log";

/// All that a holder is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) folder: Folder,
    /// The socket of the attempt's door. None for a machine that is only to start.
    pub(crate) door: Option<PathBuf>,
    pub(crate) mayfly: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) guest: Guest,
    pub(crate) boot_max: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) pids_max: u32,
    pub(crate) cpus: u8,
    /// What its owner should know before it is made.
    pub(crate) notes: Vec<String>,
    pub(crate) boot: Boot,
}

/// Runs the holder; `args` are those after [`HOLDER_VERB`]. To be called by `main` before there is any other thread.
pub fn holder_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    match args.next() {
        Some(word) if word == VMM_WORD => vmm::become_program(args),
        // An error here is one of the pipes to the maker, so there is nobody to tell.
        _ => hold().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    }
}

fn hold() -> io::Result<()> {
    let Streams { spec, answer, making } = Streams::<Spec>::take()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match Holder::begin(spec).await {
            Ok((mut holder, machine)) if holder.spec.door.is_some() => {
                Answer::Up { notes: holder.state.notes.clone() }.send(answer);
                drop(making);
                holder.attend(machine).await;
            }
            Ok((mut holder, machine)) => holder.try_out(machine).await.send(answer),
            Err(failure) => Answer::Failed(failure).send(answer),
        }
    });
    // A console that is still read has nobody to say anything to.
    runtime.shutdown_background();
    Ok(())
}

struct Holder {
    spec: Spec,
    state: State,
    _life: Lock,
}

/// A machine whose processor runs.
struct Running {
    monitor: Child,
    /// What the monitor is called.
    name: &'static str,
    /// What carries vsock beside it.
    device: Option<Child>,
    /// Where its guest asks.
    asked: UnixListener,
}

impl Holder {
    /// Makes all that a machine is started from, and starts it.
    async fn begin(spec: Spec) -> Result<(Self, Running), Failure> {
        let folder = &spec.folder;
        std::env::set_current_dir(folder.path()).step(format!("enter {}", folder.path().display()))?;
        let life = Lock::acquire(&folder.life()).step("lock the machine's folder")?;
        disk::make(&spec.programs.mkfs, Path::new(DISK), spec.disk_bytes)?;
        initramfs::padded(&spec.guest.initramfs, Path::new(INITRAMFS))?;
        if let Some(door) = &spec.door {
            let link = format!("{VSOCK}_{ORCHESTRATOR_PORT}");
            std::os::unix::fs::symlink(door, link).step("lead the guest to its door")?;
        }
        let holder = Some(ProcessId::of(getpid()).step("name the holder's process")?);
        let (notes, memory_bytes) = (spec.notes.clone(), spec.memory_bytes);
        let state = State { holder, memory_bytes, notes, ..State::default() };
        let mut holder = Self { spec, state, _life: life };
        holder.write_state()?;
        let machine = holder.start().await?;
        Ok((holder, machine))
    }

    fn write_state(&self) -> Result<(), Failure> {
        self.spec.folder.write_state(&self.state).step("write the machine's state")
    }

    async fn start(&mut self) -> Result<Running, Failure> {
        for socket in [DEVICE, QMP, API, VSOCK, &format!("{VSOCK}_{HANDOVER_PORT}")] {
            // One that is not there is not in the way.
            let _ = fs::remove_file(socket);
        }
        let asked = UnixListener::bind(format!("{VSOCK}_{HANDOVER_PORT}")).step("listen for the guest")?;
        let until = Instant::now() + STARTED_MAX;
        let (mut monitor, name, device) = match self.spec.programs.monitor.clone() {
            Monitor::Qemu { program, vsock } => {
                let (qemu, device) = self.start_qemu(&program, &vsock, until).await?;
                (qemu, "QEMU", Some(device))
            }
            Monitor::Firecracker { program } => {
                let mut monitor = vmm::start(&self.spec.mayfly, &program, &firecracker::arguments())?;
                self.name_processes([&monitor])?;
                firecracker::go(&mut monitor, &self.spec, until).await?;
                (monitor, "Firecracker", None)
            }
        };
        keep(monitor.stdout.take());
        drop(monitor.stderr.take());
        Ok(Running { monitor, name, device, asked })
    }

    async fn start_qemu(
        &mut self,
        program: &Path,
        vsock: &Path,
        until: Instant,
    ) -> Result<(Child, Child), Failure> {
        let qmp = UnixListener::bind(QMP).step("listen for QEMU")?;
        let mut device = vmm::start(&self.spec.mayfly, vsock, &device_arguments())?;
        ready(&mut device, until).await?;
        let arguments = qemu::arguments(&self.spec.guest, self.spec.memory_bytes, tsc::khz());
        let mut qemu = vmm::start(&self.spec.mayfly, program, &arguments)?;
        self.name_processes([&device, &qemu])?;
        qemu::go(&qmp, &mut qemu, until).await?;
        Ok((qemu, device))
    }

    fn name_processes<const N: usize>(&mut self, children: [&Child; N]) -> Result<(), Failure> {
        self.state.processes = children.into_iter().filter_map(named).collect();
        self.write_state()
    }

    /// Hands over what the guest asks for, and returns at the machine's end.
    async fn attend(&mut self, mut machine: Running) {
        let end = match self.booted(&mut machine).await {
            Ok(mut guest) => {
                let handed_over = timeout(HANDOVER_MAX, guest.write_all(&self.handover())).await;
                drop(guest);
                match handed_over {
                    Ok(Ok(())) => end_of(machine.name, machine.monitor.wait().await),
                    _ => "its guest did not take what it had asked for".to_owned(),
                }
            }
            Err(failure) => failure.to_string(),
        };
        machine.end().await;
        self.state.end = Some(end);
        // Who looks later finds that it has ended, in any case.
        let _ = self.write_state();
    }

    /// Only sees whether the guest starts.
    async fn try_out(&mut self, mut machine: Running) -> Answer {
        let booted = self.booted(&mut machine).await;
        machine.end().await;
        match booted {
            Ok(_) => Answer::Up { notes: self.state.notes.clone() },
            Err(failure) => Answer::Failed(failure),
        }
    }

    /// Waits until the guest asks. One that hangs under emulation is started once more.
    async fn booted(&mut self, machine: &mut Running) -> Result<tokio::net::UnixStream, Failure> {
        let first = machine.asked_within(self.spec.boot_max).await;
        let Err(first) = first else { return first };
        if matches!(self.spec.programs.monitor, Monitor::Firecracker { .. }) {
            return Err(first);
        }
        machine.end().await;
        self.state.notes.push(format!("it was started a second time: {first}"));
        *machine = self.start().await?;
        machine.asked_within(self.spec.boot_max).await
    }

    fn handover(&self) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = self.spec.boot.clone();
        let handover = Handover {
            now_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            entropy: entropy(),
            hostname: hostname(&boot.attempt),
            pids_max: self.spec.pids_max,
            boot,
        };
        serde_json::to_vec(&handover).expect("a handover is plain data")
    }
}

impl Running {
    async fn asked_within(&mut self, boot_max: Duration) -> Result<tokio::net::UnixStream, Failure> {
        let seconds = boot_max.as_secs();
        tokio::select! {
            asked = timeout(boot_max, self.asked.accept()) => match asked {
                Ok(asked) => {
                    // Nobody else in the guest is to ask.
                    fs::remove_file(format!("{VSOCK}_{HANDOVER_PORT}")).step("close the handover")?;
                    asked.map(|(guest, _)| guest).step("hear the guest")
                }
                Err(_) => Err(Failure::new(format!("its guest was not up within {seconds} s{}", last_words()))),
            },
            ended = self.monitor.wait() => {
                let end = end_of(self.name, ended);
                Err(Failure::new(format!("{end} before its guest was up{}", last_words())))
            }
        }
    }

    /// Kills what runs, and returns when nothing of it does.
    async fn end(&mut self) {
        for child in [&mut self.monitor].into_iter().chain(&mut self.device) {
            // It may have ended by itself.
            let _ = child.kill().await;
        }
    }
}

fn end_of(monitor: &str, ended: io::Result<std::process::ExitStatus>) -> String {
    match ended {
        Ok(status) if status.success() => "it turned itself off".to_owned(),
        Ok(status) => format!("{monitor} ended ({status})"),
        Err(error) => format!("{monitor} cannot be waited for ({error})"),
    }
}

/// What the guest said last, to be put behind a sentence.
fn last_words() -> String {
    let said = fs::read(CONSOLE).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    match said.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!("; its console said last: {}", line.trim().escape_debug()),
        None => "; its console said nothing".to_owned(),
    }
}

fn device_arguments() -> Vec<OsString> {
    // 0 to 2 have a meaning for all; a guest sees no other, so each can have the same.
    ["--guest-cid", "3", "--socket", DEVICE, "--uds-path", VSOCK].map(Into::into).to_vec()
}

/// Waits until the device listens. It says so nowhere: its socket is there.
async fn ready(device: &mut Child, until: Instant) -> Result<(), Failure> {
    while !Path::new(DEVICE).exists() {
        if let Some(status) = device.try_wait().step("see whether the vsock device runs")? {
            return Err(vmm::ended_early("the vsock device", status, device).await);
        }
        if Instant::now() > until {
            return Err(io::Error::from(io::ErrorKind::TimedOut)).step("start the vsock device in time");
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn named(child: &Child) -> Option<ProcessId> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?))?;
    ProcessId::of(pid).ok()
}

/// Keeps what a console says, as long as anybody says something.
fn keep(console: Option<tokio::process::ChildStdout>) {
    let Some(mut console) = console else { return };
    tokio::spawn(async move {
        let log = File::options().create(true).append(true).open(CONSOLE);
        if let Ok(log) = log {
            let mut log = tokio::fs::File::from_std(log);
            let _ = tokio::io::copy(&mut (&mut console).take(LOG_BYTES_MAX), &mut log).await;
        }
        let _ = tokio::io::copy(&mut console, &mut tokio::io::sink()).await;
    });
}

fn entropy() -> Secret {
    let mut bytes = [0; ENTROPY_BYTES];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .expect("the kernel has it");
    Secret::from(hex::encode(bytes))
}

/// As its task is called in short.
fn hostname(attempt: &str) -> String {
    let task = attempt.split('.').next().unwrap_or_default();
    format!("mayfly-{}", task.get(task.len().saturating_sub(8)..).unwrap_or_default())
}
