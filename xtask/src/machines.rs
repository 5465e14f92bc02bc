//! The machines and processes of an orchestrator, seen from outside: what runs, and what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use mayfly_core::AttemptId;
use mayfly_provider::Provider as _;
use mayfly_provider_sandbox::{Sandbox, SandboxConfig};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use tokio::time::sleep;

use crate::orchestrator::Place;

/// How often the machines are counted.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// The flag of `claude` that names its session.
const SESSION: &str = "--session-id";

/// A process, by its number and its start: a number alone is somebody else's before long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    fn of(pid: i32) -> Option<(Self, i32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        Some((Self { pid, started: fields.nth(17)?.parse().ok()? }, parent))
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid).is_some_and(|(process, _)| process == self)
    }

    /// Signals this one and no other: opened first and compared second. Whether it was there.
    pub(crate) fn signal(self, signal: Signal) -> anyhow::Result<bool> {
        let pid = Pid::from_raw(self.pid).context("a process has a number")?;
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
        Ok(self.is_alive() && pidfd_send_signal(&fd, signal).is_ok())
    }
}

/// What the provider notes about a machine.
#[derive(Debug, Deserialize)]
struct State {
    init: Option<Process>,
}

/// A machine with a worker in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) attempt: AttemptId,
    pub(crate) worker: Process,
}

impl Machine {
    /// Its `claude`: the worker's child that was given a session.
    pub(crate) fn claude(self) -> Option<Process> {
        claudes().find(|claude| claude.parent == self.worker.pid).map(|claude| claude.process)
    }
}

/// The provider of the orchestrator's machines, asked by us.
pub(crate) fn sandbox(place: &Place) -> Sandbox {
    Sandbox::new(SandboxConfig {
        machines: place.data().join("machines"),
        bases: place.data().join("bases"),
        claude: place.claude.clone(),
        mayfly: place.mayfly.clone(),
    })
}

/// The machines that have a worker now, by the provider's own notes, in the order of their attempts.
pub(crate) fn machines(place: &Place) -> Vec<Machine> {
    let folders = fs::read_dir(place.data().join("machines")).into_iter().flatten().flatten();
    let machine = |folder: fs::DirEntry| {
        let attempt = folder.file_name().to_str()?.parse().ok()?;
        let state: State = serde_json::from_slice(&fs::read(folder.path().join("state.json")).ok()?).ok()?;
        Some(Machine { attempt, worker: state.init.filter(|init| init.is_alive())? })
    };
    let mut machines: Vec<Machine> = folders.filter_map(machine).collect();
    machines.sort_by_key(|machine| machine.attempt.to_string());
    machines
}

/// A `claude` that runs.
struct Claude {
    process: Process,
    parent: i32,
    session: String,
}

/// Every `claude` with a session, of whoever. What it starts may look like it for a moment, and is left out.
fn claudes() -> impl Iterator<Item = Claude> {
    let sessions: BTreeMap<i32, String> =
        pids().into_iter().filter_map(|pid| Some((pid, session(pid)?))).collect();
    let parents: BTreeSet<i32> = sessions.keys().copied().collect();
    let claude = move |(pid, session)| {
        let (process, parent) = Process::of(pid)?;
        (!parents.contains(&parent)).then_some(Claude { process, parent, session })
    };
    sessions.into_iter().filter_map(claude)
}

fn session(pid: i32) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = arguments.split(|&byte| byte == 0).skip_while(|word| *word != SESSION.as_bytes());
    String::from_utf8(arguments.nth(1)?.to_vec()).ok()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What was seen of machines and processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The most machines that were alive at once.
    pub(crate) most: usize,
    /// Each process of `claude`, by its session.
    pub(crate) claudes: BTreeMap<String, BTreeSet<Process>>,
}

/// Looks again and again, every [`SAMPLE_EVERY`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Sampler(Arc<Mutex<Seen>>);

impl Sampler {
    pub(crate) async fn run(self, sandbox: Sandbox) {
        loop {
            if let Ok(machines) = sandbox.list().await {
                let alive = machines.iter().filter(|machine| machine.alive && machine.attempt.attempt.0 > 0);
                let alive = alive.count();
                self.change(|seen| seen.most = seen.most.max(alive));
            }
            let claudes: Vec<Claude> = claudes().collect();
            self.change(|seen| {
                for Claude { process, session, .. } in claudes {
                    seen.claudes.entry(session).or_default().insert(process);
                }
            });
            sleep(SAMPLE_EVERY).await;
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What is left of machines once nobody serves any more.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// As the provider lists them.
    pub(crate) machines: usize,
    pub(crate) cgroups: usize,
    pub(crate) mounts: usize,
    pub(crate) processes: usize,
}

impl Left {
    /// Looks for what is left of these tasks, and of these processes.
    pub(crate) async fn of(
        place: &Place,
        tasks: &[&str],
        claudes: &BTreeSet<Process>,
    ) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let home = place.home.to_str().context("its name is a text")?;
        let ours = |pid: &i32| is_of(*pid, &place.mayfly);
        Ok(Self {
            machines: sandbox(place).list().await?.len(),
            cgroups: cgroups(tasks)?,
            mounts: mounts.lines().filter(|mount| mount.contains(home)).count(),
            processes: pids().iter().filter(|pid| ours(pid)).count()
                + claudes.iter().filter(|claude| claude.is_alive()).count(),
        })
    }
}

/// Whether a process is of this program.
pub(crate) fn is_of(pid: i32, program: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
}

fn cgroups(tasks: &[&str]) -> anyhow::Result<usize> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", "mayfly-*"]).output();
    let found = String::from_utf8(found.context("cannot run `find`")?.stdout)?;
    Ok(found.lines().filter(|path| tasks.iter().any(|task| path.contains(task))).count())
}
