//! What the kernel has counted against the machine's limits: kills for lack of memory, and processes refused.
//!
//! Both only tell that it happened to something of the machine, which need not be `claude`. So they are compared
//! over a run, and explain an end that has no better reason.

use std::path::{Path, PathBuf};

use mayfly_wire::boot::{Boot, ProcessLimit};

/// Where to look, as far as this machine has it.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    memory_events: Option<PathBuf>,
    processes: Option<ProcessLimit>,
}

/// How often so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    memory_kills: u64,
    refused: u64,
}

/// The limits that were met in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Met {
    /// That of memory, by something that was killed for it.
    pub(crate) memory: bool,
    /// That of processes, and how many it is.
    pub(crate) processes: Option<u32>,
}

impl Limits {
    pub(crate) fn of(boot: &Boot) -> Self {
        Self { memory_events: boot.memory_events.clone(), processes: boot.processes.clone() }
    }

    pub(crate) fn counts(&self) -> Counts {
        let processes = self.processes.as_ref().map(|limit| limit.events.as_path());
        Counts {
            memory_kills: count(self.memory_events.as_deref(), "oom_kill "),
            refused: count(processes, "max "),
        }
    }

    pub(crate) fn met_since(&self, before: Counts) -> Met {
        let now = self.counts();
        let refused = self.processes.as_ref().filter(|_| now.refused > before.refused);
        Met { memory: now.memory_kills > before.memory_kills, processes: refused.map(|limit| limit.max) }
    }
}

impl Met {
    /// A sentence for each limit that was met, whatever the outcome is.
    pub(crate) fn warnings(self) -> impl Iterator<Item = String> {
        let memory = "the machine ran out of memory, and programs in it were killed";
        self.memory.then(|| memory.to_owned()).into_iter().chain(self.too_many())
    }

    /// A sentence for the limit of processes, if it was met.
    pub(crate) fn too_many(self) -> Option<String> {
        self.processes.map(|max| format!("the machine reached its limit of {max} processes and threads"))
    }
}

/// The number after `name` at the start of a line.
fn count(file: Option<&Path>, name: &str) -> u64 {
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}
