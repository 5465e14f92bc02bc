//! Machines that are lost, and machines that are nobody's.
//!
//! What a provider has is compared with the store at the start and from time to time.
//! A provider never reports anything by itself. So when a worker's link is gone, the provider is asked whether
//! the machine still lives: at once, and again with growing pauses for as long as the worker stays away. The same
//! is asked, with growing pauses as well, of a machine that was made and whose worker was not heard yet.

use std::collections::HashSet;
use std::time::Duration;

use mayfly_core::{AttemptId, Event, TaskState, causes};
use mayfly_provider::Sight;
use mayfly_store::StoreError;
use mayfly_wire::event::MayflyEvent;
use tokio::sync::watch;
use tracing::{Instrument as _, info, info_span, instrument, warn};

use crate::clock::after;
use crate::engine::{Engine, StartError};
use crate::heads::Follow;
use crate::limits::words;
use crate::session::Link;

/// The pause between two comparisons of the machines with the store.
const REAP_EVERY: Duration = Duration::from_secs(30);
/// The first pause between two looks; each further one is twice as long.
const LOOK_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_secs(60);

impl Engine {
    /// The machines whose attempts the store does not hold as live.
    pub(crate) async fn strangers(&self) -> Result<Vec<AttemptId>, StartError> {
        // Listed first: an attempt is live in the store before its machine is made.
        let machines = self.0.provider.list().await?;
        let live: HashSet<AttemptId> =
            self.0.store.live().await?.into_iter().map(|(_, attempt)| attempt.id).collect();
        let attempts = machines.into_iter().map(|machine| machine.attempt);
        Ok(attempts.filter(|attempt| !live.contains(attempt)).collect())
    }

    /// Destroys these strangers, and goes on looking for others, such as one whose making was answered unclearly
    /// and came after its end.
    pub(crate) fn reap(&self, mut strangers: Vec<AttemptId>) {
        let engine = self.clone();
        self.spawn(async move {
            loop {
                for attempt in strangers {
                    engine.reap_one(attempt).await;
                }
                engine.0.clock.sleep_until(after(engine.0.clock.now(), REAP_EVERY)).await;
                strangers = engine.strangers().await.unwrap_or_else(|error| {
                    warn!(error = causes(&error), "machines not compared");
                    Vec::new()
                });
            }
        });
    }

    #[instrument(name = "reap", skip_all, fields(task = %attempt.task, %attempt))]
    async fn reap_one(&self, attempt: AttemptId) {
        info!("machine of no live attempt");
        self.0.metrics.leaked.inc();
        if let Err(error) = self.0.provider.destroy(attempt).await {
            warn!(error = causes(&error), "machine not destroyed yet");
        }
    }

    /// Starts looking after a machine that was made, until its worker is heard.
    pub(crate) fn watch_launch(&self, attempt: AttemptId) {
        let (engine, span) = (self.clone(), info_span!("launch", task = %attempt.task, %attempt));
        let watch = async move { engine.until_stored(|| engine.keep_launch(attempt)).await };
        self.spawn(watch.instrument(span));
    }

    async fn keep_launch(&self, attempt: AttemptId) -> Result<(), StoreError> {
        let Some(mut follow) = self.follow(attempt.task).await? else { return Ok(()) };
        let (launching, mut pause) = (TaskState::Launching(attempt.attempt), LOOK_FIRST);
        while follow.head().state == launching {
            tokio::select! {
                () = self.pause(&mut pause) => {}
                () = follow.until(|head| head.state != launching) => return Ok(()),
            }
            if let Some(why) = self.end_of(attempt).await {
                return self
                    .lose(attempt, with_cause("its machine ended before its worker was heard", &why))
                    .await;
            }
        }
        Ok(())
    }

    /// Starts watching whether the worker of an attempt has a link, until the attempt is over.
    pub(crate) fn watch_absence(&self, attempt: AttemptId) {
        let (engine, span) = (self.clone(), info_span!("presence", task = %attempt.task, %attempt));
        let watch = async move { engine.until_stored(|| engine.keep_watch(attempt)).await };
        self.spawn(watch.instrument(span));
    }

    async fn keep_watch(&self, attempt: AttemptId) -> Result<(), StoreError> {
        let mut presence = self.0.links.presence(attempt);
        let Some(mut follow) = self.follow(attempt.task).await? else { return Ok(()) };
        while is_owed(follow.head().state, attempt) {
            if presence.borrow_and_update().is_none() {
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
        presence: &mut watch::Receiver<Option<Link>>,
        follow: &mut Follow,
    ) -> Result<(), StoreError> {
        let (since, mut told, mut pause) = (self.0.clock.now(), false, LOOK_FIRST);
        let (silent, orphaned) = (self.0.config.rules.silent_after, self.0.config.rules.orphan_after);
        let marks = [after(since, silent), after(since, orphaned)];
        while presence.borrow_and_update().is_none() && is_owed(follow.head().state, attempt) {
            let now = self.0.clock.now();
            if let Some(why) = self.end_of(attempt).await {
                return self.lose(attempt, with_cause("its machine is gone", &why)).await;
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
            let look = marks.into_iter().filter(|mark| *mark > now).fold(after(now, pause), Ord::min);
            tokio::select! {
                () = self.0.clock.sleep_until(look) => pause = (pause * 2).min(LOOK_MAX),
                _ = presence.changed() => {}
                () = follow.changed() => {}
            }
        }
        Ok(())
    }

    async fn lose(&self, attempt: AttemptId, detail: String) -> Result<(), StoreError> {
        info!(why = detail, "machine lost");
        self.step(attempt.task, Event::Vanished(attempt.attempt), Some(detail)).await.map(drop)
    }

    /// What became of the machine, if it cannot run any more; empty if nobody knows. An unclear answer counts as life:
    /// the next look may know more.
    async fn end_of(&self, attempt: AttemptId) -> Option<String> {
        match self.0.provider.look(attempt).await {
            Ok(Sight::Alive) => None,
            Ok(Sight::Ended(why)) => Some(why.unwrap_or_default()),
            Err(error) => {
                warn!(error = causes(&error), "machine not seen");
                None
            }
        }
    }
}

fn with_cause(what: &str, why: &str) -> String {
    if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
}

/// Whether the attempt should have a link.
fn is_owed(state: TaskState, attempt: AttemptId) -> bool {
    matches!(state, TaskState::Running(a, _) | TaskState::Collecting(a, _) if a == attempt.attempt)
}
