//! What can be asked of the store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::host::Rule;
use mayfly_core::{Attempt, AttemptId, Effect, Event, Policy, TaskId, TaskState};
use mayfly_failpoint::failpoint;
use mayfly_wire::api::{Collected, CreateTask};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::Record;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::watch;

use crate::change::{Change, Changed, apply, effect_of, effect_parts, find};
use crate::checkpoints::Checkpoints;
use crate::desk::Desk;
use crate::egress;
use crate::error::{StoreError, corrupt};
use crate::ingest::{IngestError, IngestRules, Ingested, ingest, keep_result, look};
use crate::locks;
use crate::log::Log;
use crate::pool::{self, Whose};
use crate::prune::{self, Named};
use crate::read::{self, FeedChunk, LogError, Run};
use crate::readers::Readers;
use crate::row::{self, ATTEMPT_COLUMNS, AttemptRow, Resumed, TASK_COLUMNS, TaskRow};
use crate::schema;
use crate::tail::Tail;
use crate::usage::{self, AttemptUsage, Used};
use crate::writer::Writer;

/// The states that own a machine: spelled out, so that the index finds them among many tasks that are over.
const LIVE: &str = "('launching', 'running', 'collecting', 'releasing')";

/// How much of a prompt is in a listing.
const LISTED_PROMPT_CHARS: u32 = 1000;

/// A task to be stored.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// What was asked for; the credential in it is not stored.
    pub spec: CreateTask,
    /// Whose credential it uses.
    pub credential: Whose,
    /// Where its machines may go: what the spec says of it, read.
    pub rules: Vec<Rule>,
    /// What it runs with of the library.
    pub lock: Option<NewLock>,
    /// What is told of that in its log.
    pub told: Vec<MayflyEvent>,
    /// What it goes on with.
    pub resumes: Option<Resumed>,
    /// The same key with the same task gives the task that is there already.
    pub idempotency_key: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What a task runs with of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLock {
    /// The SHA-256 of `json`, in hex.
    pub sha256: String,
    /// The lock.
    pub json: String,
}

/// An effect that was performed.
#[derive(Debug)]
pub struct Performed {
    /// Whose it is.
    pub task: TaskId,
    /// The effect, to be forgotten.
    pub effect: Effect,
    /// When.
    pub at: Timestamp,
    /// What the owner should know; told once, however often the effect is performed.
    pub notes: Vec<MayflyEvent>,
    /// The step that it leads to.
    pub next: Option<Change>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    /// Only those in the state with this name.
    pub state: Option<&'static str>,
    /// Only those older than this one.
    pub before: Option<TaskId>,
    /// How many.
    pub most: u32,
}

/// What became of a new task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It is stored.
    New(TaskId),
    /// Its idempotency key was there already, with this task.
    Known(TaskId),
}

/// Whether a worker may speak for an attempt.
#[derive(Debug, Clone)]
pub enum Bound {
    /// It may: the attempt and its task as they stand.
    Here(Box<(TaskRow, AttemptRow)>),
    /// The ticket was used with another link.
    Spent,
    /// The attempt is not, or no longer, the task's own.
    Over,
}

/// The file, open.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) writer: Writer,
    pub(crate) readers: Readers,
    tail: Tail,
    head: watch::Receiver<u64>,
    id: [u8; 16],
}

impl Store {
    /// Opens the database at `path`, and makes it if it is not there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_at(path, false)
    }

    /// The same without any thread: for a simulation, in which one seed is one order of all that happens. Whatever is
    /// asked of it is done by the runtime that it is asked on.
    pub fn open_in_place(path: &Path) -> Result<Self, StoreError> {
        Self::open_at(path, true)
    }

    fn open_at(path: &Path, in_place: bool) -> Result<Self, StoreError> {
        let connection = schema::open(path)?;
        let (id, newest) = (read::store_id(&connection)?, watch::Sender::new(read::head(&connection)?));
        let head = newest.subscribe();
        let tail = Tail::default();
        let writer = if in_place {
            Writer::in_place(connection, newest, tail.clone())
        } else {
            let checkpoints = Checkpoints::start(schema::connect(path)?);
            Writer::start(connection, newest, tail.clone(), checkpoints)
        };
        Ok(Self { writer, readers: Readers::open(path, in_place)?, tail, head, id })
    }

    /// Whether [`open`](Self::open) would take the file at `path`, in the same words. One that is not there is
    /// taken, and not made; nothing is written. Gives how many tasks in it are not over. For a file that nobody has
    /// open.
    pub fn look(path: &Path) -> Result<usize, StoreError> {
        schema::look(path)
    }

    /// Reads the whole file for damage, which takes as long as the logs are; `false` if `time` was not long enough.
    /// Nothing is written. For a file that is there and that nobody has open.
    pub fn examine(path: &Path, time: Duration) -> Result<bool, StoreError> {
        schema::examine(path, time)
    }

    /// Stores a task; when this returns, it is durable.
    pub async fn submit(&self, mut new: NewTask) -> Result<Submitted, StoreError> {
        new.spec.credential = None;
        self.writer.run(move |connection| submit(connection, &new)).await
    }

    /// The task that was submitted with this idempotency key, which is to have been the same.
    ///
    /// # Errors
    /// [`StoreError::KeyConflict`], if it was another.
    pub async fn submitted(
        &self,
        key: String,
        spec: &CreateTask,
        resumes: Option<TaskId>,
    ) -> Result<Option<TaskId>, StoreError> {
        let spec = CreateTask { credential: None, ..spec.clone() };
        let spec = serde_json::to_string(&spec).map_err(corrupt)?;
        self.readers.read(move |connection| known(connection, &key, &spec, resumes)).await
    }

    /// Gives a machine to the waiting task whose turn it is, if one more is allowed: of those that are due, the one of
    /// the highest priority, of several the oldest.
    pub async fn claim(
        &self,
        policy: Policy,
        provider: &'static str,
        at: Timestamp,
    ) -> Result<Option<Changed>, StoreError> {
        let change = Change { event: Event::Claimed, at, detail: None, provider, policy };
        self.writer.run(move |connection| claim(connection, &change)).await
    }

    /// When the first of the tasks that are put off is due, of those that are not yet at `at`.
    pub async fn next_due(&self, at: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.readers
            .read(move |connection| {
                let sql = "SELECT min(due_ms) FROM tasks WHERE due_ms > ?1";
                let first: Option<i64> =
                    connection.prepare_cached(sql)?.query_row([at.as_millisecond()], |row| row.get(0))?;
                first.map(row::time).transpose()
            })
            .await
    }

    /// Takes one step of a task, in the order of these calls. `None`: it changes nothing.
    pub fn apply(
        &self,
        task: TaskId,
        change: Change,
    ) -> impl Future<Output = Result<Option<Changed>, StoreError>> + Send + use<> {
        self.writer.begin(move |desk| apply(desk, task, &change), |_| ())
    }

    /// Forgets an effect that was performed, and takes the step that it leads to, in one.
    pub async fn performed(&self, performed: Performed) -> Result<Option<Changed>, StoreError> {
        self.writer.run(move |connection| forget_effect(connection, &performed)).await
    }

    /// Returns once all that was asked for before is on the disk or failed, though nobody waited for it.
    pub async fn settled(&self) -> Result<(), StoreError> {
        self.writer.run(|_| Ok(())).await
    }

    /// Stores what a machine says, in the order of these calls, whenever their answers are waited for. `stored` hears
    /// of it first, where it was written: who waits to read it is a thread nearer.
    pub fn ingest<F: FnOnce(&Ingested) + Send + 'static>(
        &self,
        attempt: AttemptId,
        records: Vec<Record>,
        at: Timestamp,
        rules: IngestRules,
        stored: F,
    ) -> impl Future<Output = Result<Ingested, IngestError>> + Send + use<F> {
        // Looked at here, so that the one thread that writes has less to do.
        let seen: Vec<_> = records.iter().map(|record| look(record, &rules.redactor)).collect();
        let command = move |desk: &Desk<'_>| ingest(desk, attempt, records.iter().zip(seen), at, &rules);
        self.writer.begin(command, stored)
    }

    /// Adds to what an attempt has used of a model API, in the order of these calls; gives all of it.
    pub fn use_up(
        &self,
        attempt: AttemptId,
        used: Used,
    ) -> impl Future<Output = Result<AttemptUsage, StoreError>> + Send + use<> {
        self.writer.begin(move |desk| usage::add(desk, attempt, &used), |_| ())
    }

    /// The same of several tasks, in their order.
    pub async fn usages(&self, tasks: Vec<TaskId>) -> Result<Vec<Vec<AttemptUsage>>, StoreError> {
        let all = move |connection: &Connection| {
            tasks.iter().map(|&task| usage::of_task(connection, task)).collect()
        };
        self.readers.read(all).await
    }

    /// What each attempt of a task has used of a model API.
    pub async fn usage(&self, task: TaskId) -> Result<Vec<AttemptUsage>, StoreError> {
        self.readers.read(move |connection| usage::of_task(connection, task)).await
    }

    /// Appends an event of mayfly's own, while the attempt is the task's own: nothing follows a task's end.
    pub async fn tell(
        &self,
        attempt: AttemptId,
        at: Timestamp,
        event: MayflyEvent,
    ) -> Result<(), StoreError> {
        self.writer.run(move |connection| tell(connection, attempt, at, &[event])).await
    }

    /// Stores what came out of an attempt's machine in another way than by its own word, and tells of it: while the
    /// attempt is the task's own. What was masked of it is in `redacted` places.
    pub async fn recovered(
        &self,
        attempt: AttemptId,
        at: Timestamp,
        result: Collected,
        redacted: u32,
    ) -> Result<(), StoreError> {
        self.writer.run(move |connection| recovered(connection, attempt, at, result, redacted)).await
    }

    /// Binds an attempt to the worker that knows the secret with this hash, if it is bound to none.
    pub async fn bind(&self, attempt: AttemptId, link_hash: [u8; 32]) -> Result<Bound, StoreError> {
        self.writer.run(move |connection| bind(connection, attempt, link_hash)).await
    }

    /// Replaces the sealed credential that came with a task, if it is not over.
    pub async fn keep_credential(&self, task: TaskId, sealed: Vec<u8>) -> Result<(), StoreError> {
        self.writer.run(move |connection| keep_credential(connection, task, &sealed)).await
    }

    /// A task.
    pub async fn task(&self, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        self.readers.read(move |connection| find(connection, id)).await
    }

    /// Tasks, newest first; of each prompt only the beginning.
    pub async fn tasks(&self, listing: Listing) -> Result<Vec<TaskRow>, StoreError> {
        let short =
            format!("json_replace(spec, '$.prompt', substr(spec ->> 'prompt', 1, {LISTED_PROMPT_CHARS}))");
        let columns = TASK_COLUMNS.replacen("spec", &short, 1);
        let sql = format!(
            "SELECT {columns} FROM tasks \
             WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3"
        );
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(&sql)?;
                let Listing { state, before, most } = listing;
                let before = before.map(|id| id.to_string());
                statement.query_and_then(params![state, before, most], row::task)?.collect()
            })
            .await
    }

    /// The newest of the tasks whose ids end with these hex digits, at most `most`.
    pub async fn tasks_ending(&self, digits: String, most: u32) -> Result<Vec<TaskId>, StoreError> {
        let sql = "SELECT id FROM tasks WHERE substr(replace(id, '-', ''), -length(?1)) = ?1 \
                   ORDER BY id DESC LIMIT ?2";
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(sql)?;
                let ids = statement.query_and_then(params![digits, most], |row| {
                    row.get::<_, String>(0)?.parse::<TaskId>().map_err(corrupt)
                })?;
                ids.collect()
            })
            .await
    }

    /// Every task that owns a machine, with its attempt.
    pub async fn live(&self) -> Result<Vec<(TaskRow, AttemptRow)>, StoreError> {
        let sql = format!("SELECT {TASK_COLUMNS} FROM tasks WHERE state IN {LIVE} ORDER BY id");
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(&sql)?;
                let tasks: Vec<TaskRow> =
                    statement.query_and_then([], row::task)?.collect::<Result<_, StoreError>>()?;
                let with_attempt = |task: TaskRow| {
                    let attempt =
                        task.state.machine().ok_or_else(|| corrupt("a live task without attempt"))?;
                    Ok((find_attempt(connection, task.id.attempt(attempt))?, task))
                };
                let rows = tasks.into_iter().map(with_attempt).collect::<Result<Vec<_>, StoreError>>()?;
                Ok(rows.into_iter().filter_map(|(attempt, task)| Some((task, attempt?))).collect())
            })
            .await
    }

    /// One attempt.
    pub async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.readers.read(move |connection| find_attempt(connection, id)).await
    }

    /// What came out of the machines of a task, by attempt.
    pub async fn collected(&self, task: TaskId) -> Result<BTreeMap<u32, Collected>, StoreError> {
        self.readers.read(move |connection| find_collected(connection, task)).await
    }

    /// How many tasks are not finished.
    pub async fn unfinished(&self) -> Result<usize, StoreError> {
        self.readers
            .read(|connection| {
                let sql = "SELECT count(*) FROM tasks WHERE state <> 'finished'";
                Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
            })
            .await
    }

    /// How many tasks are in each state that has any, by its name.
    pub async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement =
                    connection.prepare_cached("SELECT state, count(*) FROM tasks GROUP BY state")?;
                let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(counts.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// What is still to be performed, oldest task first.
    pub async fn effects(&self) -> Result<Vec<(TaskId, Effect)>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement =
                    connection.prepare_cached("SELECT task, attempt, kind FROM effects ORDER BY task")?;
                let rows = statement.query_and_then([], |row| {
                    let task: TaskId = row.get::<_, String>(0)?.parse().map_err(corrupt)?;
                    Ok((task, effect_of(&row.get::<_, String>(2)?, Attempt(row.get(1)?))?))
                })?;
                rows.collect()
            })
            .await
    }

    /// A task's events after `after`: at least one if there is one, and no more once they take `bytes_max` bytes, but
    /// for one run. `None`: there is none after it.
    pub async fn log(&self, task: TaskId, after: u64, bytes_max: usize) -> Result<Option<Run>, LogError> {
        if let Some(run) = self.tail.log(task, after) {
            return Ok(Some(run));
        }
        self.readers.read(move |connection| read::log(connection, task, after, bytes_max)).await
    }

    /// Whether all of a task's log after `after` is still kept.
    pub async fn check_kept(&self, task: TaskId, after: u64) -> Result<(), LogError> {
        self.readers.read(move |connection| read::check_kept(connection, task, after)).await
    }

    /// What all tasks said after the position `after`, in the order of their commits: no more once it takes
    /// `bytes_max` bytes, but one run.
    pub async fn feed(&self, after: u64, bytes_max: usize) -> Result<FeedChunk, StoreError> {
        if let Some(chunk) = self.tail.feed(after, *self.head.borrow()) {
            return Ok(chunk);
        }
        self.readers.read(move |connection| read::feed(connection, after, bytes_max)).await
    }

    /// Tasks that were over before `before` and of which something is kept, the oldest first, at most `most`.
    pub async fn expired(&self, before: Timestamp, most: u32) -> Result<Vec<TaskId>, StoreError> {
        self.readers.read(move |connection| prune::expired(connection, before, most)).await
    }

    /// Marks a task that is over: its log and its result count as gone from here on. `false`: another task goes on with it,
    /// of which something is kept.
    pub async fn begin_to_prune(&self, task: TaskId) -> Result<bool, StoreError> {
        self.writer.run(move |connection| prune::begin(connection, task)).await
    }

    /// Takes away a piece of a marked task's log, so small that nobody waits for it. Whether some is left.
    pub async fn prune_step(&self, task: TaskId) -> Result<bool, StoreError> {
        let left = self.writer.run(move |connection| prune::step(connection, task)).await?;
        self.tail.forget(task);
        Ok(left)
    }

    /// The ids of the workspaces that the tasks name of which something is kept.
    pub async fn workspaces(&self) -> Result<Vec<String>, StoreError> {
        self.readers.read(prune::workspaces).await
    }

    /// The locks that no task names of which something is kept: each with its JSON, at most `most`.
    pub async fn unnamed_locks(&self, most: u32) -> Result<Vec<(String, String)>, StoreError> {
        self.readers.read(move |connection| prune::unnamed_locks(connection, most)).await
    }

    /// Takes a lock away, unless a task names it by now.
    pub async fn forget_lock(&self, sha256: String) -> Result<(), StoreError> {
        self.writer.run(move |connection| prune::forget_lock(connection, &sha256)).await
    }

    /// What the locks that are kept name.
    pub async fn named_by_locks(&self) -> Result<Named, StoreError> {
        self.readers.read(prune::named).await
    }

    /// The position of the newest event, now and whenever there is another.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Which store this is: positions of one mean nothing in another.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }
}

/// The task that was submitted with this key, which is to have been the same.
fn known(
    connection: &Connection,
    key: &str,
    spec: &str,
    resumes: Option<TaskId>,
) -> Result<Option<TaskId>, StoreError> {
    let sql = "SELECT id, spec = ?2 AND resumes IS ?3 FROM tasks WHERE idempotency_key = ?1";
    let values = params![key, spec, resumes.map(|task| task.to_string())];
    let known = connection
        .prepare_cached(sql)?
        .query_row(values, |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)));
    match known.optional()? {
        Some((id, true)) => Ok(Some(id.parse().map_err(corrupt)?)),
        Some((_, false)) => Err(StoreError::KeyConflict),
        None => Ok(None),
    }
}

fn submit(connection: &Desk<'_>, new: &NewTask) -> Result<Submitted, StoreError> {
    let spec = serde_json::to_string(&new.spec).map_err(corrupt)?;
    if let Some(key) = &new.idempotency_key
        && let Some(id) = known(connection, key, &spec, new.resumes.as_ref().map(|resumed| resumed.task))?
    {
        return Ok(Submitted::Known(id));
    }
    if let Some(Resumed { task, .. }) = &new.resumes {
        prune::check_kept(connection, *task)?;
    }
    let pooled = pool::choose(connection, &new.credential)?;
    let state = TaskState::NEW;
    let sql = "INSERT INTO tasks (id, spec, idempotency_key, state, attempt, created_ms, priority, pooled, lock, \
               resumes, session) VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10)";
    let (id, at) = (new.id.to_string(), new.at.as_millisecond());
    let lock = new.lock.as_ref().map(|lock| &lock.sha256);
    let resumes = new.resumes.as_ref().map(|resumed| resumed.task.to_string());
    let session = new.resumes.as_ref().and_then(|resumed| resumed.session.as_ref());
    let (key, priority) = (&new.idempotency_key, new.spec.priority);
    let values = params![id, spec, key, state.name(), at, priority, pooled, lock, resumes, session];
    connection.prepare_cached(sql)?.execute(values)?;
    if let Whose::Own(sealed) = &new.credential {
        keep_credential(connection, new.id, sealed)?;
    }
    egress::keep_rules(connection, new.id, &new.rules, new.at)?;
    let mut log = Log::open(connection, new.id, 0);
    log.mayfly(0, new.at, &MayflyEvent::Queued)?;
    if let Some(task) = resumes {
        log.mayfly(0, new.at, &MayflyEvent::Resumes { task })?;
    }
    if let Some(lock) = &new.lock {
        locks::keep(connection, &lock.sha256, &lock.json)?;
    }
    for event in &new.told {
        log.mayfly(0, new.at, event)?;
    }
    log.close()?;
    failpoint("submit-uncommitted");
    Ok(Submitted::New(new.id))
}

fn keep_credential(connection: &Connection, task: TaskId, sealed: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO credentials (task, sealed) \
               SELECT id, ?2 FROM tasks WHERE id = ?1 AND state <> 'finished'";
    connection.prepare_cached(sql)?.execute(params![task.to_string(), sealed])?;
    Ok(())
}

fn forget_effect(connection: &Desk<'_>, performed: &Performed) -> Result<Option<Changed>, StoreError> {
    let Performed { task, effect, at, notes, next } = performed;
    let (kind, attempt) = effect_parts(*effect);
    let sql = "DELETE FROM effects WHERE task = ?1 AND attempt = ?2 AND kind = ?3";
    let forgotten = connection.prepare_cached(sql)?.execute(params![task.to_string(), attempt.0, kind])?;
    if forgotten > 0 {
        tell(connection, task.attempt(attempt), *at, notes)?;
    }
    let changed = next.as_ref().map_or(Ok(None), |change| apply(connection, *task, change))?;
    failpoint("forget-uncommitted");
    Ok(changed)
}

pub(crate) fn tell(
    connection: &Desk<'_>,
    attempt: AttemptId,
    at: Timestamp,
    events: &[MayflyEvent],
) -> Result<(), StoreError> {
    let task = find(connection, attempt.task)?.filter(|task| task.state.machine() == Some(attempt.attempt));
    let Some(task) = task else { return Ok(()) };
    let mut log = Log::open(connection, attempt.task, task.last_seq);
    for event in events {
        log.mayfly(attempt.attempt.0, at, event)?;
    }
    log.close().map(drop)
}

fn recovered(
    connection: &Desk<'_>,
    attempt: AttemptId,
    at: Timestamp,
    result: Collected,
    redacted: u32,
) -> Result<(), StoreError> {
    let task = find(connection, attempt.task)?.filter(|task| task.state.machine() == Some(attempt.attempt));
    let Some(task) = task else { return Ok(()) };
    let mut log = Log::open(connection, attempt.task, task.last_seq);
    keep_result(connection, &mut log, attempt, at, result, redacted)?;
    log.close()?;
    failpoint("recover-uncommitted");
    Ok(())
}

fn claim(connection: &Desk<'_>, change: &Change) -> Result<Option<Changed>, StoreError> {
    let sql = format!("SELECT count(*) FROM tasks WHERE state IN {LIVE}");
    let alive: u32 = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    if !change.policy.admits(alive) {
        return Ok(None);
    }
    let sql = "SELECT id FROM tasks WHERE state = 'queued' AND (due_ms IS NULL OR due_ms <= ?1) \
               ORDER BY priority DESC, id LIMIT 1";
    let id = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let next = connection.prepare_cached(sql)?.query_row([change.at.as_millisecond()], id).optional()?;
    let Some(id) = next else { return Ok(None) };
    let claimed = apply(connection, id.parse().map_err(corrupt)?, change)?;
    failpoint("claim-uncommitted");
    Ok(claimed)
}

fn bind(connection: &Connection, id: AttemptId, link_hash: [u8; 32]) -> Result<Bound, StoreError> {
    let (Some(task), Some(attempt)) = (find(connection, id.task)?, find_attempt(connection, id)?) else {
        return Ok(Bound::Over);
    };
    let live = matches!(task.state, TaskState::Launching(a) | TaskState::Running(a, _) | TaskState::Collecting(a, _) if a == id.attempt);
    if !live {
        return Ok(Bound::Over);
    }
    let key = params![id.task.to_string(), id.attempt.0, link_hash];
    let sql = "UPDATE attempts SET link_hash = ?3 \
               WHERE task = ?1 AND attempt = ?2 AND coalesce(link_hash, ?3) = ?3";
    match connection.prepare_cached(sql)?.execute(key)? {
        0 => Ok(Bound::Spent),
        _ => Ok(Bound::Here(Box::new((task, attempt)))),
    }
}

fn find_collected(connection: &Connection, task: TaskId) -> Result<BTreeMap<u32, Collected>, StoreError> {
    let sql = "SELECT attempt, result FROM attempts WHERE task = ?1 AND result IS NOT NULL";
    let mut attempts = connection.prepare_cached(sql)?;
    let rows = attempts.query_map([task.to_string()], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (attempt, json) = row?;
        Ok((attempt, serde_json::from_str(&json).map_err(corrupt)?))
    })
    .collect()
}

fn find_attempt(connection: &Connection, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
    let sql = format!("SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE task = ?1 AND attempt = ?2");
    let key = params![id.task.to_string(), id.attempt.0];
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row(key, |row| Ok(row::attempt(row))).optional()?.transpose()
}
