//! Machines that a test plays.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mayfly_core::AttemptId;
use mayfly_engine::{Engine, IngestError, JoinError, Session};
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError};
use mayfly_wire::Secret;
use mayfly_wire::api::Collected;
use mayfly_wire::worker::{Down, End, Hello, PROTOCOL, Record, Report, Source};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;

/// What the provider answers to a call, instead of doing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It will not.
    Refused(String),
    /// It does not know whether it did; it did not.
    Unclear,
}

/// A provider whose machines are entries in a table. Clones share it, as providers do over one place.
#[derive(Debug, Clone)]
pub struct SimProvider {
    table: Arc<Mutex<Table>>,
    asked: mpsc::UnboundedSender<MachineSpec>,
}

#[derive(Debug, Default)]
struct Table {
    alive: HashMap<AttemptId, bool>,
    most_alive: usize,
    made: usize,
    answers: VecDeque<Answer>,
}

/// The test's side of a [`SimProvider`].
#[derive(Debug)]
pub struct SimMachines {
    table: Arc<Mutex<Table>>,
    asked: mpsc::UnboundedReceiver<MachineSpec>,
}

impl SimProvider {
    /// A provider, and the test's side of it.
    pub fn new() -> (Self, SimMachines) {
        let (sender, asked) = mpsc::unbounded_channel();
        let table = Arc::default();
        (Self { table: Arc::clone(&table), asked: sender }, SimMachines { table, asked })
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
        let mut table = lock(&self.table);
        table.scripted("create")?;
        if table.alive.insert(spec.attempt, true).is_none() {
            table.made += 1;
            table.most_alive = table.most_alive.max(table.alive.len());
            // A test that waits for no machine has dropped the other side.
            let _ = self.asked.send(spec.clone());
        }
        Ok(Machine { attempt: spec.attempt, alive: true, notes: Vec::new() })
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        let mut table = lock(&self.table);
        table.scripted("destroy")?;
        table.alive.remove(&attempt);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        let table = lock(&self.table);
        let machine = |(&attempt, &alive): (&AttemptId, &bool)| Machine { attempt, alive, notes: Vec::new() };
        Ok(table.alive.iter().map(machine).collect())
    }
}

impl Table {
    fn scripted(&mut self, call: &'static str) -> Result<(), ProviderError> {
        match self.answers.pop_front() {
            None => Ok(()),
            Some(Answer::Refused(reason)) => {
                Err(ProviderError::Refused { provider: "sim", reason, source: None })
            }
            Some(Answer::Unclear) => Err(ProviderError::Unclear { call, source: "scripted".into() }),
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimMachines {
    /// Waits for the next machine that is asked for.
    pub async fn next(&mut self) -> SimMachine {
        let spec = self.asked.recv().await.expect("the provider is there");
        SimMachine { spec, table: Arc::clone(&self.table) }
    }

    /// The next calls get these answers.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.table).answers.extend(answers);
    }

    /// Puts a machine there that nobody asked for.
    pub fn plant(&self, attempt: AttemptId) {
        lock(&self.table).alive.insert(attempt, true);
    }

    /// How many machines there are, dead ones too.
    pub fn left(&self) -> usize {
        lock(&self.table).alive.len()
    }

    /// The most machines that there ever were at once.
    pub fn most(&self) -> usize {
        lock(&self.table).most_alive
    }

    /// How many machines were made.
    pub fn made(&self) -> usize {
        lock(&self.table).made
    }
}

/// A machine that was asked for.
#[derive(Debug)]
pub struct SimMachine {
    /// What it was made from.
    pub spec: MachineSpec,
    table: Arc<Mutex<Table>>,
}

impl SimMachine {
    /// The machine dies; what is left of it stays until it is destroyed.
    pub fn vanish(&self) {
        if let Some(alive) = lock(&self.table).alive.get_mut(&self.spec.attempt) {
            *alive = false;
        }
    }

    /// What its worker says first, with a secret of its own.
    pub fn hello(&self, link: &str) -> Hello {
        Hello {
            protocol: PROTOCOL,
            attempt: self.spec.attempt.to_string(),
            ticket: Secret::from(self.spec.ticket.expose_secret().to_owned()),
            link: Secret::from(format!("{link:0>32}")),
        }
    }

    /// Its worker dials in.
    pub async fn boot(&self, engine: &Engine) -> SimWorker {
        self.dial(engine).await.expect("the worker is let in")
    }

    /// Its worker dials in, or is not let in.
    pub async fn dial(&self, engine: &Engine) -> Result<SimWorker, JoinError> {
        let session = engine.join(self.hello("a worker")).await?;
        let Down::Welcome { stored, .. } = session.welcome() else { panic!("no welcome") };
        Ok(SimWorker { session, last: stored })
    }
}

/// A worker that a test plays.
#[derive(Debug)]
pub struct SimWorker {
    session: Session,
    last: u64,
}

impl SimWorker {
    /// `claude` says a line.
    pub async fn says(&mut self, line: &str) {
        let record = self.record(Source::Claude, Bytes::copy_from_slice(line.as_bytes()));
        self.sends(vec![record]).await.expect("stored");
    }

    /// The worker reports.
    pub async fn reports(&mut self, report: &Report) {
        let record = self.record(Source::Report, serde_json::to_vec(report).expect("JSON").into());
        self.sends(vec![record]).await.expect("stored");
    }

    /// `claude` is started, and runs as it was asked to.
    pub async fn starts(&mut self) {
        self.reports(&Report::Started).await;
        self.reports(&Report::Ready { version: "1".to_owned(), model: "m".to_owned() }).await;
    }

    /// `claude` is over.
    pub async fn ends(&mut self, outcome: &str, detail: Option<&str>) {
        let detail = detail.map(str::to_owned);
        self.reports(&Report::Ended { outcome: outcome.to_owned(), detail }).await;
    }

    /// The work is handed over.
    pub async fn collected(&mut self) {
        self.reports(&Report::Collected(Collected::default())).await;
    }

    /// A whole run that ends well.
    pub async fn succeeds(mut self) {
        self.starts().await;
        self.says(r#"{"type":"result"}"#).await;
        self.ends("succeeded", None).await;
        self.collected().await;
    }

    /// Sends records as they are.
    pub async fn sends(&self, records: Vec<Record>) -> Result<u64, IngestError> {
        self.session.ingest(records).await
    }

    /// The next record, numbered.
    pub fn record(&mut self, source: Source, bytes: Bytes) -> Record {
        self.last += 1;
        Record { number: self.last, at_ms: 1_767_225_600_000, source, end: End::Newline, bytes }
    }

    /// Waits for what it is told next.
    pub async fn hears(&mut self) -> Down {
        self.session.next().await
    }

    /// The answer to its hello.
    pub fn welcome(&self) -> Down {
        self.session.welcome()
    }
}
