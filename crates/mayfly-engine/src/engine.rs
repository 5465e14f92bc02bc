//! The engine: what it owns, how it starts and stops, and what follows from a change.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::{AnswerBounds, AttemptId, Effect, Event, TaskId, TaskState, causes};
use mayfly_provider::{Provider, ProviderError};
use mayfly_store::{AttemptRow, AttemptUsage, Change, Changed, Listing, Store, StoreError};
use mayfly_wire::api::{self, Collected};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checkpoints::Checkpoints;
use crate::clock::{Clock, after};
use crate::config::EngineConfig;
use crate::doors::Doors;
use crate::heads::{Follow, Head, Heads};
use crate::metrics::Metrics;
use crate::prune::Kept;
use crate::seal::Seal;
use crate::session::Links;
use crate::spend;
use crate::token::Tokens;
use crate::view::view;

/// The most tasks of one listing.
pub const TASKS_MAX: u32 = 1000;
/// The fewest digits that name a task by the end of its id.
const DIGITS_MIN: usize = 4;
/// The most tasks that are named where the end of an id is not enough.
const CANDIDATES_MAX: u32 = 5;
/// How long to wait after the store has failed.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the end of an id names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No task.
    None,
    /// This one.
    One(TaskId),
    /// More than one; these are some of them.
    Several(Vec<TaskId>),
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// The provider cannot say which machines it has.
    #[error("the machines that are left cannot be listed")]
    Provider(#[from] ProviderError),
    /// The folder of the machines' doors cannot be read.
    #[error("the machines' doors that are left cannot be listed")]
    Doors(#[source] std::io::Error),
}

/// A handle to the engine. It runs until [`Engine::stop`].
#[derive(Debug, Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) store: Store,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) doors: Arc<dyn Doors>,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
    pub(crate) clock: Arc<dyn Clock>,
    /// When the engine started: nobody could be heard before.
    pub(crate) started: Timestamp,
    pub(crate) tokens: Tokens,
    pub(crate) heads: Heads,
    pub(crate) links: Links,
    pub(crate) kept: Kept,
    /// Held while the library is changed.
    pub(crate) editing: std::sync::Mutex<()>,
    pub(crate) seal: Seal,
    /// Held from reading the pool until its secrets are known: who read it later is known later.
    pub(crate) knowing: Mutex<()>,
    /// Live attempts whose credential the model API refused.
    pub(crate) refused: std::sync::Mutex<HashSet<AttemptId>>,
    /// By which key a live attempt has asked for what its set-up made before.
    pub(crate) setup_keys: std::sync::Mutex<HashMap<AttemptId, String>>,
    /// How long answers to the agents of tasks may be that run.
    pub(crate) bounds: std::sync::Mutex<HashMap<TaskId, Arc<AnswerBounds>>>,
    pub(crate) metrics: Metrics,
    /// Told whenever a task or a slot is new.
    pub(crate) slots: watch::Sender<()>,
    /// Whether tasks may be claimed; held while one is.
    pub(crate) claiming: Mutex<bool>,
    unfinished: watch::Sender<usize>,
    pub(crate) stopping: CancellationToken,
    tracker: TaskTracker,
}

impl Engine {
    /// Takes up where the last engine on this store ended: machines that nobody owns are destroyed, effects
    /// that were not performed are performed, and live attempts are watched until their workers dial in. Their
    /// doors are open when this returns.
    pub async fn start(
        config: EngineConfig,
        store: Store,
        provider: Arc<dyn Provider>,
        doors: Arc<dyn Doors>,
        checkpoints: Arc<dyn Checkpoints>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let unfinished = watch::Sender::new(store.unfinished().await?);
        let engine = Self(Arc::new(Inner {
            tokens: Tokens::new(config.key),
            seal: Seal::new(&config.key),
            knowing: Mutex::default(),
            refused: std::sync::Mutex::default(),
            setup_keys: std::sync::Mutex::default(),
            bounds: std::sync::Mutex::default(),
            metrics: Metrics::default(),
            config,
            store,
            provider,
            doors,
            checkpoints,
            started: clock.now(),
            clock,
            heads: Heads::default(),
            links: Links::default(),
            kept: Kept::default(),
            editing: std::sync::Mutex::default(),
            slots: watch::Sender::new(()),
            claiming: Mutex::new(true),
            unfinished,
            stopping: CancellationToken::new(),
            tracker: TaskTracker::new(),
        }));
        engine.know_pool().await?;
        engine.take_up_doors().await?;
        engine.reap(engine.strangers().await?);
        let effects = engine.0.store.effects().await?;
        for (task, attempt) in engine.0.store.live().await? {
            engine.watch_limits(attempt.id);
            match task.state {
                TaskState::Running(..) | TaskState::Collecting(..) => engine.watch_absence(attempt.id),
                TaskState::Launching(a) if !effects.contains(&(task.id, Effect::CreateMachine(a))) => {
                    engine.watch_launch(attempt.id);
                }
                _ => {}
            }
        }
        for (task, effect) in effects {
            engine.perform(task, effect);
        }
        engine.schedule();
        engine.prune();
        Ok(engine)
    }

    /// What came out of the machines of a task, by attempt.
    pub async fn collected(&self, id: TaskId) -> Result<BTreeMap<u32, Collected>, StoreError> {
        self.0.store.collected(id).await
    }

    /// A task as it stands.
    pub async fn task(&self, id: TaskId) -> Result<Option<api::Task>, StoreError> {
        let Some(task) = self.0.store.task(id).await? else { return Ok(None) };
        let attempt = match task.state.machine() {
            Some(attempt) => self.0.store.attempt(id.attempt(attempt)).await?,
            None => None,
        };
        let usage = self.0.store.usage(id).await?;
        let task = view(task, attempt.as_ref(), &self.0.config.rules);
        Ok(Some(self.with_usage(task, &usage)))
    }

    /// Tasks, newest first, at most [`TASKS_MAX`].
    pub async fn tasks(&self, listing: Listing) -> Result<Vec<api::Task>, StoreError> {
        let listing = Listing { most: listing.most.min(TASKS_MAX), ..listing };
        let tasks = self.0.store.tasks(listing).await?;
        let live = self.0.store.live().await?;
        let live: HashMap<TaskId, AttemptRow> =
            live.into_iter().map(|(task, attempt)| (task.id, attempt)).collect();
        let usages = self.0.store.usages(tasks.iter().map(|task| task.id).collect()).await?;
        let rules = &self.0.config.rules;
        Ok(tasks
            .into_iter()
            .zip(usages)
            .map(|(task, usage)| {
                let attempt = live.get(&task.id);
                self.with_usage(view(task, attempt, rules), &usage)
            })
            .collect())
    }

    fn with_usage(&self, task: api::Task, usage: &[AttemptUsage]) -> api::Task {
        api::Task { usage: spend::usage(usage, self.0.config.rules.prices.as_ref()), ..task }
    }

    /// The task with this id, or the one whose id ends with these digits.
    pub async fn find(&self, name: &str) -> Result<Found, StoreError> {
        if let Ok(id) = name.parse::<TaskId>() {
            return Ok(self.0.store.task(id).await?.map_or(Found::None, |task| Found::One(task.id)));
        }
        let digits = name.replace('-', "").to_ascii_lowercase();
        if digits.len() < DIGITS_MIN || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Found::None);
        }
        let found = self.0.store.tasks_ending(digits, CANDIDATES_MAX).await?;
        Ok(match found[..] {
            [] => Found::None,
            [one] => Found::One(one),
            _ => Found::Several(found),
        })
    }

    /// Asks for a task's end: with its work, or by `force` without. `None`: there is no such task.
    pub async fn cancel(&self, id: TaskId, force: bool) -> Result<Option<api::Task>, StoreError> {
        let detail = "cancelled by its owner".to_owned();
        match force {
            true => self.insist(id, Event::Aborted, detail).await?,
            false => drop(self.step(id, Event::Cancelled, Some(detail)).await?),
        }
        self.task(id).await
    }

    /// Takes one step that ends a machine's work, also on a full disk: what fills it may be the machine, which then
    /// goes first.
    pub(crate) async fn insist(&self, id: TaskId, event: Event, detail: String) -> Result<(), StoreError> {
        let step = || self.step(id, event, Some(detail.clone()));
        match step().await {
            Err(StoreError::Full(_)) if self.destroy_early(id).await? => step().await.map(drop),
            stepped => stepped.map(drop),
        }
    }

    /// Unmakes the machine of a task before the store knows of its end. Whether there was one, and it is gone.
    async fn destroy_early(&self, id: TaskId) -> Result<bool, StoreError> {
        let machine = self.0.store.task(id).await?.and_then(|task| task.state.machine());
        let Some(attempt) = machine.map(|attempt| id.attempt(attempt)) else { return Ok(false) };
        let turn = self.0.links.turn(attempt);
        let _turn = turn.lock().await;
        Ok(self.0.provider.destroy(attempt).await.is_ok())
    }

    /// Whether what the provider's place calls so can be the attempt's machine.
    pub fn can_be_machine_of(&self, attempt: AttemptId, name: &str) -> bool {
        self.0.provider.can_be_machine_of(attempt, name)
    }

    /// Its time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// How many tasks are not finished.
    pub fn unfinished(&self) -> watch::Receiver<usize> {
        self.0.unfinished.subscribe()
    }

    /// From here on no task is claimed: those that have a machine go on, and the others wait for the next engine.
    pub async fn drain(&self) {
        *self.0.claiming.lock().await = false;
    }

    /// How many tasks have a machine, or are about to.
    pub async fn alive(&self) -> Result<usize, StoreError> {
        Ok(self.0.store.live().await?.len())
    }

    /// Returns once no task has a machine.
    pub async fn drained(&self) -> Result<(), StoreError> {
        // Before the first look, so that no end is missed.
        let mut slots = self.0.slots.subscribe();
        while self.alive().await? > 0 {
            slots.changed().await.expect("the engine has the other end");
        }
        Ok(())
    }

    /// Ends the engine's loops. Machines live on, and the next engine on this store adopts them.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.tracker.close();
        self.0.tracker.wait().await;
        // What was cut off may have been on its way to the disk.
        let _ = self.0.store.settled().await;
    }

    /// Takes one step of a task, and does what follows. Whether it changed anything.
    pub(crate) async fn step(
        &self,
        task: TaskId,
        event: Event,
        detail: Option<String>,
    ) -> Result<bool, StoreError> {
        let engine = self.clone();
        let applying = self.0.store.apply(task, self.change(event, detail));
        self.whole(async move {
            let changed = applying.await?;
            Ok(changed.map(|changed| engine.follow_up(&changed)).is_some())
        })
        .await
    }

    /// A change now, by this engine's rules.
    pub(crate) fn change(&self, event: Event, detail: Option<String>) -> Change {
        let provider = self.0.provider.name();
        Change { event, at: self.0.clock.now(), detail, provider, policy: self.0.config.rules.policy }
    }

    /// Does what follows from a change that is committed.
    pub(crate) fn follow_up(&self, changed: &Changed) {
        let Changed { task, state, effects, last_seq } = changed;
        self.0.heads.raise(*task, Head { last_seq: *last_seq, state: *state, ready: false });
        for &effect in effects {
            if let Effect::CreateMachine(attempt) = effect {
                self.watch_limits(task.attempt(attempt));
            }
            self.perform(*task, effect);
        }
        match state {
            TaskState::Queued(_) => self.0.slots.send_replace(()),
            TaskState::Finished(_) => {
                self.0.config.secrets.set(&task.to_string(), []);
                self.forget();
                self.forget_refused(*task);
                self.forget_setup_keys(*task);
                self.forget_bounds(*task);
                self.0.slots.send_replace(());
            }
            _ => {}
        }
    }

    /// Counts a task that is about to be stored: once it is stored it can be claimed, and can end.
    pub(crate) fn expect(&self) {
        self.0.unfinished.send_modify(|count| *count += 1);
    }

    /// Counts a task no more that is over, or was not stored.
    pub(crate) fn forget(&self) {
        self.0.unfinished.send_modify(|count| *count = count.saturating_sub(1));
    }

    /// Follows a task from its present head. `None`: there is no such task.
    pub(crate) async fn follow(&self, id: TaskId) -> Result<Option<Follow>, StoreError> {
        let follow = self.0.heads.follow(id);
        let Some(task) = self.0.store.task(id).await? else { return Ok(None) };
        let ready = match task.state.machine() {
            Some(attempt) => {
                self.0.store.attempt(id.attempt(attempt)).await?.is_some_and(|attempt| attempt.ready)
            }
            None => false,
        };
        self.0.heads.raise(id, Head { last_seq: task.last_seq, state: task.state, ready });
        Ok(Some(follow))
    }

    /// Runs `work`, from now on, to its end even if the caller is dropped: nobody may leave between a commit and what follows
    /// from it.
    pub(crate) fn whole<T: Send + 'static, W: Future<Output = T> + Send + 'static>(
        &self,
        work: W,
    ) -> impl Future<Output = T> + Send + use<T, W> {
        let working = self.0.tracker.spawn(work);
        async move {
            match working.await {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The process is ending.
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }

    /// Does `work` until the store lets it: a full disk may be emptied. What can never be done is left.
    pub(crate) async fn until_stored<W: Future<Output = Result<(), StoreError>>>(
        &self,
        work: impl Fn() -> W,
    ) {
        while let Err(error) = work().await {
            if matches!(error, StoreError::Corrupt(_) | StoreError::Closed) {
                tracing::error!(error = causes(&error), "the store failed for good");
                return;
            }
            tracing::error!(error = causes(&error), "the store failed, and is asked again");
            self.0.clock.sleep_until(after(self.0.clock.now(), RETRY_AFTER)).await;
        }
    }

    /// Runs `work` beside the others until it ends or the engine stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.0.stopping.clone();
        self.0.tracker.spawn(async move {
            stopping.run_until_cancelled(work).await;
        });
    }
}
