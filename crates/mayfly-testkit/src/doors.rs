//! Doors that lead nowhere: a simulated machine speaks to the engine itself.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mayfly_core::AttemptId;
use mayfly_engine::Doors;

/// Remembers what was opened and closed. Clones share one memory.
#[derive(Debug, Clone, Default)]
pub struct SimDoors(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a restart leaves.
    folders: BTreeSet<AttemptId>,
    open: BTreeSet<AttemptId>,
    opens_fail: usize,
    closes_fail: usize,
}

impl SimDoors {
    /// The next `count` calls of `open` fail, as on a full disk.
    pub fn opens_fail(&self, count: usize) {
        self.state().opens_fail = count;
    }

    /// The next `count` calls of `close` fail.
    pub fn closes_fail(&self, count: usize) {
        self.state().closes_fail = count;
    }

    /// The doors that are open.
    pub fn open_now(&self) -> Vec<AttemptId> {
        self.state().open.iter().copied().collect()
    }

    /// Puts a folder here that no engine asked for.
    pub fn put(&self, attempt: AttemptId) {
        self.state().folders.insert(attempt);
    }

    /// All doors close, and their folders stay: their process has ended.
    pub(crate) fn end(&self) {
        self.state().open.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doors for SimDoors {
    fn open(&self, attempt: AttemptId) -> io::Result<PathBuf> {
        let mut state = self.state();
        fail_one(&mut state.opens_fail)?;
        state.folders.insert(attempt);
        state.open.insert(attempt);
        Ok(PathBuf::from(format!("/nowhere/{attempt}")))
    }

    fn close(&self, attempt: AttemptId) -> io::Result<()> {
        let mut state = self.state();
        fail_one(&mut state.closes_fail)?;
        state.open.remove(&attempt);
        state.folders.remove(&attempt);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<AttemptId>> {
        Ok(self.state().folders.iter().copied().collect())
    }
}

fn fail_one(left: &mut usize) -> io::Result<()> {
    let fails = *left > 0;
    *left = left.saturating_sub(1);
    if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}
