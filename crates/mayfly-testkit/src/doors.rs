//! Doors that lead nowhere: a simulated machine speaks to the engine itself.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mayfly_core::AttemptId;
use mayfly_engine::Doors;
use tokio::sync::watch;

/// Remembers what was opened and closed. Clones share one memory.
#[derive(Debug, Clone, Default)]
pub struct SimDoors(Arc<watch::Sender<State>>);

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
        self.0.send_modify(|state| state.opens_fail = count);
    }

    /// The next `count` calls of `close` fail.
    pub fn closes_fail(&self, count: usize) {
        self.0.send_modify(|state| state.closes_fail = count);
    }

    /// Puts a folder here that no engine asked for.
    pub fn put(&self, attempt: AttemptId) {
        self.0.send_modify(|state| {
            state.folders.insert(attempt);
        });
    }

    /// The doors that are open.
    pub fn open_now(&self) -> Vec<AttemptId> {
        self.0.borrow().open.iter().copied().collect()
    }

    /// Waits until the door of `attempt` is open.
    pub async fn until_open(&self, attempt: AttemptId) {
        let mut doors = self.0.subscribe();
        doors.wait_for(|state| state.open.contains(&attempt)).await.expect("the doors are here");
    }

    /// All doors close, and their folders stay: their process has ended.
    pub(crate) fn end(&self) {
        self.0.send_modify(|state| state.open.clear());
    }

    fn change(&self, change: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut changed = Ok(());
        self.0.send_modify(|state| changed = change(state));
        changed
    }
}

impl Doors for SimDoors {
    fn open(&self, attempt: AttemptId) -> io::Result<PathBuf> {
        self.change(|state| {
            fail_one(&mut state.opens_fail)?;
            state.folders.insert(attempt);
            state.open.insert(attempt);
            Ok(())
        })?;
        Ok(PathBuf::from(format!("/nowhere/{attempt}")))
    }

    fn close(&self, attempt: AttemptId) -> io::Result<()> {
        self.change(|state| {
            fail_one(&mut state.closes_fail)?;
            state.open.remove(&attempt);
            state.folders.remove(&attempt);
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<AttemptId>> {
        Ok(self.0.borrow().folders.iter().copied().collect())
    }
}

fn fail_one(left: &mut usize) -> io::Result<()> {
    if *left == 0 {
        return Ok(());
    }
    *left -= 1;
    Err(io::ErrorKind::StorageFull.into())
}
