//! Gives free slots to waiting tasks: the oldest first, and one that is tried again not before it is due.
//!
//! The count and the claim are one transaction of the store, so that no more than the allowed number ever own a
//! machine, whoever asks and whatever dies.

use jiff::Timestamp;
use mayfly_core::causes;
use mayfly_failpoint::failpoint;
use mayfly_store::StoreError;

use crate::clock::after;
use crate::engine::{Engine, RETRY_AFTER};

impl Engine {
    /// Starts the scheduler: it looks at once, whenever a task or a slot is new, and when one that was put off is due.
    pub(crate) fn schedule(&self) {
        let (engine, mut slots) = (self.clone(), self.0.slots.subscribe());
        self.spawn(async move {
            loop {
                let due = engine.fill_slots().await;
                tokio::select! {
                    changed = slots.changed() => if changed.is_err() { return },
                    () = engine.until_due(due) => {}
                }
            }
        });
    }

    /// Gives when the first of those is due that were put off.
    async fn fill_slots(&self) -> Option<Timestamp> {
        let inner = &self.0;
        loop {
            match self.claim_all().await {
                Ok(due) => return due,
                Err(error) => {
                    tracing::error!(error = causes(&error), "no task could be claimed");
                    inner.clock.sleep_until(after(inner.clock.now(), RETRY_AFTER)).await;
                }
            }
        }
    }

    async fn claim_all(&self) -> Result<Option<Timestamp>, StoreError> {
        loop {
            // One moment for both, so that none is due in between.
            let now = self.0.clock.now();
            if !self.claim(now).await? {
                return self.0.store.next_due(now).await;
            }
        }
    }

    /// Claims one task. `false`: none waits, or none may be claimed.
    async fn claim(&self, now: Timestamp) -> Result<bool, StoreError> {
        let claiming = self.0.claiming.lock().await;
        if !*claiming {
            return Ok(false);
        }
        let inner = &self.0;
        let (policy, provider) = (inner.config.rules.policy, inner.provider.name());
        let changed = inner.store.claim(policy, provider, now).await?;
        Ok(changed
            .map(|changed| {
                failpoint("claim-committed");
                self.follow_up(&changed);
            })
            .is_some())
    }

    async fn until_due(&self, due: Option<Timestamp>) {
        match due {
            Some(due) => self.0.clock.sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}
