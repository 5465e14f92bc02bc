//! Time that runs out: one watcher for each attempt that owns a machine.
//!
//! Deadlines come from times in the store, so an engine that starts later has the same ones; only what needs the
//! engine itself, such as a hello, is never late because there was none. The silence of `claude` counts from its start,
//! what comes before has limits of its own, and while its worker has a link: without one, it is the machine that is
//! silent. What a machine says moves the deadline of silence; the watcher looks at that only when it wakes, so that a
//! busy stream costs it nothing.

use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::{AttemptId, Event, Limit, Phase, TaskState};
use mayfly_store::{AttemptRow, StoreError, TaskRow};
use tracing::{Instrument as _, info, info_span};

use crate::clock::after;
use crate::engine::Engine;

impl Engine {
    /// Starts watching the limits of an attempt, until its machine is being destroyed.
    pub(crate) fn watch_limits(&self, attempt: AttemptId) {
        let (engine, span) = (self.clone(), info_span!("limits", task = %attempt.task, %attempt));
        let watch = async move { engine.until_stored(|| engine.keep_limits(attempt)).await };
        self.spawn(watch.instrument(span));
    }

    async fn keep_limits(&self, id: AttemptId) -> Result<(), StoreError> {
        let mut presence = self.0.links.presence(id);
        let Some(mut follow) = self.follow(id.task).await? else { return Ok(()) };
        loop {
            let head = follow.head();
            let linked = presence.borrow_and_update().map(|link| link.since);
            let (Some(task), Some(attempt)) =
                (self.0.store.task(id.task).await?, self.0.store.attempt(id).await?)
            else {
                return Ok(());
            };
            let Some((deadline, limit, words)) = self.next_limit(&task, &attempt, linked) else {
                return Ok(());
            };
            if deadline <= self.0.clock.now() {
                info!(?limit, "limit of time reached");
                self.insist(id.task, Event::Expired(id.attempt, limit), words).await?;
                continue;
            }
            tokio::select! {
                () = self.0.clock.sleep_until(deadline) => {}
                // Only another state has other limits; a longer log has not.
                () = follow.until(|now| now.state != head.state) => {}
                _ = presence.changed() => {}
            }
        }
    }

    /// The limit that runs out next. `None`: the attempt has none any more.
    fn next_limit(
        &self,
        task: &TaskRow,
        attempt: &AttemptRow,
        linked: Option<Timestamp>,
    ) -> Option<(Timestamp, Limit, String)> {
        let (config, started) = (&self.0.config, self.0.started);
        let chosen = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
        match task.state {
            TaskState::Launching(a) if a == attempt.id.attempt => {
                let within = words(config.rules.launch_max);
                let words = match self.0.links.trouble(attempt.id) {
                    Some(why) => format!("no machine could be made within {within}: {why}"),
                    None => format!("its worker was not heard within {within}"),
                };
                Some((after(attempt.launched.max(started), config.rules.launch_max), Limit::Launch, words))
            }
            TaskState::Running(a, phase) if a == attempt.id.attempt => {
                let joined = attempt.joined.unwrap_or(attempt.launched);
                let wall = chosen(task.spec.timeout_ms, config.rules.timeout);
                let idle = chosen(task.spec.idle_timeout_ms, config.rules.idle_timeout);
                let wall_words = format!("not done within {}", words(wall));
                let idle_words = format!("nothing heard from claude for {}", words(idle));
                let silent = linked.filter(|_| phase == Phase::Claude);
                let silent = silent.map(|since| since.max(attempt.heard.unwrap_or(joined)));
                let whole = (after(joined, wall), Limit::Wall, wall_words);
                let silence = silent.map(|since| (after(since, idle), Limit::Idle, idle_words));
                std::iter::once(whole).chain(silence).min_by_key(|(deadline, ..)| *deadline)
            }
            TaskState::Collecting(a, _) if a == attempt.id.attempt => {
                let ended = attempt.ended.unwrap_or(attempt.launched).max(started);
                let words =
                    format!("its work was not brought out within {}", words(config.rules.collect_max));
                Some((after(ended, config.rules.collect_max), Limit::Collect, words))
            }
            _ => None,
        }
    }
}

/// A span as people write it, such as `1h 30m` or `2s 500ms`.
pub(crate) fn words(span: Duration) -> String {
    let parts = [
        (span.as_secs() / 3600, "h"),
        (span.as_secs() / 60 % 60, "m"),
        (span.as_secs() % 60, "s"),
        (u64::from(span.subsec_millis()), "ms"),
    ];
    let shown: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_as_people_write_it() {
        for (ms, shown) in [(0, "0s"), (600_000, "10m"), (5_400_000, "1h 30m"), (2_500, "2s 500ms")] {
            assert_eq!(words(Duration::from_millis(ms)), shown);
        }
    }
}
