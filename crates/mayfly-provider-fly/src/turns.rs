//! One verb at a time for each attempt. Fly's names would keep two machines of one attempt apart anyway; this keeps a
//! machine from being looked for while it is being made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mayfly_core::AttemptId;
use tokio::sync::OwnedMutexGuard;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<AttemptId, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the attempt's.
    pub(crate) async fn of(&self, attempt: AttemptId) -> OwnedMutexGuard<()> {
        self.turn(attempt).lock_owned().await
    }

    /// The attempt's, if nobody has it.
    pub(crate) fn free(&self, attempt: AttemptId) -> Option<OwnedMutexGuard<()>> {
        self.turn(attempt).try_lock_owned().ok()
    }

    fn turn(&self, attempt: AttemptId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody has or waits for.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(attempt).or_default())
    }
}
