//! The holder: makes one machine, tells its maker, and waits for the machine's end.
//!
//! It runs in a process of its own with one thread, because it forks and enters namespaces; in a session of its
//! own, so that no terminal and no orchestrator takes it along. A machine never outlives its holder (the kernel
//! kills the init then), and the holder never its machine.
//!
//! ```text
//! holder                                   init
//!   ├ own user namespace, if no root
//!   ├─clone: mount, pid, net, ipc, uts──────► waits
//!   ├ makes cgroups  ────────Build──────────► builds the view
//!   ├ puts it in them, writes state.json
//!   │                     ◄───────────Map──── entered a second user namespace
//!   ├ writes its id maps ────Mapped─────────► drops everything, Landlock, seccomp
//!   │                     ◄─────────Ready──── exec: the socket closes, and the worker runs
//!   └ answers the maker; copies the worker's stderr; waits; removes the cgroups
//! ```
//!
//! Bound: `LOG_BYTES_MAX` of the worker's stderr are kept, the rest is read and dropped.

mod advice;
mod confine;
mod init;
mod seccomp;
mod spec;
mod trial;
mod view;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use mayfly_holder::{Answer, Failure, Lock, ProcessId, Step, Streams};
use mayfly_provider::Limits;
use mayfly_wire::boot::{DiskLimit, ProcessLimit};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

pub(crate) use spec::{HolderSpec, WorkspaceView};

use crate::AGENT_HOST_ID;
use crate::cgroup::{Cgroups, Events};
use crate::machine::{LOG, State};
use crate::shelf;
use crate::sys::{self, Forked};
use advice::advised;
use spec::{Channel, Word};

/// The hidden verb of our binary that becomes a holder.
pub const HOLDER_VERB: &str = "sandbox-holder";

/// What follows the verb where only our binary itself is tried, inside a machine.
const PROBE_WORD: &str = "probe";
/// The exit of that trial: one that no other program would have.
const PROBE_EXIT: u8 = 86;

/// What follows the verb where the parts of a sandbox are tried, before the folder to do it in.
pub(crate) const TRIAL_WORD: &str = "trial";

/// What a machine's first process is born into.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// How much of a worker's stderr is kept.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Runs the holder; `args` are those after [`HOLDER_VERB`].
///
/// To be called by `main` before there is any other thread: it forks and enters namespaces.
pub fn holder_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let done = match args.next() {
        Some(word) if word == PROBE_WORD => return ExitCode::from(PROBE_EXIT),
        Some(word) if word == TRIAL_WORD => try_layers(args.next().unwrap_or_default().as_ref()),
        _ => hold(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Tells whoever started us how the layers are, as JSON.
fn try_layers(folder: &Path) -> io::Result<()> {
    let layers = trial::all(folder, &std::env::current_exe()?);
    io::stdout().write_all(&serde_json::to_vec(&layers)?)
}

/// An error here is one of the pipes to the maker, so there is nobody to tell.
fn hold() -> io::Result<()> {
    let Streams { spec, answer, making } = Streams::<HolderSpec>::take()?;
    let made = Held::take(&spec).and_then(|held| Ok((make(&spec)?, held)));
    match made {
        Ok((machine, held)) => {
            Answer::Up { notes: machine.notes.clone() }.send(answer);
            drop(making);
            machine.attend(&spec);
            drop(held);
        }
        Err(failure) => Answer::Failed(failure).send(answer),
    }
    Ok(())
}

/// What the holder holds as long as anything of the machine may run.
struct Held {
    _life: Lock,
    /// Keeps what the workspace is laid over from being removed.
    _base: Option<Lock>,
}

impl Held {
    fn take(spec: &HolderSpec) -> Result<Self, Failure> {
        let life = Lock::acquire(&spec.folder.life()).step("lock the machine's folder")?;
        let base = spec.workspace.as_ref().map(|view| shelf::hold_again(&view.base)).transpose()?;
        Ok(Self { _life: life, _base: base })
    }
}

/// A machine whose worker runs.
struct Running {
    init: Pid,
    log: File,
    cgroups: Cgroups,
    notes: Vec<String>,
}

fn make(spec: &HolderSpec) -> Result<Running, Failure> {
    let ordinary = !rustix::process::geteuid().is_root();
    let limits = Limits {
        memory_bytes_max: spec.memory_bytes_max,
        pids_max: spec.pids_max,
        cpus_max: spec.cpus_max,
        disk_bytes_max: spec.disk_bytes_max,
    };
    let cgroups = Cgroups::plan(&spec.name, &limits);
    let holder = Some(ProcessId::of(rustix::process::getpid()).step("name the holder's process")?);
    let mut state = State { holder, init: None, cgroups, notes: Vec::new() };
    spec.folder.write_state(&state).step("write the machine's state")?;
    // From here on we have the same rights as root over what we make, and only over that.
    let agent = if ordinary { enter_user_namespace().map(|()| 0)? } else { AGENT_HOST_ID };
    view::make_folders(spec, (!ordinary).then_some(agent))?;

    let (channel, theirs) = channel()?;
    let (boot, boot_write) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let (log, log_write) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let forked = sys::fork_into(NAMESPACES)
        .step("make namespaces")
        .map_err(|failure| advised(failure.of_namespaces(), ordinary))?;
    let init = match forked {
        Forked::Child => {
            drop((channel, boot_write, log));
            init::run(spec, &theirs, &boot, &log_write)
        }
        Forked::Parent(init) => init,
    };
    drop((theirs, boot, log_write));
    let made = (|| {
        state.init = Some(ProcessId::of(init).step("name the machine's first process")?);
        let cgroups = state.cgroups.make();
        let events = cgroups.events();
        state.notes = cgroups.enclose(init, ordinary);
        channel.send(&Word::Build { events: events.clone() })?;
        spec.folder.write_state(&state).step("write the machine's state")?;
        write_boot(spec, boot_write, &events)?;
        hear(&channel, init, agent)
    })();
    // Without us the init sees the socket's end, and ends.
    drop(channel);
    if made.is_err() {
        let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
    }
    let probed = made.map_err(|failure| advised(failure, ordinary)).and_then(|()| probe(spec, init));
    if let Err(failure) = probed {
        bury(init, &state.cgroups);
        return Err(failure);
    }
    Ok(Running { init, log: log.into(), cgroups: state.cgroups, notes: state.notes })
}

fn channel() -> Result<(Channel, Channel), Failure> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make a pair of sockets")?;
    Ok((Channel(ours), Channel(theirs)))
}

/// Hands over what the worker boots from: it fits into the pipe.
fn write_boot(spec: &HolderSpec, pipe: OwnedFd, events: &Events) -> Result<(), Failure> {
    let mut boot = spec.boot.clone();
    boot.memory_events = events.memory.as_ref().map(|_| view::MEMORY_EVENTS.into());
    let limit = || ProcessLimit { max: spec.pids_max, events: view::PROCESS_EVENTS.into() };
    boot.processes = events.processes.as_ref().map(|_| limit());
    boot.disk = Some(DiskLimit { max: spec.disk_bytes_max, folders: view::on_the_disk(spec) });
    let text = serde_json::to_vec(&boot).step("write what the worker boots from")?;
    File::from(pipe).write_all(&text).step("hand over what the worker boots from")
}

/// Follows the init until it has become the worker.
fn hear(channel: &Channel, init: Pid, agent: u32) -> Result<(), Failure> {
    let mut ready = false;
    loop {
        match channel.receive()? {
            Some(Word::Map) => {
                map_agent(init, agent)?;
                channel.send(&Word::Mapped)?;
            }
            Some(Word::Ready) => ready = true,
            Some(Word::Failed(failure)) => return Err(failure),
            Some(Word::Build { .. } | Word::Mapped) => {
                return Err(Failure::new("the machine spoke out of turn"));
            }
            None if ready => return Ok(()),
            None => return Err(Failure::new("the machine's first process died before its worker ran")),
        }
    }
}

/// Maps the agent of the init's user namespace to `agent` of ours, and nobody else.
fn map_agent(init: Pid, agent: u32) -> Result<(), Failure> {
    let map = format!("{} {agent} 1\n", mayfly_wire::boot::AGENT_ID);
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{file}", init.as_raw_nonzero());
        std::fs::write(&path, &map).step(format!("map the agent's id to {agent} on this host"))?;
    }
    Ok(())
}

/// Makes us root of a user namespace in which there is nobody else.
fn enter_user_namespace() -> Result<(), Failure> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let step = "make a user namespace";
    sys::unshare(libc::CLONE_NEWUSER).step(step).map_err(|failure| advised(failure.of_namespaces(), true))?;
    let write = |file: &str, text: String| std::fs::write(format!("/proc/self/{file}"), text).step(step);
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1\n"))?;
    write("gid_map", format!("0 {gid} 1\n"))
}

/// In a trial: whether our binary runs in the machine.
fn probe(spec: &HolderSpec, init: Pid) -> Result<(), Failure> {
    if !spec.probe {
        return Ok(());
    }
    match wait(init).and_then(WaitStatus::exit_status) {
        Some(code) if code == i32::from(PROBE_EXIT) => Ok(()),
        _ => Err(Failure::new(format!(
            "our binary {} does not run in a machine, where only /usr and /lib of this host are seen: \
             are its libraries elsewhere?",
            spec.mayfly.display()
        ))),
    }
}

impl Running {
    /// Returns at the machine's end, with everything in it gone.
    fn attend(mut self, spec: &HolderSpec) {
        let log = File::options().create(true).append(true).open(spec.folder.path().join(LOG));
        if let Ok(mut log) = log {
            let _ = io::copy(&mut (&self.log).take(LOG_BYTES_MAX), &mut log);
        }
        let _ = io::copy(&mut self.log, &mut io::sink());
        bury(self.init, &self.cgroups);
    }
}

/// Waits for a machine's end and removes its cgroups, so that none is left on a host whose orchestrator is gone.
/// We hold the lock of its life until then. Who clears the machine waits for our end, and removes what we could
/// not.
fn bury(init: Pid, cgroups: &Cgroups) {
    wait(init);
    let _ = cgroups.remove();
}

/// The kernel reports the end of a pid namespace's first process after that of all the others. `None`: it was
/// waited for already.
fn wait(init: Pid) -> Option<WaitStatus> {
    rustix::io::retry_on_intr(|| waitpid(Some(init), WaitOptions::empty()))
        .ok()
        .flatten()
        .map(|(_, status)| status)
}
