//! Gives free slots to waiting tasks: the oldest first.
//!
//! The count and the claim are one transaction of the store, so that no more than the allowed number ever own a
//! machine, whoever asks and whatever dies.

use crate::clock::after;
use crate::engine::{Engine, RETRY_AFTER};
use mayfly_core::causes;

impl Engine {
    /// Starts the scheduler: it looks at once, and whenever a task or a slot is new.
    pub(crate) fn schedule(&self) {
        let engine = self.clone();
        self.0.slots.notify_one();
        self.spawn(async move {
            loop {
                engine.0.slots.notified().await;
                engine.fill_slots().await;
            }
        });
    }

    async fn fill_slots(&self) {
        let inner = &self.0;
        loop {
            match inner.store.claim(inner.config.rules.policy, inner.provider.name(), inner.clock.now()).await
            {
                Ok(Some(changed)) => self.follow_up(&changed),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(error = causes(&error), "no task could be claimed");
                    inner.clock.sleep_until(after(inner.clock.now(), RETRY_AFTER)).await;
                }
            }
        }
    }
}
