//! Checkpoints that hold nothing but what a result is to say.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mayfly_core::AttemptId;
use mayfly_engine::Checkpoints;
use mayfly_wire::api::{Collected, Workspace};

/// What is kept of each attempt. Clones share one memory.
#[derive(Debug, Clone, Default)]
pub struct SimCheckpoints(Arc<Mutex<BTreeMap<AttemptId, Result<Collected, io::ErrorKind>>>>);

impl SimCheckpoints {
    /// From now on the last checkpoint of an attempt becomes this result, or cannot be made one.
    pub fn put(&self, attempt: AttemptId, result: Result<Collected, io::ErrorKind>) {
        self.kept().insert(attempt, result);
    }

    /// The attempts that have one.
    pub fn attempts(&self) -> Vec<AttemptId> {
        self.kept().keys().copied().collect()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Result<Collected, io::ErrorKind>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Checkpoints for SimCheckpoints {
    async fn recover(&self, attempt: AttemptId, _: Option<&Workspace>) -> io::Result<Option<Collected>> {
        self.kept().get(&attempt).cloned().transpose().map_err(io::Error::from)
    }

    async fn discard(&self, attempt: AttemptId) -> io::Result<()> {
        self.kept().remove(&attempt);
        Ok(())
    }

    fn any(&self, attempt: AttemptId) -> io::Result<bool> {
        Ok(self.kept().contains_key(&attempt))
    }
}
