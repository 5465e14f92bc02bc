//! A clock that stands still until the test moves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mayfly_engine::Clock;
use tokio::sync::{oneshot, watch};

/// Time in the hands of a test. Clones share it.
#[derive(Debug, Clone)]
pub struct ManualClock {
    inner: Arc<Mutex<Inner>>,
    /// Counts those who have gone to sleep.
    slept: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    now: Timestamp,
    sleepers: Vec<(Timestamp, oneshot::Sender<()>)>,
}

impl Default for ManualClock {
    fn default() -> Self {
        let now = Timestamp::from_second(1_767_225_600).expect("a time of our own");
        let inner = Arc::new(Mutex::new(Inner { now, sleepers: Vec::new() }));
        Self { inner, slept: watch::Sender::new(0) }
    }
}

impl ManualClock {
    /// Moves the time by `span`, and wakes all whose time has come.
    pub fn advance(&self, span: Duration) {
        let mut inner = self.lock();
        inner.now = later(inner.now, span);
        let now = inner.now;
        let (due, asleep) = std::mem::take(&mut inner.sleepers).into_iter().partition(|(at, _)| *at <= now);
        inner.sleepers = asleep;
        for (_, sleeper) in due {
            let _: Result<(), ()> = sleeper.send(());
        }
    }

    /// Waits until somebody sleeps for exactly `span` from now, then moves the time by it.
    pub async fn pass(&self, span: Duration) {
        self.asleep(span).await;
        self.advance(span);
    }

    /// Waits until somebody sleeps for exactly `span` from now.
    pub async fn asleep(&self, span: Duration) {
        let mut slept = self.slept.subscribe();
        loop {
            {
                let mut inner = self.lock();
                let until = later(inner.now, span);
                inner.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
                if inner.sleepers.iter().any(|(at, _)| *at == until) {
                    break;
                }
            }
            slept.changed().await.expect("the clock is there");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let woken = {
            let mut inner = self.lock();
            if deadline <= inner.now {
                return;
            }
            let (sender, woken) = oneshot::channel();
            inner.sleepers.push((deadline, sender));
            woken
        };
        self.slept.send_modify(|count| *count += 1);
        // The sender goes only by being sent, or with the clock.
        let _ = woken.await;
    }
}

fn later(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_add(SignedDuration::try_from(span).expect("a test's span")).expect("a test's time")
}
