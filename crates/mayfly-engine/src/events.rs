//! A task's log as clients read it: lines of JSON, from any number on.
//!
//! Follow first, read the store then, wait for a raised head: so there is no gap and no repeat between what was
//! and what comes. A reader holds one chunk at a time and waits for nobody but itself.

use mayfly_core::TaskId;
use mayfly_store::{LogError, Run};

use crate::engine::Engine;
use crate::heads::{Follow, Head};

/// The bytes after which a chunk is full; one run of the store may go over it.
pub(crate) const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Reads a task's log.
#[derive(Debug)]
pub struct EventReader {
    engine: Engine,
    task: TaskId,
    after: u64,
    follow: Follow,
    waits: bool,
}

impl Engine {
    /// Reads a task's events after number `after`; with `wait` until the task is finished, else what is there.
    /// `None`: there is no such task.
    pub async fn events(&self, id: TaskId, after: u64, wait: bool) -> Result<Option<EventReader>, LogError> {
        let Some(follow) = self.follow(id).await? else { return Ok(None) };
        self.0.store.check_kept(id, after).await?;
        Ok(Some(EventReader { engine: self.clone(), task: id, after, follow, waits: wait }))
    }
}

impl EventReader {
    /// Whether all was given, and nothing more will come.
    pub fn is_over(&self) -> bool {
        self.ends_at(self.follow.peek())
    }

    fn ends_at(&self, head: Head) -> bool {
        self.after >= head.last_seq && (head.state.outcome().is_some() || !self.waits)
    }

    /// The next events. `None`: the task is finished and all was given, or all that is there was given and the
    /// reader does not wait. Given up half-way, nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Run>, LogError> {
        loop {
            // Only what was looked at here counts as seen.
            let head = self.follow.head();
            if self.ends_at(head) {
                return Ok(None);
            }
            if self.after < head.last_seq
                && let Some(run) = self.engine.0.store.log(self.task, self.after, CHUNK_BYTES_MAX).await?
            {
                self.after = run.last_seq;
                return Ok(Some(run));
            }
            self.follow.changed().await;
        }
    }
}
