//! Takes everything from the init that the worker must not have.
//!
//! The order matters: capabilities are needed to change the ids, the ids must be final before the kernel will
//! remember to kill us with the holder, and Landlock comes after the last file was opened outside its rules.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use mayfly_holder::{Failure, Step};
use mayfly_wire::boot;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What the worker and the agent may write to, as far as the file system lets them.
pub(super) const WRITABLE: [&str; 5] = [boot::WORKSPACE, boot::HOME, "/tmp", "/dev", "/proc"];
/// The newest Landlock that this was tried with; older kernels enforce what they know of it.
const LANDLOCK: ABI = ABI::V7;
/// Files that one process may have open.
const FILES_MAX: u64 = 65_536;

/// Takes on the agent's ids and gives up every capability, for good.
pub(super) fn become_agent() -> Result<(), Failure> {
    let step = "become the agent";
    let (uid, gid) = (Uid::from_raw(boot::AGENT_ID), Gid::from_raw(boot::AGENT_ID));
    match rustix::thread::set_thread_groups(&[]) {
        // Below an ordinary user's namespace nobody may change groups: those of that user stay.
        Err(rustix::io::Errno::PERM) => {}
        done => done.step(step)?,
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(step)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(step)?;
    drop_capabilities().step("give up all capabilities")?;
    rustix::thread::set_no_new_privs(true).step("give up new privileges")
}

fn drop_capabilities() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << number,
        )) {
            // The kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            done => done?,
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
}

/// Has the kernel kill us, and with us the machine, when the holder dies.
pub(super) fn end_with(holder: &OwnedFd) -> Result<(), Failure> {
    let step = "bind the machine's life to its holder's";
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step(step)?;
    // It may have died just before.
    let mut holder = [PollFd::new(holder, PollFlags::empty())];
    match poll(&mut holder, Some(&Timespec::default())).step(step)? {
        0 => Ok(()),
        _ => Err(Failure::new("the holder went away")),
    }
}

/// The limits of every process. That of processes counts the machine's own, since its user namespace does; it is
/// one above the cgroup's, which tells that it was met and is so met first, where there is one.
pub(super) fn limit(pids_max: u32) -> Result<(), Failure> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES_MAX);
    let limits = [
        (Resource::Core, 0),
        (Resource::Nofile, hard.min(FILES_MAX)),
        (Resource::Nproc, u64::from(pids_max) + 1),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).step("limit the worker")?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Reading and executing everywhere, writing in a few places, and no signal or abstract socket across the border.
/// Gives the version of Landlock that holds.
pub(super) fn landlock(writable: &[&str]) -> Result<i32, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(format!("cannot apply Landlock ({error})"));
    let all = AccessFs::from_all(LANDLOCK);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create)
        .map_err(|error| failed(&error))?;
    let writable = writable.iter().map(|place| (*place, all));
    for (place, access) in std::iter::once(("/", AccessFs::from_read(LANDLOCK))).chain(writable) {
        let place = PathFd::new(place).map_err(|error| failed(&error))?;
        rules = rules.add_rule(PathBeneath::new(place, access)).map_err(|error| failed(&error))?;
    }
    let status = rules.restrict_self().map_err(|error| failed(&error))?;
    match (status.ruleset, status.landlock) {
        (
            RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced,
            LandlockStatus::Available { effective_abi, kernel_abi },
        ) => Ok(kernel_abi.unwrap_or(effective_abi as i32)),
        _ => Err(Failure::new(
            "this kernel does not enforce Landlock: boot one of 5.13 or newer with `landlock` in its `lsm=` list",
        )),
    }
}
