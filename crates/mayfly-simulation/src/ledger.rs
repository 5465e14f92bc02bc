//! What really happened, as nobody in the simulation can know it: the machines, what was played in them, and what
//! the owner was told. The checker compares it with what the logs say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mayfly_core::{AttemptId, TaskId};
use mayfly_wire::worker::End;

use crate::stand_in;

/// Of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// How often `claude` was started in it.
    pub(crate) starts: u32,
    /// What it wrote, as records.
    pub(crate) records: Vec<(Bytes, End)>,
    /// How many of them the worker was told to be safe.
    pub(crate) durable: usize,
    /// Its worker was told that all was safe.
    pub(crate) collected: bool,
    /// What its worker said of its end.
    pub(crate) ended: Option<String>,
    /// A fault took its machine.
    pub(crate) killed: bool,
}

/// Of one task.
#[derive(Debug, Default)]
pub(crate) struct Task {
    /// Its owner asked for its end.
    pub(crate) cancelled: bool,
    /// How many retries its owner asked for.
    pub(crate) retries: u32,
    /// Its log, as one who followed it over all faults has it; whole once it is there.
    pub(crate) followed: Option<Bytes>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) attempts: BTreeMap<AttemptId, Attempt>,
    /// Tasks that were acknowledged.
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    /// The task that each key was acknowledged as.
    pub(crate) keys: BTreeMap<String, TaskId>,
    /// The owner has asked for everything.
    pub(crate) all_asked: bool,
    /// The logs of all tasks, as they are read at the end.
    pub(crate) logs: Option<BTreeMap<TaskId, (mayfly_wire::api::Task, Bytes)>>,
    pub(crate) violations: Vec<String>,
    /// What was done to them.
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

/// Shared by all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Facts>>);

impl Ledger {
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an attempt did.
    pub(crate) fn attempt(&self, attempt: AttemptId, note: impl FnOnce(&mut Attempt)) {
        note(self.facts().attempts.entry(attempt).or_default());
    }

    /// Something that must not be.
    pub(crate) fn violated(&self, words: impl Into<String>) {
        let words = format!("at {:.3} s: {}", stand_in::now().as_secs_f64(), words.into());
        tracing::error!("{words}");
        self.facts().violations.push(words);
    }

    /// Counts a fault.
    pub(crate) fn fault(&self, name: &'static str) {
        tracing::info!(name, "FAULT");
        *self.facts().faults.entry(name).or_default() += 1;
    }

    /// Whether each task is over, for whoever followed it, and nothing more is to come.
    pub(crate) fn all_over(&self) -> bool {
        let facts = self.facts();
        facts.all_asked && facts.tasks.values().all(|task| task.followed.is_some())
    }
}
