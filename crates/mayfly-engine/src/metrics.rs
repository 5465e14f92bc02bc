//! What is counted and measured while the engine runs, in the text format of Prometheus.
//!
//! Counts begin at 0 with the engine. What the store knows is read from it when it is asked for: the tasks in each
//! state, and how far the log is behind the machines.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::{TaskState, causes};
use mayfly_store::StoreError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::Engine;
use crate::session::JoinError;

/// The upper ends of the buckets of times, in seconds.
const SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

/// The counts of one engine.
pub(crate) struct Metrics {
    registry: Registry,
    tasks: Family<InState, Gauge>,
    running: Gauge,
    most: Gauge,
    launch: Histogram,
    lag: Histogram,
    /// Links that took over from an earlier one of the same machine.
    pub(crate) reconnects: Counter,
    /// Workers that were not let in.
    refused: Counter,
    /// Machines that were nobody's, and were found.
    pub(crate) leaked: Counter,
    acknowledged: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(…)")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mayfly");
        let times = || Histogram::new(SECONDS);
        let (tasks, running, most) = (Family::default(), Gauge::default(), Gauge::default());
        let (launch, lag) = (times(), times());
        let (reconnects, leaked, acknowledged) = (Counter::default(), Counter::default(), Counter::default());
        let refused = Counter::default();
        registry.register("tasks", "Tasks in each state; the queue's depth is `queued`", tasks.clone());
        registry.register("machines_running", "Attempts that own a machine", running.clone());
        registry.register("machines_allowed", "How many may own one at once", most.clone());
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "launch",
            "From asking for a machine to its worker's hello",
            seconds.clone(),
            launch.clone(),
        );
        registry.register_with_unit(
            "event_lag",
            "From a machine's word to its place in the log",
            seconds,
            lag.clone(),
        );
        registry.register("link_reconnects", "Workers that dialled again", reconnects.clone());
        registry.register("hellos_refused", "Workers that were not let in", refused.clone());
        registry.register("leaked_machines", "Machines found that no attempt owned", leaked.clone());
        registry.register(
            "records_acknowledged",
            "Machines' records stored and acknowledged",
            acknowledged.clone(),
        );
        Self { registry, tasks, running, most, launch, lag, reconnects, refused, leaked, acknowledged }
    }
}

impl Metrics {
    /// A worker was not let in. Whoever tries again and again fills no log: it is told of the first time, the second, the
    /// fourth, and so on.
    pub(crate) fn refused(&self, why: &JoinError) {
        let count = self.refused.inc() + 1;
        if count.is_power_of_two() {
            tracing::warn!(count, cause = %causes(why), "a hello was refused");
        }
    }

    /// A worker was heard for the first time.
    pub(crate) fn launched(&self, asked: Timestamp, heard: Timestamp) {
        self.launch.observe(seconds(asked, heard));
    }

    /// Records were stored, the last of which was said at `said`.
    pub(crate) fn stored(&self, records: u64, said: Option<Timestamp>, now: Timestamp) {
        self.acknowledged.inc_by(records);
        if let Some(said) = said {
            self.lag.observe(seconds(said, now));
        }
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    Duration::try_from(to.duration_since(from)).unwrap_or_default().as_secs_f64()
}

impl Engine {
    /// Everything that is counted, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, StoreError> {
        let metrics = &self.0.metrics;
        let counts = self.0.store.counts().await?;
        let mut running = 0;
        for state in TaskState::NAMES {
            let count = counts.iter().find(|(name, _)| name == state).map_or(0, |(_, count)| *count);
            metrics.tasks.get_or_create(&InState { state }).set(count);
            running += if matches!(state, "queued" | "finished") { 0 } else { count };
        }
        metrics.running.set(running);
        metrics.most.set(self.0.config.rules.policy.machines_max.get().into());
        let mut text = String::new();
        encode(&mut text, &metrics.registry).expect("a text takes every word");
        Ok(text)
    }
}
