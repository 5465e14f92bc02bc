//! The first process of a machine, from its birth in new namespaces to the worker that it becomes.
//!
//! It starts with every right over the namespaces and nothing else, spends them on the view, and is left with
//! none. Whatever fails is told to the holder, and nothing is run.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use mayfly_wire::boot;

use super::spec::{Channel, HolderSpec, Word};
use super::{HOLDER_VERB, PROBE_WORD, confine, seccomp, view};
use crate::cgroup::Events;
use crate::sys;
use mayfly_holder::{Failure, Step};

/// What the machine calls itself.
const HOSTNAME: &[u8] = b"mayfly";
/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Becomes the worker, or tells why not and ends.
pub(super) fn run(spec: &HolderSpec, holder: &Channel, boot: &OwnedFd, log: &OwnedFd) -> ! {
    let Err(failure) = become_worker(spec, holder, boot, log);
    let _ = holder.send(&Word::Failed(failure));
    std::process::exit(1)
}

fn become_worker(
    spec: &HolderSpec,
    holder: &Channel,
    boot: &OwnedFd,
    log: &OwnedFd,
) -> Result<Infallible, Failure> {
    let events = may_build(holder)?;
    own_names()?;
    view::build(spec, &events)?;
    lose_rights(spec, holder)?;
    give_streams(boot, log)?;
    holder.send(&Word::Ready)?;
    seccomp::apply()?;
    Err(execute(spec))
}

/// Gives the new namespaces a name and a loopback, which takes every right over them.
pub(super) fn own_names() -> Result<(), Failure> {
    rustix::system::sethostname(HOSTNAME).step("name the machine")?;
    sys::bring_loopback_up().step("bring the machine's loopback up")
}

fn may_build(holder: &Channel) -> Result<Events, Failure> {
    match holder.receive()? {
        Some(Word::Build { events }) => Ok(events),
        _ => Err(Failure::new("the holder went away")),
    }
}

/// From the second user namespace on, nothing that we made can be changed any more.
fn lose_rights(spec: &HolderSpec, holder: &Channel) -> Result<(), Failure> {
    let namespace = |made: io::Result<()>, step| made.step(step).map_err(Failure::of_namespaces);
    namespace(sys::unshare(libc::CLONE_NEWUSER), "make the agent's user namespace")?;
    holder.send(&Word::Map)?;
    let Some(Word::Mapped) = holder.receive()? else {
        return Err(Failure::new("the holder went away"));
    };
    // Its root is the machine's own cgroup: not before now are we sure to be in it.
    namespace(sys::unshare(libc::CLONE_NEWCGROUP), "make a cgroup namespace")?;
    confine::become_agent()?;
    confine::end_with(&holder.0)?;
    confine::limit(spec.pids_max)?;
    confine::landlock(&confine::WRITABLE).map(drop)
}

/// Leaves the worker its standard streams, the first of which holds its boot, and nothing else.
fn give_streams(boot: &OwnedFd, log: &OwnedFd) -> Result<(), Failure> {
    let step = "hand over the worker's streams";
    rustix::stdio::dup2_stdin(boot).step(step)?;
    rustix::stdio::dup2_stdout(log).step(step)?;
    rustix::stdio::dup2_stderr(log).step(step)?;
    sys::close_on_exec_from(3).step(step)
}

fn execute(spec: &HolderSpec) -> Failure {
    let mut command = Command::new(boot::MAYFLY);
    match spec.probe {
        true => command.args([HOLDER_VERB, PROBE_WORD]),
        false => command.arg("worker"),
    };
    command.env_clear().env("PATH", PATH).env("HOME", boot::HOME).current_dir("/");
    let shown = spec.mayfly.display();
    let reason =
        format!("cannot execute {shown} in a machine, where only /usr and /lib of this host are seen");
    Failure::of(reason, &command.exec())
}
