//! A machine as its folder tells: whose it is, whether it lives, and how all of it is removed.
//!
//! Bound: `END_MAX` for processes to end, and the waits of [`cgroup`](crate::cgroup).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_failpoint::failpoint;
use mayfly_holder::{Failure, Lock, Places, ProcessId, Step, is_held};
use mayfly_provider::{Machine, ProviderError};
use serde::{Deserialize, Serialize};

use crate::SandboxConfig;
use crate::cgroup::Cgroups;
use crate::remove::remove_tree;

/// How long a killed process may take to end.
const END_MAX: Duration = Duration::from_secs(20);
/// How much of a worker's last words goes to our own log.
const LAST_WORDS_BYTES_MAX: usize = 4096;

/// What whoever unmakes a machine must know. The holder writes it, the intent before the deed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) holder: Option<ProcessId>,
    pub(crate) init: Option<ProcessId>,
    pub(crate) cgroups: Cgroups,
    pub(crate) notes: Vec<String>,
}

impl State {
    fn end(&self) -> io::Result<()> {
        self.cgroups.kill();
        // The init takes everything in the machine with it, and the holder ends when it has seen that.
        self.init.as_ref().map_or(Ok(()), |init| init.kill(END_MAX))?;
        let ended = |holder: &ProcessId| holder.wait(END_MAX).or_else(|_| holder.kill(END_MAX));
        self.holder.as_ref().map_or(Ok(()), ended)
    }
}

/// The folder of one machine. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Held by the holder for its life.
    pub(crate) fn life(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("worker.log")
    }

    /// Where the new root is put together; empty for everybody else.
    pub(crate) fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// What the agent writes to, by name: `home`, `upper`, `work`, `workspace`.
    pub(crate) fn of_agent(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// `None` if there is none, or only a half: then nothing that it would name was made.
    pub(crate) fn state(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.path.join("state.json")).ok()?).ok()
    }

    /// Replaces the whole.
    pub(crate) fn write_state(&self, state: &State) -> io::Result<()> {
        let next = self.path.join("state.next");
        fs::write(&next, serde_json::to_vec(state)?)?;
        fs::rename(next, self.path.join("state.json"))
    }

    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        is_held(&self.life())
    }

    /// Ends its processes and removes everything. The caller holds the lock in `.making`.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        let shown = self.path.display();
        if let Some(state) = self.state() {
            state.end().step(format!("end the processes of {shown}"))?;
            failpoint("machine-processes-ended");
            state.cgroups.remove().step(format!("remove the cgroups of {shown}"))?;
        }
        self.log_last_words();
        remove_tree(&self.path).step(format!("remove {shown}"))
    }

    fn log_last_words(&self) {
        let said = fs::read(self.log()).unwrap_or_default();
        if !said.is_empty() {
            let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS_BYTES_MAX)..]);
            tracing::debug!(machine = %self.path.display(), worker = %said.escape_debug(), "worker's last words");
        }
    }
}

/// The folder of `attempt`'s machine.
pub(crate) fn folder(config: &SandboxConfig, attempt: AttemptId) -> Folder {
    Folder { path: places(config).of(attempt) }
}

/// Waits until nobody else makes or unmakes the machine.
pub(crate) fn lock(config: &SandboxConfig, attempt: AttemptId) -> Result<Lock, Failure> {
    places(config).lock(attempt)
}

fn places(config: &SandboxConfig) -> Places {
    Places::new(config.machines.clone())
}

/// [`Provider::destroy`](mayfly_provider::Provider::destroy).
pub(crate) fn destroy(config: &SandboxConfig, attempt: AttemptId) -> Result<(), ProviderError> {
    let destroy = || {
        let lock = lock(config, attempt)?;
        folder(config, attempt).clear()?;
        lock.remove().step("let go of the machine's lock")
    };
    destroy().map_err(|failure: Failure| failure.unclear("destroy"))
}

/// [`Provider::list`](mayfly_provider::Provider::list).
pub(crate) fn list(config: &SandboxConfig) -> Result<Vec<Machine>, ProviderError> {
    let attempts = places(config).attempts();
    attempts
        .and_then(|attempts| attempts.into_iter().map(|attempt| machine(config, attempt)).collect())
        .step(format!("list the machines in {}", config.machines.display()))
        .map_err(|failure| failure.unclear("list"))
}

/// One that is being made is alive: whoever makes it will say if it was not.
fn machine(config: &SandboxConfig, attempt: AttemptId) -> io::Result<Machine> {
    let folder = folder(config, attempt);
    let alive = places(config).is_being_made(attempt)? || folder.is_alive()?;
    let notes = folder.state().map(|state| state.notes).unwrap_or_default();
    Ok(Machine { attempt, alive, notes })
}
