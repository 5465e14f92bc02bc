//! A machine as its folder tells: whose it is, whether it lives, how it ended, and how all of it is removed.
//!
//! Bound: `END_MAX` for a process to end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_holder::{Failure, Places, ProcessId, Step, is_held};
use mayfly_provider::{Machine, ProviderError, Sight};
use serde::{Deserialize, Serialize};

use crate::MicrovmConfig;

/// How long a killed process may take to end.
const END_MAX: Duration = Duration::from_secs(20);

/// What whoever unmakes or looks at a machine must know. The holder writes it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) holder: Option<ProcessId>,
    /// What it has started, which the kernel kills with it.
    pub(crate) processes: Vec<ProcessId>,
    pub(crate) notes: Vec<String>,
    /// How it ended, in words.
    pub(crate) end: Option<String>,
}

/// The folder of one machine. It need not exist.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn of(config: &MicrovmConfig, attempt: AttemptId) -> Self {
        Self(places(config).of(attempt))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Held by the holder for its life.
    pub(crate) fn life(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        is_held(&self.life())
    }

    /// Nothing in it if there is none, or only a half: then nothing that it would name was made.
    pub(crate) fn state(&self) -> State {
        let read = fs::read(self.0.join("state.json")).ok();
        read.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    /// Replaces the whole.
    pub(crate) fn write_state(&self, state: &State) -> io::Result<()> {
        let next = self.0.join("state.next");
        fs::write(&next, serde_json::to_vec(state)?)?;
        fs::rename(next, self.0.join("state.json"))
    }

    /// Ends its processes and removes everything. The caller holds the lock of the making.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        let (shown, state) = (self.0.display(), self.state());
        // The holder first: it would start again what ends too early.
        for process in state.holder.iter().chain(&state.processes) {
            process.kill(END_MAX).step(format!("end the processes of {shown}"))?;
        }
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.step(format!("remove {shown}")),
        }
    }
}

pub(crate) fn places(config: &MicrovmConfig) -> Places {
    Places::new(config.machines.clone())
}

/// [`Provider::destroy`](mayfly_provider::Provider::destroy).
pub(crate) fn destroy(config: &MicrovmConfig, attempt: AttemptId) -> Result<(), ProviderError> {
    let destroy = || {
        let lock = places(config).lock(attempt)?;
        Folder::of(config, attempt).clear()?;
        lock.remove().step("let go of the machine's lock")
    };
    destroy().map_err(|failure: Failure| failure.unclear("destroy"))
}

/// [`Provider::list`](mayfly_provider::Provider::list).
pub(crate) fn list(config: &MicrovmConfig) -> Result<Vec<Machine>, ProviderError> {
    let attempts = places(config).attempts();
    attempts
        .and_then(|attempts| attempts.into_iter().map(|attempt| machine(config, attempt)).collect())
        .step(format!("list the machines in {}", config.machines.display()))
        .map_err(|failure| failure.unclear("list"))
}

/// [`Provider::look`](mayfly_provider::Provider::look).
pub(crate) fn look(config: &MicrovmConfig, attempt: AttemptId) -> Result<Sight, ProviderError> {
    let machine = machine(config, attempt).step(format!("look at the machine of {attempt}"));
    let machine = machine.map_err(|failure| failure.unclear("look"))?;
    Ok(match machine.alive {
        true => Sight::Alive,
        false => Sight::Ended(Folder::of(config, attempt).state().end),
    })
}

/// One that is being made is alive: whoever makes it will say if it was not.
fn machine(config: &MicrovmConfig, attempt: AttemptId) -> io::Result<Machine> {
    let folder = Folder::of(config, attempt);
    let alive = places(config).is_being_made(attempt)? || folder.is_alive()?;
    Ok(Machine { attempt, alive, notes: folder.state().notes })
}
