//! How rows read back as values.

use jiff::Timestamp;
use mayfly_core::{After, Attempt, AttemptId, Outcome, Phase, TaskId, TaskState};
use mayfly_wire::api::{Collected, CreateTask};
use mayfly_wire::event::EventSource;
use mayfly_wire::worker::End;
use rusqlite::Row;

use crate::error::{StoreError, corrupt};
use crate::log::Said;

/// A task as stored.
#[derive(Debug, Clone)]
pub struct TaskRow {
    /// Its id.
    pub id: TaskId,
    /// What was asked for, without the credential.
    pub spec: CreateTask,
    /// Where it stands.
    pub state: TaskState,
    /// The current, next or last attempt; 0 is none.
    pub attempt: u32,
    /// The reason of its ending in words.
    pub detail: Option<String>,
    /// What came out of its machine.
    pub result: Option<Collected>,
    /// The attempt that it came from.
    pub result_attempt: Option<u32>,
    /// The number of its last event.
    pub last_seq: u64,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Before when it is not claimed: it is tried again after a pause.
    pub due: Option<Timestamp>,
    /// Whether its log and its result are not kept any more.
    pub pruned: bool,
    /// The credential of the pool that it uses; none if it came with its own.
    pub pooled: Option<String>,
    /// The SHA-256 of its lock.
    pub lock: Option<String>,
    /// What it goes on with.
    pub resumes: Option<Resumed>,
}

/// What a task goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The earlier task, which is over.
    pub task: TaskId,
    /// The SHA-256 of its session file, in hex; it left none.
    pub session: Option<String>,
}

/// An attempt as stored.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Its id.
    pub id: AttemptId,
    /// When its machine was asked for.
    pub launched: Timestamp,
    /// When its worker was first heard.
    pub joined: Option<Timestamp>,
    /// When its machine last said something.
    pub heard: Option<Timestamp>,
    /// When collecting began.
    pub ended: Option<Timestamp>,
    /// The last number stored from its machine.
    pub stored: u64,
    /// Whether `claude` is known to run as it was asked to.
    pub ready: bool,
}

pub(crate) const TASK_COLUMNS: &str = "id, spec, state, attempt, word, detail, result, last_seq, created_ms, finished_ms, result_attempt, \
     due_ms, pruned > 0, pooled, lock, resumes, session";

pub(crate) fn task(row: &Row<'_>) -> Result<TaskRow, StoreError> {
    let id: String = row.get(0)?;
    let (name, attempt): (String, u32) = (row.get(2)?, row.get(3)?);
    let word: Option<String> = row.get(4)?;
    let result: Option<String> = row.get(6)?;
    Ok(TaskRow {
        id: id.parse().map_err(corrupt)?,
        spec: serde_json::from_str(&row.get::<_, String>(1)?).map_err(corrupt)?,
        state: state(&name, Attempt(attempt), word.as_deref())?,
        attempt,
        detail: row.get(5)?,
        result: result.map(|json| serde_json::from_str(&json)).transpose().map_err(corrupt)?,
        result_attempt: row.get(10)?,
        last_seq: row.get(7)?,
        created: time(row.get(8)?)?,
        finished: row.get::<_, Option<i64>>(9)?.map(time).transpose()?,
        due: row.get::<_, Option<i64>>(11)?.map(time).transpose()?,
        pruned: row.get(12)?,
        pooled: row.get(13)?,
        lock: row.get(14)?,
        resumes: resumed(row.get(15)?, row.get(16)?)?,
    })
}

fn resumed(task: Option<String>, session: Option<String>) -> Result<Option<Resumed>, StoreError> {
    let Some(task) = task else { return Ok(None) };
    Ok(Some(Resumed { task: task.parse().map_err(corrupt)?, session }))
}

pub(crate) const ATTEMPT_COLUMNS: &str =
    "task, attempt, launched_ms, joined_ms, heard_ms, ended_ms, stored, ready";

pub(crate) fn attempt(row: &Row<'_>) -> Result<AttemptRow, StoreError> {
    let task: TaskId = row.get::<_, String>(0)?.parse().map_err(corrupt)?;
    let maybe = |column| row.get::<_, Option<i64>>(column)?.map(time).transpose();
    Ok(AttemptRow {
        id: task.attempt(Attempt(row.get(1)?)),
        launched: time(row.get(2)?)?,
        joined: maybe(3)?,
        heard: maybe(4)?,
        ended: maybe(5)?,
        stored: row.get(6)?,
        ready: row.get(7)?,
    })
}

/// An event as earlier versions stored it: attempt, time, source, ending, whether it is JSON, bytes.
pub(crate) fn event<'a>(row: &'a Row<'_>) -> Result<Said<'a>, StoreError> {
    let source = match row.get::<_, i64>(2)? {
        0 => EventSource::Claude,
        1 => EventSource::Stderr,
        2 => EventSource::Mayfly,
        other => return Err(corrupt(format!("source {other}"))),
    };
    let end = match row.get::<_, i64>(3)? {
        0 => End::Newline,
        1 => End::More,
        2 => End::Eof,
        other => return Err(corrupt(format!("ending {other}"))),
    };
    let bytes = row.get_ref(5)?.as_blob().map_err(corrupt)?;
    let (attempt, at, json) = (row.get(0)?, time(row.get(1)?)?, row.get(4)?);
    Ok(Said { attempt, at, source, end, bytes, json, redacted: 0 })
}

pub(crate) fn time(ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(ms).map_err(corrupt)
}

/// What a state carries besides its name and attempt.
pub(crate) fn word(state: TaskState) -> Option<&'static str> {
    match state {
        TaskState::Queued(_) | TaskState::Launching(_) => None,
        TaskState::Running(_, Phase::Seeding) => Some("seeding"),
        TaskState::Running(_, Phase::Claude) => Some("claude"),
        TaskState::Releasing(_, After::Requeue) => Some("requeue"),
        TaskState::Releasing(_, After::Retry) => Some("retry"),
        TaskState::Collecting(_, outcome)
        | TaskState::Releasing(_, After::Finish(outcome))
        | TaskState::Finished(outcome) => Some(outcome.name()),
    }
}

fn state(name: &str, attempt: Attempt, word: Option<&str>) -> Result<TaskState, StoreError> {
    let outcome = || word.unwrap_or_default().parse::<Outcome>().map_err(corrupt);
    Ok(match (name, word) {
        ("queued", _) => TaskState::Queued(attempt),
        ("launching", _) => TaskState::Launching(attempt),
        ("running", Some("seeding")) => TaskState::Running(attempt, Phase::Seeding),
        ("running", Some("claude")) => TaskState::Running(attempt, Phase::Claude),
        ("collecting", _) => TaskState::Collecting(attempt, outcome()?),
        ("releasing", Some("requeue")) => TaskState::Releasing(attempt, After::Requeue),
        ("releasing", Some("retry")) => TaskState::Releasing(attempt, After::Retry),
        ("releasing", _) => TaskState::Releasing(attempt, After::Finish(outcome()?)),
        ("finished", _) => TaskState::Finished(outcome()?),
        _ => return Err(corrupt(format!("state {name}"))),
    })
}
