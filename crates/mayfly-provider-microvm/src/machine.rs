//! What a machine's folder tells of it: how it ended, and how all of it is removed.
//!
//! Bound: `END_MAX` for a process to end.

use std::fs;
use std::io;
use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_holder::{Failure, Folder, Kind as _, ProcessId, Step, machine};
use mayfly_provider::{ProviderError, Sight};
use serde::{Deserialize, Serialize};

use crate::Host;

/// How long a killed process may take to end.
const END_MAX: Duration = Duration::from_secs(20);

/// What whoever unmakes or looks at a machine must know. The holder writes it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) holder: Option<ProcessId>,
    /// What it has started, which the kernel kills with it.
    pub(crate) processes: Vec<ProcessId>,
    /// What its guest may come to use.
    #[serde(default)]
    pub(crate) memory_bytes: u64,
    pub(crate) notes: Vec<String>,
    /// How it ended, in words.
    pub(crate) end: Option<String>,
}

/// Nothing in it if there is none.
pub(crate) fn state(folder: &Folder) -> State {
    folder.state().unwrap_or_default()
}

/// Ends its processes and removes everything. The caller holds the lock of the making.
pub(crate) fn clear(folder: &Folder) -> Result<(), Failure> {
    let (shown, state) = (folder.path().display(), state(folder));
    // The holder first: it would start again what ends too early.
    for process in state.holder.iter().chain(&state.processes) {
        process.kill(END_MAX).step(format!("end the processes of {shown}"))?;
    }
    match fs::remove_dir_all(folder.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.step(format!("remove {shown}")),
    }
}

/// [`Provider::look`](mayfly_provider::Provider::look).
pub(crate) fn look(host: &Host, attempt: AttemptId) -> Result<Sight, ProviderError> {
    let places = host.places();
    let machine = machine::<Host>(&places, attempt).step(format!("look at the machine of {attempt}"));
    let machine = machine.map_err(|failure| failure.unclear("look"))?;
    Ok(match machine.alive {
        true => Sight::Alive,
        false => Sight::Ended(state(&places.of(attempt)).end),
    })
}
