//! What a machine's folder tells of it, and how all of it is removed.
//!
//! Bound: `END_MAX` for processes to end, and the waits of [`cgroup`](crate::cgroup).

use std::fs;
use std::io;
use std::time::Duration;

use mayfly_failpoint::failpoint;
use mayfly_holder::{Failure, Folder, ProcessId, Step};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::remove::remove_tree;

/// How long a killed process may take to end.
const END_MAX: Duration = Duration::from_secs(20);
/// What the worker says on its standard error, in the machine's folder.
pub(crate) const LOG: &str = "worker.log";
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

/// Ends its processes and removes everything. The caller holds the lock in `.making`.
pub(crate) fn clear(folder: &Folder) -> Result<(), Failure> {
    let shown = folder.path().display();
    if let Some(state) = folder.state::<State>() {
        state.end().step(format!("end the processes of {shown}"))?;
        failpoint("machine-processes-ended");
        state.cgroups.remove().step(format!("remove the cgroups of {shown}"))?;
    }
    log_last_words(folder);
    remove_tree(folder.path()).step(format!("remove {shown}"))
}

fn log_last_words(folder: &Folder) {
    let said = fs::read(folder.path().join(LOG)).unwrap_or_default();
    if !said.is_empty() {
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS_BYTES_MAX)..]);
        tracing::debug!(machine = %folder.path().display(), worker = %said.escape_debug(), "worker's last words");
    }
}
