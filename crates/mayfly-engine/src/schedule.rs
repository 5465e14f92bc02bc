//! Gives free slots to waiting tasks: the oldest first.
//!
//! The count and the claim are one transaction of the store, so that no more than the allowed number ever own a
//! machine, whoever asks and whatever dies.

use crate::clock::after;
use crate::engine::{Engine, RETRY_AFTER};
use mayfly_core::causes;
use mayfly_store::StoreError;

impl Engine {
    /// Starts the scheduler: it looks at once, and whenever a task or a slot is new.
    pub(crate) fn schedule(&self) {
        let (engine, mut slots) = (self.clone(), self.0.slots.subscribe());
        slots.mark_changed();
        self.spawn(async move {
            while slots.changed().await.is_ok() {
                engine.fill_slots().await;
            }
        });
    }

    async fn fill_slots(&self) {
        let inner = &self.0;
        loop {
            match self.claim().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(error = causes(&error), "no task could be claimed");
                    inner.clock.sleep_until(after(inner.clock.now(), RETRY_AFTER)).await;
                }
            }
        }
    }

    /// Claims one task. `false`: none waits, or none may be claimed.
    async fn claim(&self) -> Result<bool, StoreError> {
        let claiming = self.0.claiming.lock().await;
        if !*claiming {
            return Ok(false);
        }
        let inner = &self.0;
        let (policy, provider) = (inner.config.rules.policy, inner.provider.name());
        let changed = inner.store.claim(policy, provider, inner.clock.now()).await?;
        Ok(changed.map(|changed| self.follow_up(&changed)).is_some())
    }
}
