//! A provider whose machines are values in a test, and the worker in each, played by the test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mayfly_core::{AttemptId, Outcome};
use mayfly_engine::{Engine, IngestError, JoinError, Session};
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError};
use mayfly_wire::Secret;
use mayfly_wire::api::Collected;
use mayfly_wire::worker::{Down, End, Hello, PROTOCOL, Record, Report, Source};
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};

/// What a provider answers when it is asked for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnCreate {
    /// It makes the machine.
    Made,
    /// It will not, with this reason.
    Refused(&'static str),
    /// It made the machine, and the answer was lost.
    MadeUnclear,
    /// It made nothing, and the answer was lost.
    Unclear,
}

/// What a provider was asked, and what it has. Each number only grows but `alive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls of `create`.
    pub creates: usize,
    /// Calls of `destroy`.
    pub destroys: usize,
    /// Calls of `list`.
    pub lists: usize,
    /// Machines that were made.
    pub made: usize,
    /// Machines alive now.
    pub alive: usize,
    /// The most machines that were ever alive at once.
    pub alive_most: usize,
}

/// A provider that makes machines of nothing. Clones, and those opened anew, share one place.
#[derive(Debug, Clone)]
pub struct SimProvider(Arc<Place>);

/// The test's hand on a [`SimProvider`].
#[derive(Debug)]
pub struct SimMachines {
    place: Arc<Place>,
    made: mpsc::UnboundedReceiver<MachineSpec>,
}

#[derive(Debug)]
struct Place {
    state: Mutex<State>,
    seen: watch::Sender<Seen>,
    /// Whether `create` waits before it does anything.
    held: watch::Sender<bool>,
    made: mpsc::UnboundedSender<MachineSpec>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether each machine that has something left here is alive.
    machines: BTreeMap<AttemptId, bool>,
    on_create: VecDeque<OnCreate>,
    destroys_unclear: usize,
    lists_unclear: usize,
    notes: Vec<String>,
}

impl SimProvider {
    /// An empty place.
    pub fn new() -> (Self, SimMachines) {
        let (made, machines) = mpsc::unbounded_channel();
        let (seen, held) = (watch::Sender::new(Seen::default()), watch::Sender::new(false));
        let place = Arc::new(Place { state: Mutex::default(), seen, held, made });
        (Self(Arc::clone(&place)), SimMachines { place, made: machines })
    }
}

impl Place {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, what: impl FnOnce(&mut Seen)) {
        let alive = self.state().machines.values().filter(|alive| **alive).count();
        self.seen.send_modify(|seen| {
            what(seen);
            seen.alive = alive;
            seen.alive_most = seen.alive_most.max(alive);
        });
    }

    /// Makes the machine, unless it is there.
    fn make(&self, spec: &MachineSpec) -> Machine {
        let mut state = self.state();
        let new = !state.machines.contains_key(&spec.attempt);
        let alive = *state.machines.entry(spec.attempt).or_insert(true);
        let notes = state.notes.clone();
        drop(state);
        if new {
            self.saw(|seen| seen.made += 1);
            // Nobody looks at machines any more: they are made all the same.
            let _ = self.made.send(spec.clone());
        }
        Machine { attempt: spec.attempt, alive, notes }
    }
}

#[async_trait::async_trait]
impl Provider for SimProvider {
    fn name(&self) -> &'static str {
        "sim"
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        self.0.saw(|seen| seen.creates += 1);
        let _ = self.0.held.subscribe().wait_for(|held| !held).await;
        let answer = self.0.state().on_create.pop_front().unwrap_or(OnCreate::Made);
        match answer {
            OnCreate::Made => Ok(self.0.make(spec)),
            OnCreate::Refused(reason) => {
                Err(ProviderError::Refused { provider: "sim", reason: reason.to_owned(), source: None })
            }
            OnCreate::MadeUnclear => {
                self.0.make(spec);
                Err(unclear("create"))
            }
            OnCreate::Unclear => Err(unclear("create")),
        }
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        let fails = {
            let mut state = self.0.state();
            let fails = state.destroys_unclear > 0;
            state.destroys_unclear = state.destroys_unclear.saturating_sub(1);
            if !fails {
                state.machines.remove(&attempt);
            }
            fails
        };
        self.0.saw(|seen| seen.destroys += 1);
        if fails { Err(unclear("destroy")) } else { Ok(()) }
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.0.saw(|seen| seen.lists += 1);
        let mut state = self.0.state();
        if state.lists_unclear > 0 {
            state.lists_unclear -= 1;
            return Err(unclear("list"));
        }
        let machine = |(&attempt, &alive)| Machine { attempt, alive, notes: Vec::new() };
        Ok(state.machines.iter().map(machine).collect())
    }
}

fn unclear(call: &'static str) -> ProviderError {
    ProviderError::Unclear { call, source: "the answer was lost".into() }
}

impl SimMachines {
    /// Waits for the next machine that is made.
    pub async fn next(&mut self) -> SimMachine {
        let spec = self.made.recv().await.expect("the place is here");
        SimMachine { place: Arc::clone(&self.place), spec, link: "a".repeat(32), sent: 0, session: None }
    }

    /// Whether no machine was made that the test has not taken.
    pub fn none_made(&mut self) -> bool {
        self.made.is_empty()
    }

    /// What is answered when a machine is asked for next; after the last, each is made.
    pub fn on_create(&self, answers: impl IntoIterator<Item = OnCreate>) {
        self.place.state().on_create.extend(answers);
    }

    /// The next `count` calls of `destroy` do nothing, and get no clear answer.
    pub fn destroys_unclear(&self, count: usize) {
        self.place.state().destroys_unclear = count;
    }

    /// The next `count` calls of `list` get no clear answer.
    pub fn lists_unclear(&self, count: usize) {
        self.place.state().lists_unclear = count;
    }

    /// What the owner should know about each machine made from now on.
    pub fn notes(&self, notes: &[&str]) {
        self.place.state().notes = notes.iter().map(|&note| note.to_owned()).collect();
    }

    /// Holds every `create` until told otherwise.
    pub fn hold(&self, held: bool) {
        self.place.held.send_replace(held);
    }

    /// Puts a machine here that no engine asked for.
    pub fn put(&self, attempt: AttemptId, alive: bool) {
        self.place.state().machines.insert(attempt, alive);
        self.place.saw(|_| {});
    }

    /// What was asked and what there is, now.
    pub fn seen(&self) -> Seen {
        *self.place.seen.borrow()
    }

    /// Machines alive now.
    pub fn alive(&self) -> usize {
        self.seen().alive
    }

    /// Everything that is left here, dead or alive.
    pub fn left(&self) -> Vec<AttemptId> {
        self.place.state().machines.keys().copied().collect()
    }

    /// Waits until what was asked and what there is are so.
    pub async fn until(&self, so: impl FnMut(&Seen) -> bool) {
        self.place.seen.subscribe().wait_for(so).await.expect("the place is here");
    }
}

/// A machine that was made, with its worker played by the test.
#[derive(Debug)]
pub struct SimMachine {
    place: Arc<Place>,
    /// What it was made from.
    pub spec: MachineSpec,
    /// The secret that its worker made up.
    pub link: String,
    /// The number of the last record that its worker made.
    pub sent: u64,
    session: Option<Session>,
}

impl SimMachine {
    /// Whose machine it is.
    pub fn attempt(&self) -> AttemptId {
        self.spec.attempt
    }

    /// The hello of its worker.
    pub fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            attempt: self.spec.attempt.to_string(),
            ticket: Secret::from(self.spec.ticket.expose_secret().to_owned()),
            link: Secret::from(self.link.clone()),
        }
    }

    /// Its worker dials, for the first time or again; gives the welcome.
    pub async fn boot(&mut self, engine: &Engine) -> Down {
        self.dial(engine).await.expect("a worker that is let in")
    }

    /// Its worker dials; a link that it had is given up once the new one stands.
    pub async fn dial(&mut self, engine: &Engine) -> Result<Down, JoinError> {
        let session = engine.join(self.hello()).await?;
        let welcome = session.welcome();
        self.session = Some(session);
        Ok(welcome)
    }

    /// Its worker's link, to be kept beside a newer one.
    pub fn take_session(&mut self) -> Session {
        self.session.take().expect("a worker with a link")
    }

    /// Cuts the link.
    pub fn unplug(&mut self) {
        self.session = None;
    }

    /// The machine dies: its remains are still listed.
    pub fn die(&mut self) {
        if let Some(alive) = self.place.state().machines.get_mut(&self.spec.attempt) {
            *alive = false;
        }
        self.place.saw(|_| {});
        self.session = None;
    }

    /// The machine is gone, with all that was in it.
    pub fn vanish(&mut self) {
        self.place.state().machines.remove(&self.spec.attempt);
        self.place.saw(|_| {});
        self.session = None;
    }

    /// The next record of its worker.
    pub fn record(&mut self, source: Source, bytes: impl Into<Bytes>) -> Record {
        self.sent += 1;
        Record { number: self.sent, at_ms: 0, source, end: End::Newline, bytes: bytes.into() }
    }

    /// The next record, with a report.
    pub fn report(&mut self, report: &Report) -> Record {
        self.record(Source::Report, serde_json::to_vec(report).expect("a report is JSON"))
    }

    /// Sends a frame; gives the number that is acknowledged.
    pub async fn send(&self, records: Vec<Record>) -> Result<u64, IngestError> {
        self.session.as_ref().expect("a worker with a link").ingest(records).await
    }

    /// `claude` writes a line.
    pub async fn says(&mut self, line: impl Into<Bytes>) {
        let record = self.record(Source::Claude, line);
        self.sent_well(record).await;
    }

    /// The worker reports.
    pub async fn reports(&mut self, report: Report) {
        let record = self.report(&report);
        self.sent_well(record).await;
    }

    /// `claude` was started, and is what was asked for.
    pub async fn starts(&mut self) {
        self.reports(Report::Started).await;
        self.reports(Report::Ready { version: "2".to_owned(), model: "sonnet".to_owned() }).await;
    }

    /// `claude` is over.
    pub async fn ends(&mut self, outcome: Outcome) {
        self.reports(Report::Ended { outcome: outcome.name().to_owned(), detail: None }).await;
    }

    /// The work was brought out: none.
    pub async fn collected(&mut self) {
        self.reports(Report::Collected(Collected::default())).await;
    }

    /// From the hello to the work's being safe.
    pub async fn succeeds(&mut self, engine: &Engine) {
        self.boot(engine).await;
        self.starts().await;
        self.ends(Outcome::Succeeded).await;
        self.collected().await;
    }

    /// What the worker is told next.
    pub async fn told(&mut self) -> Down {
        self.session.as_mut().expect("a worker with a link").next().await.expect("its newest link")
    }

    async fn sent_well(&self, record: Record) {
        let number = record.number;
        assert_eq!(self.send(vec![record]).await.expect("a frame that is stored"), number);
    }
}

#[cfg(test)]
mod tests {
    use mayfly_provider::Limits;
    use mayfly_provider::conformance::{self, Stage};

    use super::*;

    /// What stands in for the real ones in every other test keeps to the same rules.
    #[tokio::test]
    async fn it_conforms() {
        let (provider, _machines) = SimProvider::new();
        let spec = |attempt| MachineSpec {
            tools: Vec::new(),
            attempt,
            ticket: "ticket".into(),
            workspace: None,
            way_out: "/nowhere".into(),
            limits: Limits::default(),
        };
        let open = move || Arc::new(provider.clone()) as Arc<dyn Provider>;
        conformance::all(&Stage { open: Box::new(open), spec: Box::new(spec) }).await;
    }
}
