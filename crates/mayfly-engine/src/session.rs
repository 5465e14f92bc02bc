//! The link of one worker.
//!
//! A worker says hello with its ticket and a secret that it made up; the first hello binds the ticket to that
//! secret, so a ticket seen elsewhere opens nothing. A worker that dials again gets a new session, and the older
//! one is fenced: it ends, and what it still says is stored once or not at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mayfly_core::{AttemptId, Event, TaskId, TaskState};
use mayfly_failpoint::failpoint;
use mayfly_store::{AttemptRow, Bound, IngestError, IngestRules, Ingested, StoreError, TaskRow};
use mayfly_wire::api::{Credential, CredentialMode, Setup};
use mayfly_wire::worker::{BadHello, Down, Handed, Hello, OrderedWorkspace, PROTOCOL, Record, WorkOrder};
use tokio::sync::watch;
use uuid::Uuid;

use crate::engine::Engine;
use crate::heads::{Follow, Head};
use crate::token::{Route, hash};

/// The shortest secret that a worker may make up, in bytes.
const LINK_BYTES_MIN: usize = 16;

/// Why a worker was not let in. The words go to the worker, and say nothing about other tasks.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It speaks another version, or not at all.
    #[error(transparent)]
    Hello(#[from] BadHello),
    /// Its ticket is not the attempt's.
    #[error("the ticket does not belong to this attempt")]
    Ticket,
    /// Its ticket was used by another worker.
    #[error("the ticket is spent")]
    Spent,
    /// The attempt is over.
    #[error("the attempt is over")]
    Over,
    /// The store failed.
    #[error("the orchestrator cannot store anything now")]
    Store(#[from] StoreError),
}

/// Which attempts have a link, and whose turn it is at a machine.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Each attempt's open link.
    open: Mutex<HashMap<AttemptId, watch::Sender<Option<Link>>>>,
    last: AtomicU64,
    turns: Mutex<HashMap<AttemptId, Arc<Turn>>>,
}

/// The turn at one machine: making and unmaking it wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    at_it: tokio::sync::Mutex<()>,
    trouble: Mutex<Option<String>>,
}

impl Turn {
    pub(crate) async fn lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.at_it.lock().await
    }

    /// Notes why the machine is not made yet, or that nothing is wrong; gives what was known before.
    pub(crate) fn note_trouble(&self, why: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.trouble(), why)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    number: u64,
    /// When it was opened.
    pub(crate) since: Timestamp,
}

impl Links {
    /// The turn at an attempt's machine.
    pub(crate) fn turn(&self, attempt: AttemptId) -> Arc<Turn> {
        let mut turns = self.turns();
        turns.retain(|id, turn| *id == attempt || Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(attempt).or_default())
    }

    /// Why an attempt's machine is not made yet, as far as it is known.
    pub(crate) fn trouble(&self, attempt: AttemptId) -> Option<String> {
        self.turns().get(&attempt)?.trouble().clone()
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<AttemptId, Arc<Turn>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt's open link, now and whenever it changes.
    pub(crate) fn presence(&self, attempt: AttemptId) -> watch::Receiver<Option<Link>> {
        let mut open = self.open();
        open.retain(|_, sender| sender.receiver_count() > 0);
        open.entry(attempt).or_default().subscribe()
    }

    /// Makes a link the newest of its attempt, and fences the one before.
    fn open_link(&self, attempt: AttemptId, since: Timestamp) -> (u64, watch::Receiver<Option<Link>>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let receiver = self.presence(attempt);
        if let Some(sender) = self.open().get(&attempt) {
            sender.send_replace(Some(Link { number, since }));
        }
        (number, receiver)
    }

    /// Closes a link, if no newer one has taken over.
    fn close_link(&self, attempt: AttemptId, number: u64) {
        if let Some(sender) = self.open().get(&attempt) {
            sender.send_if_modified(|open| open.take_if(|open| open.number == number).is_some());
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<AttemptId, watch::Sender<Option<Link>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a link is still the newest of its attempt. Dropped, the link is gone.
#[derive(Debug)]
struct Fence {
    engine: Engine,
    attempt: AttemptId,
    number: u64,
    receiver: watch::Receiver<Option<Link>>,
}

impl Fence {
    fn raise(engine: &Engine, attempt: AttemptId) -> Self {
        let (number, receiver) = engine.0.links.open_link(attempt, engine.0.clock.now());
        Self { engine: engine.clone(), attempt, number, receiver }
    }

    fn is_open(&self) -> bool {
        self.receiver.borrow().is_some_and(|open| open.number == self.number)
    }

    async fn closed(&mut self) {
        let number = self.number;
        // The sender lives as long as there is a receiver.
        let _ = self.receiver.wait_for(|open| open.is_none_or(|open| open.number != number)).await;
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.engine.0.links.close_link(self.attempt, self.number);
    }
}

/// A worker's link. Dropped, the engine asks the provider whether the machine still lives.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    attempt: AttemptId,
    fence: Fence,
    follow: Follow,
    told_to_collect: bool,
    welcome: Down,
}

impl Engine {
    /// Lets a worker in; whoever is not let in is counted.
    pub async fn join(&self, hello: Hello) -> Result<Session, JoinError> {
        let joined = self.admit(hello).await;
        if let Err(error) = &joined
            && !matches!(error, JoinError::Store(_))
        {
            self.0.metrics.refused(error);
        }
        joined
    }

    async fn admit(&self, hello: Hello) -> Result<Session, JoinError> {
        if hello.protocol != PROTOCOL {
            return Err(BadHello::Protocol(hello.protocol).into());
        }
        let attempt = self.0.tokens.check(Route::Ticket, hello.ticket.expose()).ok_or(JoinError::Ticket)?;
        if attempt.to_string() != hello.attempt || hello.link.expose().len() < LINK_BYTES_MIN {
            return Err(JoinError::Ticket);
        }
        let (engine, link) = (self.clone(), hash(&hello.link));
        self.whole(async move { engine.let_in(attempt, link).await }).await
    }

    async fn let_in(&self, attempt: AttemptId, link: [u8; 32]) -> Result<Session, JoinError> {
        let (task, row) = match self.0.store.bind(attempt, link).await? {
            Bound::Here(here) => *here,
            Bound::Spent => return Err(JoinError::Spent),
            Bound::Over => return Err(JoinError::Over),
        };
        failpoint("join-bound");
        // Before it says anything: what it says must not show its credential, also if it never asks for it.
        let handed = self.handed(attempt.task).await?;
        let library = self.ordered_library(attempt, &task.spec).await?;
        let resume = self.ordered_resume(&task).await?;
        let fence = Fence::raise(self, attempt);
        if self.step(attempt.task, Event::Joined(attempt.attempt), None).await? {
            self.0.metrics.launched(row.launched, self.0.clock.now());
            self.watch_absence(attempt);
        } else {
            self.0.metrics.reconnects.inc();
        }
        let follow = self.follow(attempt.task).await?.ok_or(JoinError::Over)?;
        let welcome = Down::Welcome {
            protocol: PROTOCOL,
            stored: row.stored,
            order: Box::new(WorkOrder { library, resume, ..self.order(&task, &row, handed) }),
        };
        Ok(Session { engine: self.clone(), attempt, fence, follow, told_to_collect: false, welcome })
    }

    /// Stores records behind those of earlier calls; what follows from them is done whoever waits for the answer.
    fn store_records(
        &self,
        attempt: AttemptId,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<u64, IngestError>> + Send + use<> {
        let (provider, policy) = (self.0.provider.name(), self.0.config.rules.policy);
        let rules = IngestRules { provider, policy, redactor: self.0.config.secrets.redactor() };
        let said = records.last().and_then(said_at);
        let heads = self.0.heads.clone();
        let raise = move |ingested: &Ingested| {
            let Ingested { last_seq, state, ready, .. } = *ingested;
            heads.raise(attempt.task, Head { last_seq, state, ready });
        };
        let storing = self.0.store.ingest(attempt, records, self.0.clock.now(), rules, raise);
        let engine = self.clone();
        self.whole(async move {
            let ingested = storing.await?;
            failpoint("ingest-committed");
            let inner = &engine.0;
            inner.metrics.stored(ingested.new, said.filter(|_| ingested.new > 0), inner.clock.now());
            for changed in &ingested.changed {
                engine.follow_up(changed);
            }
            Ok(ingested.stored)
        })
    }

    /// What of the credential the machine gets: nothing, unless its owner has said so. Where there is none now, the
    /// gateway says so to `claude`.
    async fn handed(&self, task: TaskId) -> Result<Option<Handed>, StoreError> {
        let Ok(Credential { kind, secret, mode, .. }) = self.credential(task).await? else { return Ok(None) };
        Ok(match mode {
            CredentialMode::Broker => None,
            CredentialMode::Inject => Some(Handed { kind, secret, by_descriptor: false }),
            CredentialMode::InjectDescriptor => Some(Handed { kind, secret, by_descriptor: true }),
        })
    }

    fn order(&self, task: &TaskRow, attempt: &AttemptRow, credential: Option<Handed>) -> WorkOrder {
        let (config, spec) = (&self.0.config, &task.spec);
        let milliseconds = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        WorkOrder {
            prompt: spec.prompt.clone(),
            workspace: spec.workspace.as_ref().map(|workspace| OrderedWorkspace {
                name: workspace.name.clone(),
                base: workspace.base.clone(),
            }),
            model: spec.model.clone().unwrap_or_else(|| config.rules.model.clone()),
            session_id: session_id(attempt.id).to_string(),
            max_turns: spec.max_turns,
            max_budget_usd: spec.max_budget_usd,
            // Where the user has the repository is no business of a machine's.
            setup: spec.setup.clone().map(|setup| Setup { repository: None, ..setup }),
            trust_repo: spec.trust_repo,
            resume: None,
            library: None,
            artifacts: spec.artifacts.clone(),
            claude_version: config.rules.claude_version.clone(),
            credential,
            model_token: self.0.tokens.mint(Route::Model, attempt.id),
            result_token: self.0.tokens.mint(Route::Result, attempt.id),
            egress_token: Some(self.0.tokens.mint(Route::Egress, attempt.id)),
            collect_ms_max: milliseconds(config.rules.collect_max),
            orphan_after_ms: milliseconds(config.rules.orphan_after),
            log_bytes_max: Some(config.rules.policy.log_bytes_max),
        }
    }
}

/// When a machine says that it said something.
fn said_at(record: &Record) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(record.at_ms).ok()?).ok()
}

/// The CLI's session of an attempt: the same whenever it is asked for, another for each attempt.
pub(crate) fn session_id(attempt: AttemptId) -> Uuid {
    Uuid::from_u128(attempt.task.uuid().as_u128() ^ u128::from(attempt.attempt.0) << 64)
}

impl Session {
    /// Whose link it is.
    pub fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// The answer to the hello.
    pub fn welcome(&self) -> Down {
        self.welcome.clone()
    }

    /// Stores a frame of records, behind those of earlier calls; the number returned can be acknowledged. After an
    /// error the link is of no more use.
    pub fn ingest(
        &self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<u64, IngestError>> + Send + use<> {
        let storing = self.fence.is_open().then(|| self.engine.store_records(self.attempt, records));
        async move { storing.ok_or(IngestError::Over)?.await }
    }

    /// Waits for the next thing that the worker must be told. `None`: a newer link has taken over, and this one is to
    /// end without a word. The newer one may be a hello that was late, and this one the worker's own: it dials again.
    pub async fn next(&mut self) -> Option<Down> {
        loop {
            if !self.fence.is_open() {
                return None;
            }
            match self.follow.head().state {
                TaskState::Collecting(a, _) if a == self.attempt.attempt && !self.told_to_collect => {
                    self.told_to_collect = true;
                    return Some(Down::Collect);
                }
                TaskState::Launching(a) | TaskState::Running(a, _) | TaskState::Collecting(a, _)
                    if a == self.attempt.attempt => {}
                _ => return Some(Down::Reject { reason: JoinError::Over.to_string() }),
            }
            tokio::select! {
                () = self.follow.changed() => {}
                () = self.fence.closed() => {}
            }
        }
    }
}
