//! Where each task's log ends, for those who wait for more.
//!
//! A head is raised after the commit that it tells of, and never lowered. Who wants to follow a task
//! subscribes first and reads the store then: what is committed in between shows as a raised head, so there
//! is no gap; and what a reader does not take stays in the store, so a slow one holds nothing up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mayfly_core::{TaskId, TaskState};
use tokio::sync::watch;

/// The end of a task's log, and what the task is at that point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) last_seq: u64,
    pub(crate) state: TaskState,
    /// Whether `claude` is known to run as it was asked to.
    pub(crate) ready: bool,
}

/// The heads of all tasks that somebody follows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heads(Arc<Mutex<HashMap<TaskId, watch::Sender<Head>>>>);

impl Heads {
    /// Follows a task, from a head that may be old: the caller reads the store and [raises](Self::raise) it.
    pub(crate) fn follow(&self, task: TaskId) -> Follow {
        let oldest = Head { last_seq: 0, state: TaskState::NEW, ready: false };
        let mut heads = self.lock();
        let receiver = heads.entry(task).or_insert_with(|| watch::Sender::new(oldest)).subscribe();
        Follow { heads: self.clone(), task, receiver: Some(receiver) }
    }

    /// Tells those who follow `task` of a newer head; an older one is passed over.
    pub(crate) fn raise(&self, task: TaskId, head: Head) {
        if let Some(sender) = self.lock().get(&task) {
            sender.send_if_modified(|current| {
                let newer = head.last_seq >= current.last_seq;
                let (old, next) = if newer { (*current, head) } else { (head, *current) };
                // What is known of one attempt says nothing about another.
                let same = old.state.machine() == next.state.machine();
                let next = Head { ready: next.ready || (same && old.ready), ..next };
                std::mem::replace(current, next) != next
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, watch::Sender<Head>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who follows a task.
#[derive(Debug)]
pub(crate) struct Follow {
    heads: Heads,
    task: TaskId,
    receiver: Option<watch::Receiver<Head>>,
}

impl Follow {
    /// The head now.
    pub(crate) fn head(&mut self) -> Head {
        *self.receiver().borrow_and_update()
    }

    /// The head now; it does not count as seen.
    pub(crate) fn peek(&self) -> Head {
        *self.receiver.as_ref().expect("it is taken only when dropped").borrow()
    }

    /// Waits for a head that is so.
    pub(crate) async fn until(&mut self, so: impl Fn(&Head) -> bool) {
        while !so(&self.head()) {
            self.changed().await;
        }
    }

    /// Waits for a head that has not been seen.
    pub(crate) async fn changed(&mut self) {
        // The sender lives as long as there is a receiver.
        let _ = self.receiver().changed().await;
    }

    fn receiver(&mut self) -> &mut watch::Receiver<Head> {
        self.receiver.as_mut().expect("it is taken only when dropped")
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let mut heads = self.heads.lock();
        self.receiver = None;
        if heads.get(&self.task).is_some_and(|sender| sender.receiver_count() == 0) {
            heads.remove(&self.task);
        }
    }
}
