//! A clock that stands still until the test moves it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mayfly_engine::Clock;
use tokio::sync::{oneshot, watch};

/// Where every manual clock starts: 2026-01-01T00:00:00Z.
const START_SECONDS: i64 = 1_767_225_600;

/// Moved by [`advance`](Self::advance) alone. Clones are one clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts the changes of `sleepers`.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    now: Timestamp,
    /// By deadline, then by who came first.
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    last: u64,
}

impl Default for ManualClock {
    fn default() -> Self {
        let now = Timestamp::from_second(START_SECONDS).expect("a time");
        let state = State { now, sleepers: BTreeMap::new(), last: 0 };
        Self(Arc::new(Shared { state: Mutex::new(state), changes: watch::Sender::new(0) }))
    }
}

impl ManualClock {
    /// Moves the time on, and wakes those whose deadline has come, in the order of their deadlines.
    pub fn advance(&self, span: Duration) {
        let mut state = self.state();
        state.now = later(state.now, span);
        let now = state.now;
        while let Some(first) = state.sleepers.first_entry().filter(|first| first.key().0 <= now) {
            // One that does not wait any more needs no waking.
            let _ = first.remove().send(());
        }
        drop(state);
        self.changed();
    }

    /// Moves the time on to the first deadline whenever it is no further away than `most`, until `done` is.
    /// What is under way meanwhile sees the time run: for what is tried many times, and nothing else.
    pub async fn run<T>(&self, most: Duration, done: impl Future<Output = T>) -> T {
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                biased;
                done = &mut done => return done,
                () = self.sleeper_within(most) => self.advance(self.to_first()),
            }
            // Those who were woken come first.
            tokio::task::yield_now().await;
        }
    }

    /// Waits until somebody sleeps for no longer than `span` from now.
    pub async fn sleeper_within(&self, span: Duration) {
        self.sleepers(|now, deadlines| deadlines.first().is_some_and(|&first| first <= later(now, span)))
            .await;
    }

    /// Waits until somebody sleeps for exactly `span` from now.
    pub async fn sleeper_for(&self, span: Duration) {
        self.sleepers(|now, deadlines| deadlines.contains(&later(now, span))).await;
    }

    /// Waits until the deadlines of all sleepers, in order, are as asked for.
    pub async fn sleepers(&self, are: impl Fn(Timestamp, &[Timestamp]) -> bool) {
        let mut changes = self.0.changes.subscribe();
        loop {
            {
                let state = self.state();
                let deadlines: Vec<Timestamp> =
                    state.sleepers.keys().map(|(deadline, _)| *deadline).collect();
                if are(state.now, &deadlines) {
                    return;
                }
            }
            changes.changed().await.expect("the clock is here");
        }
    }

    fn to_first(&self) -> Duration {
        let state = self.state();
        let first = state.sleepers.keys().next().map_or(state.now, |(deadline, _)| *deadline);
        Duration::try_from(first.duration_since(state.now)).unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }
}

#[async_trait::async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let (wake, woken) = oneshot::channel();
        let key = {
            let mut state = self.state();
            if deadline <= state.now {
                return;
            }
            state.last += 1;
            let key = (deadline, state.last);
            state.sleepers.insert(key, wake);
            key
        };
        let _bed = Bed { clock: self, key };
        self.changed();
        let _ = woken.await;
    }
}

/// One who sleeps, until woken or given up.
struct Bed<'a> {
    clock: &'a ManualClock,
    key: (Timestamp, u64),
}

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        if self.clock.state().sleepers.remove(&self.key).is_some() {
            self.clock.changed();
        }
    }
}

fn later(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_add(SignedDuration::try_from(span).expect("a short span")).expect("a time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_those_whose_time_has_come_are_woken() {
        let clock = ManualClock::default();
        let sleep = |seconds| {
            let clock = clock.clone();
            let deadline = later(clock.now(), Duration::from_secs(seconds));
            tokio::spawn(async move { clock.sleep_until(deadline).await })
        };
        let (short, long) = (sleep(1), sleep(2));
        clock.sleepers(|_, deadlines| deadlines.len() == 2).await;
        clock.advance(Duration::from_secs(1));
        short.await.expect("woken");
        clock.sleepers(|_, deadlines| deadlines.len() == 1).await;
        assert!(!long.is_finished());
        clock.advance(Duration::from_secs(1));
        long.await.expect("woken");
    }
}
