//! Machines that are lost, and machines that are nobody's.
//!
//! A provider never reports anything by itself. So when a worker's link is gone, the provider is asked whether
//! the machine still lives: at once, and again with growing pauses for as long as the worker stays away.

use std::collections::HashSet;
use std::time::Duration;

use mayfly_core::{AttemptId, Event, TaskState};
use mayfly_store::StoreError;
use mayfly_wire::event::MayflyEvent;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::after;
use crate::engine::{Engine, StartError};
use crate::heads::Follow;
use crate::limits::words;
use crate::perform::chain;

/// The first pause between two looks; each further one is twice as long.
const LOOK_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_secs(60);

impl Engine {
    /// Destroys every machine whose attempt the store does not hold as live.
    pub(crate) async fn destroy_strangers(&self) -> Result<(), StartError> {
        let live: HashSet<AttemptId> =
            self.0.store.live().await?.into_iter().map(|(_, attempt)| attempt.id).collect();
        for machine in self.0.provider.list().await? {
            if !live.contains(&machine.attempt) {
                info!(attempt = %machine.attempt, "machine of no live attempt");
                self.destroy_stranger(machine.attempt);
            }
        }
        Ok(())
    }

    fn destroy_stranger(&self, attempt: AttemptId) {
        let engine = self.clone();
        self.spawn(async move {
            let mut wait = LOOK_FIRST;
            while let Err(error) = engine.0.provider.destroy(attempt).await {
                warn!(%attempt, error = chain(&error), "machine not destroyed yet");
                engine.pause(&mut wait).await;
            }
        });
    }

    /// Starts watching whether the worker of an attempt has a link, until the attempt is over.
    pub(crate) fn watch_absence(&self, attempt: AttemptId) {
        self.spawn_until_stored("absence", move |engine| async move { engine.keep_watch(attempt).await });
    }

    async fn keep_watch(&self, attempt: AttemptId) -> Result<(), StoreError> {
        let mut presence = self.0.links.presence(attempt);
        let Some(mut follow) = self.follow(attempt.task).await? else { return Ok(()) };
        while is_owed(follow.head().state, attempt) {
            if *presence.borrow_and_update() == 0 {
                self.search(attempt, &mut presence, &mut follow).await?;
            } else {
                tokio::select! {
                    _ = presence.changed() => {}
                    () = follow.changed() => {}
                }
            }
        }
        Ok(())
    }

    /// Looks for the machine of a worker that has no link, until it has one or the attempt is over.
    async fn search(
        &self,
        attempt: AttemptId,
        presence: &mut watch::Receiver<u64>,
        follow: &mut Follow,
    ) -> Result<(), StoreError> {
        let (since, mut told, mut pause) = (self.0.clock.now(), false, LOOK_FIRST);
        let (silent, orphaned) = (self.0.config.rules.silent_after, self.0.config.rules.orphan_after);
        while *presence.borrow_and_update() == 0 && is_owed(follow.head().state, attempt) {
            let now = self.0.clock.now();
            if !self.still_lives(attempt).await {
                return self.lose(attempt, "its machine is gone".to_owned()).await;
            }
            if now >= after(since, orphaned) {
                return self
                    .lose(attempt, format!("its machine was not heard for {}", words(orphaned)))
                    .await;
            }
            if !told && now >= after(since, silent) {
                told = true;
                let text = format!("nothing heard from the machine for {}", words(silent));
                self.tell(attempt, MayflyEvent::Warning { text }).await?;
            }
            tokio::select! {
                () = self.0.clock.sleep_until(after(now, pause)) => pause = (pause * 2).min(LOOK_MAX),
                _ = presence.changed() => {}
                () = follow.changed() => {}
            }
        }
        Ok(())
    }

    async fn lose(&self, attempt: AttemptId, detail: String) -> Result<(), StoreError> {
        self.step(attempt.task, Event::Vanished(attempt.attempt), Some(detail)).await.map(drop)
    }

    /// An unclear answer counts as life: the next look may know more.
    async fn still_lives(&self, attempt: AttemptId) -> bool {
        match self.0.provider.list().await {
            Ok(machines) => machines.iter().any(|machine| machine.attempt == attempt && machine.alive),
            Err(error) => {
                warn!(error = chain(&error), "machines not listed");
                true
            }
        }
    }
}

/// Whether the attempt should have a link.
fn is_owed(state: TaskState, attempt: AttemptId) -> bool {
    matches!(state, TaskState::Running(a, _) | TaskState::Collecting(a, _) if a == attempt.attempt)
}
