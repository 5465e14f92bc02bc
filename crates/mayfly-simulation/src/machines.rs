//! The place that makes machines. It outlives every orchestrator, answers unclearly at times, and holds them to their
//! promises at every moment: never more than allowed, and never two for one task.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use mayfly_core::AttemptId;
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError};

use crate::ledger::Ledger;

/// The place. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Machines(Arc<Mutex<Place>>);

#[derive(Debug)]
struct Place {
    rng: Rng,
    ledger: Ledger,
    /// How likely an answer is lost.
    unclear: f64,
    /// How long an answer takes at most.
    answer_ms_max: u64,
    /// The most that may be alive.
    most: usize,
    /// Whether each that is here is alive.
    here: BTreeMap<AttemptId, bool>,
    /// Those whose workers are not started yet.
    made: Vec<MachineSpec>,
}

/// What becomes of a call.
struct Fate {
    pause: Duration,
    /// Whether it is done, if its answer is lost.
    lost: Option<bool>,
}

impl Machines {
    pub(crate) fn new(mut rng: Rng, ledger: Ledger, most: usize) -> Self {
        let unclear = if rng.bool() { 0.0 } else { rng.f64() * 0.4 };
        let answer_ms_max = if rng.bool() { 0 } else { rng.u64(1..3000) };
        let (here, made) = (BTreeMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(Place { rng, ledger, unclear, answer_ms_max, most, here, made })))
    }

    /// From here on every answer comes.
    pub(crate) fn calm(&self) {
        let mut place = self.place();
        (place.unclear, place.answer_ms_max) = (0.0, 0);
    }

    /// Those that were made since this was last asked.
    pub(crate) fn made(&self) -> Vec<MachineSpec> {
        std::mem::take(&mut self.place().made)
    }

    pub(crate) fn is_alive(&self, attempt: AttemptId) -> bool {
        self.place().here.get(&attempt).is_some_and(|alive| *alive)
    }

    /// It ends, and its remains are left.
    pub(crate) fn die(&self, attempt: AttemptId) {
        if let Some(alive) = self.place().here.get_mut(&attempt) {
            *alive = false;
        }
    }

    /// All that is left here.
    pub(crate) fn left(&self) -> Vec<AttemptId> {
        self.place().here.keys().copied().collect()
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fate(&self, call: &'static str) -> Option<bool> {
        let Fate { pause, lost } = self.place().fate();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if lost.is_some() {
            self.place().ledger.fault(call);
        }
        lost
    }
}

impl Place {
    fn fate(&mut self) -> Fate {
        let pause = Duration::from_millis(self.rng.u64(0..=self.answer_ms_max));
        let lost = self.rng.f64() < self.unclear;
        Fate { pause, lost: lost.then(|| self.rng.bool()) }
    }

    fn make(&mut self, spec: &MachineSpec) {
        if self.here.contains_key(&spec.attempt) {
            return;
        }
        let alive = || self.here.iter().filter(|(_, alive)| **alive).map(|(attempt, _)| *attempt);
        if let Some(other) = alive().find(|other| other.task == spec.attempt.task) {
            self.ledger.violated(format!("G2: machine {} was made beside {other}", spec.attempt));
        }
        if alive().count() >= self.most {
            self.ledger.violated(format!("G7: machine {} is one too many", spec.attempt));
        }
        self.here.insert(spec.attempt, true);
        self.made.push(spec.clone());
    }
}

fn unclear(call: &'static str) -> ProviderError {
    ProviderError::Unclear { call, source: "the answer was lost".into() }
}

#[async_trait::async_trait]
impl Provider for Machines {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        let lost = self.fate("unclear create").await;
        if lost != Some(false) {
            self.place().make(spec);
        }
        if lost.is_some() {
            return Err(unclear("create"));
        }
        let alive = self.is_alive(spec.attempt);
        Ok(Machine { attempt: spec.attempt, alive, notes: Vec::new() })
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        let lost = self.fate("unclear destroy").await;
        if lost != Some(false) {
            self.place().here.remove(&attempt);
        }
        if lost.is_some() { Err(unclear("destroy")) } else { Ok(()) }
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        if self.fate("unclear list").await.is_some() {
            return Err(unclear("list"));
        }
        let machine = |(&attempt, &alive)| Machine { attempt, alive, notes: Vec::new() };
        Ok(self.place().here.iter().map(machine).collect())
    }
}
