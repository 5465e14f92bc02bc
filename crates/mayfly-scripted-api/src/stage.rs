//! What the tests see of the requests, and where they hold the answers.
//!
//! One lock over plain data, and one `watch` that tells of each change: waiting is for an event, never polling.
//! Bounds: [`REQUESTS_KEPT_MAX`] requests; counters for the scenarios that exist and for the holds that the
//! scripts name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

/// How many requests are kept to look at; older ones are forgotten.
pub const REQUESTS_KEPT_MAX: usize = 256;

/// A request that came in, and how it was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Such as `POST`.
    pub method: String,
    /// With the query, such as `/v1/messages?beta=true`.
    pub path: String,
    /// The headers that matter here, names in lower case: the credential and what begins with `anthropic-` or
    /// `x-claude-code-`, and the user agent.
    pub headers: Vec<(String, String)>,
    /// The body; `null` if it was not JSON.
    pub body: Value,
    /// The scenario that it asked for, if it got that far.
    pub scenario: Option<String>,
    /// The status of the answer.
    pub status: u16,
}

impl Seen {
    /// The first value of a header that matters here.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    state: Mutex<State>,
    /// Bumped after each change of the state.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Seen>,
    arrived: HashMap<String, usize>,
    held: HashMap<String, usize>,
    released: HashSet<String>,
    stopped: bool,
}

impl Stage {
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.lock().requests.iter().cloned().collect()
    }

    pub(crate) fn record(&self, seen: Seen) {
        self.change(|state| {
            if let Some(scenario) = &seen.scenario {
                *state.arrived.entry(scenario.clone()).or_default() += 1;
            }
            if state.requests.len() == REQUESTS_KEPT_MAX {
                state.requests.pop_front();
            }
            state.requests.push_back(seen);
        });
    }

    pub(crate) async fn arrived(&self, scenario: &str, nth: usize) {
        self.until(|state| state.arrived.get(scenario).is_some_and(|count| *count >= nth)).await;
    }

    pub(crate) async fn held(&self, name: &str, nth: usize) {
        self.until(|state| state.held.get(name).is_some_and(|count| *count >= nth)).await;
    }

    pub(crate) fn release(&self, name: &str) {
        self.change(|state| {
            state.released.insert(name.to_owned());
        });
    }

    /// Waits at a hold. Returns whether it was opened; otherwise the API stops.
    pub(crate) async fn wait_at(&self, name: &str) -> bool {
        self.change(|state| *state.held.entry(name.to_owned()).or_default() += 1);
        self.until(|state| state.stopped || state.released.contains(name)).await;
        !self.lock().stopped
    }

    pub(crate) fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    /// Ends once [`stop`](Self::stop) was called.
    pub(crate) fn stopped(self: &std::sync::Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let stage = std::sync::Arc::clone(self);
        async move { stage.until(|state| state.stopped).await }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        // Subscribed before the look, so a change in between is not missed.
        let mut changed = self.changed.subscribe();
        while !holds(&self.lock()) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
