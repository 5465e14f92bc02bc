//! Tries the parts of a sandbox one by one, each as the making of a machine uses it, in a process of its own.
//!
//! What a process does to itself here (namespaces, rules, filters) ends with it; what it makes is below the
//! folder that it is given, and its cgroups are removed at once.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mayfly_provider::Limits;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::advice::{self, Cause, as_root};
use super::{confine, enter_user_namespace, init, seccomp, view, wait};
use crate::cgroup::{Cgroups, Had};
use crate::layers::{Layer, LayerState};
use crate::sys::{self, Forked};
use mayfly_holder::{Failure, Step};

/// A layer's name, how it is tried, and how a failure is put right.
type Trial<'a> =
    (&'static str, &'a dyn Fn() -> Result<String, Failure>, &'a dyn Fn(&Failure) -> Option<String>);

/// Tries all of them. `folder` is an empty one of ours, where machines are to be; `mayfly` our own binary.
pub(super) fn all(folder: &Path, mayfly: &Path) -> Vec<Layer> {
    let ordinary = !rustix::process::geteuid().is_root();
    let denied = |failure: &Failure| Cause::of(failure, ordinary)?.command(mayfly);
    let nothing = |_: &Failure| None;
    let trials: [Trial<'_>; 5] = [
        ("user namespaces", &|| user_namespaces(ordinary), &denied),
        ("other namespaces", &|| other_namespaces(ordinary), &denied),
        ("overlay", &|| overlay(ordinary, folder), &|failure| {
            denied(failure).or_else(|| overlay_fix(failure))
        }),
        ("Landlock", &|| landlock(folder), &nothing),
        ("seccomp", &seccomp_filter, &nothing),
    ];
    let tried = trials.into_iter().map(|(name, work, fix)| {
        let (state, detail, fix) = match apart(work) {
            Ok(detail) => (LayerState::Works, detail, None),
            Err(failure) => {
                let fix = fix(&failure);
                (LayerState::Missing, advice::advised(failure, ordinary).to_string(), fix)
            }
        };
        Layer { name: name.to_owned(), state, detail, fix }
    });
    tried.chain(limits(ordinary)).collect()
}

/// Does `work` in a process of its own, and gives what it answers.
fn apart(work: &dyn Fn() -> Result<String, Failure>) -> Result<String, Failure> {
    let step = "start a process to try it in";
    let (answer, write) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
    match sys::fork_into(0).step(step)? {
        Forked::Child => {
            drop(answer);
            let text = serde_json::to_vec(&work()).expect("an answer is plain data");
            let _ = File::from(write).write_all(&text);
            std::process::exit(0)
        }
        Forked::Parent(child) => {
            drop(write);
            let mut text = Vec::new();
            let read = File::from(answer).read_to_end(&mut text);
            wait(child);
            read.step("hear how it went")?;
            serde_json::from_slice(&text)
                .unwrap_or_else(|_| Err(Failure::new("the process that tried it died of it")))
        }
    }
}

/// As far as a machine's holder comes before it makes anything.
fn as_holder(ordinary: bool) -> Result<(), Failure> {
    if ordinary { enter_user_namespace() } else { Ok(()) }
}

/// The holder's, where we are not root, and the agent's below it.
fn user_namespaces(ordinary: bool) -> Result<String, Failure> {
    as_holder(ordinary)?;
    sys::unshare(libc::CLONE_NEWUSER)
        .step("make the agent's user namespace")
        .map_err(Failure::of_namespaces)?;
    let who = if ordinary { "an ordinary user" } else { "root" };
    Ok(format!("made by {who}; {}", advice::apparmor(ordinary)))
}

fn other_namespaces(ordinary: bool) -> Result<String, Failure> {
    as_holder(ordinary)?;
    let made = sys::fork_into(super::NAMESPACES).step("make namespaces").map_err(Failure::of_namespaces)?;
    match made {
        Forked::Child => std::process::exit(i32::from(init::own_names().is_err())),
        Forked::Parent(child) => match wait(child).and_then(rustix::process::WaitStatus::exit_status) {
            Some(0) => Ok("mount, pid, network, ipc and uts".to_owned()),
            _ => Err(Failure::new("there is no right to use them once they are made")),
        },
    }
}

/// A workspace: what is written shows above, and leaves what is below as it was.
fn overlay(ordinary: bool, folder: &Path) -> Result<String, Failure> {
    as_holder(ordinary)?;
    sys::unshare(libc::CLONE_NEWNS).step("make a mount namespace").map_err(Failure::of_namespaces)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .step("leave the host's mounts")?;
    let at = |name: &str| folder.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(at(name)).step(format!("make {}", at(name).display()))?;
    }
    fs::write(at("lower/file"), "below").step("write a file")?;
    view::mount_overlay(&at("lower"), &at("upper"), &at("work"), &at("merged"))?;
    fs::write(at("merged/file"), "above").step("write to an overlay")?;
    let read = |name: &str| fs::read_to_string(at(name)).step("read from an overlay");
    match (read("lower/file")?.as_str(), read("merged/file")?.as_str()) {
        ("below", "above") => Ok("what is written stays apart from what is below".to_owned()),
        _ => Err(Failure::new("an overlay does not keep what is written apart from what is below")),
    }
}

fn overlay_fix(failure: &Failure) -> Option<String> {
    let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = listed.lines().any(|line| line.trim() == "overlay" || line.ends_with("\toverlay"));
    match failure.errno {
        _ if !known => Some(as_root("modprobe overlay")),
        Some(libc::EINVAL) => {
            Some("mayfly serve --data DIR, with DIR on a local disk (ext4, xfs, btrfs)".to_owned())
        }
        _ => None,
    }
}

fn landlock(folder: &Path) -> Result<String, Failure> {
    rustix::thread::set_no_new_privs(true).step("give up new privileges")?;
    let abi = confine::landlock(&[])?;
    match File::create(folder.join("not-to-be")) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(format!("ABI {abi}")),
        _ => Err(Failure::new("Landlock's rules are taken, and do not hold")),
    }
}

fn seccomp_filter() -> Result<String, Failure> {
    rustix::thread::set_no_new_privs(true).step("give up new privileges")?;
    seccomp::apply()?;
    // Without a namespace to make, everybody may call it.
    match sys::unshare(0) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok("the filter holds".to_owned()),
        _ => Err(Failure::new("the seccomp filter is taken, and does not hold")),
    }
}

/// What can be limited: by cgroups that are made for it, with a process in them.
fn limits(ordinary: bool) -> Vec<Layer> {
    let name = format!("mayfly-trial-{}", std::process::id());
    let cgroups = Cgroups::plan(&name, &Limits::default());
    let tried = sleeper().map(|(sleeper, wake)| {
        let had = cgroups.make().enclose_each(sleeper);
        drop(wake);
        wait(sleeper);
        had
    });
    let _ = cgroups.remove();
    match tried {
        Ok(had) => had.into_iter().map(|had| limit(had, ordinary)).collect(),
        Err(failure) => vec![Layer {
            name: "limits".to_owned(),
            state: LayerState::Limited,
            detail: failure.to_string(),
            fix: None,
        }],
    }
}

/// A process that ends when the other end of its pipe does.
fn sleeper() -> Result<(Pid, OwnedFd), Failure> {
    let step = "start a process to limit";
    let (sleep, wake) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
    match sys::fork_into(0).step(step)? {
        Forked::Child => {
            drop(wake);
            let _ = File::from(sleep).read(&mut [0]);
            std::process::exit(0)
        }
        Forked::Parent(child) => Ok((child, wake)),
    }
}

fn limit(Had { limit, by, why }: Had, ordinary: bool) -> Layer {
    let name = format!("{limit} limit");
    let Some(why) = why else {
        return Layer { name, state: LayerState::Works, detail: by.unwrap_or_default(), fix: None };
    };
    let detail = format!("{why}; machines run without it");
    Layer { name, state: LayerState::Limited, detail, fix: limit_fix(ordinary) }
}

/// Version 1 gives them to whom a folder below belongs; version 2 to whoever is alone in a cgroup that was delegated.
fn limit_fix(ordinary: bool) -> Option<String> {
    let systemd = Path::new("/run/systemd/system").exists();
    match (Cgroups::has_limits_of_v2() && systemd, ordinary) {
        (true, true) => Some("systemd-run --user --scope -p Delegate=yes mayfly serve".to_owned()),
        (true, false) => Some("systemd-run --scope -p Delegate=yes mayfly serve".to_owned()),
        (false, true) => Some(delegation(&Cgroups::folders_of_v1())),
        (false, false) => None,
    }
}

/// Gives the user a folder of its own below each of these, and puts the user's shell there. Where there is none, the
/// limits are root's, and so is all else: its home, and a data folder of its own.
fn delegation(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "sudo -EH mayfly run --data /var/lib/mayfly PROMPT".to_owned();
    }
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let in_each = "mkdir -p $d && chown -R $(id -u) $d && echo $$ > $d/cgroup.procs";
    format!(
        "for at in {}; do d=$at/mayfly-$(id -u); sudo sh -c \"{in_each}\"; done; mayfly serve",
        folders.join(" ")
    )
}
