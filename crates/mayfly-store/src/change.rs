//! A step of a task's state machine, with all that belongs to it: the state, the effects to perform, the
//! times, and the events that tell of it. The caller's transaction makes them one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mayfly_core::{After, Attempt, Earlier, Effect, Event, Limit, Phase, Policy, TaskId, TaskState};
use mayfly_wire::api;
use mayfly_wire::event::MayflyEvent;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::carries;
use crate::desk::Desk;
use crate::error::{StoreError, corrupt};
use crate::log::Log;
use crate::row::{self, TASK_COLUMNS, TaskRow};

/// What is known about a step besides the event itself.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happened.
    pub event: Event,
    /// When.
    pub at: Timestamp,
    /// The reason in words, for an event that ends the task.
    pub detail: Option<String>,
    /// Who makes the machines.
    pub provider: &'static str,
    /// The rules.
    pub policy: Policy,
}

/// What a step led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Whose step.
    pub task: TaskId,
    /// Where the task stands now.
    pub state: TaskState,
    /// What is to be performed.
    pub effects: Vec<Effect>,
    /// The number of the task's last event.
    pub last_seq: u64,
}

/// Reads one task.
pub(crate) fn find(connection: &Connection, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
    let sql = format!("SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([id.to_string()], |row| Ok(row::task(row))).optional()?.transpose()
}

/// Takes one step. `None`: the event was late, early or repeated.
pub(crate) fn apply(
    connection: &Desk<'_>,
    id: TaskId,
    change: &Change,
) -> Result<Option<Changed>, StoreError> {
    let Some(task) = find(connection, id)? else { return Ok(None) };
    let earlier = earlier(connection, &task)?;
    let chances = change.policy.chances(earlier, task.spec.retries);
    let Some((state, effects)) = task.state.apply(change.event, chances) else { return Ok(None) };
    // The first reason of an ending stays; why an attempt failed is none once the task goes on or is cancelled.
    let requeued = matches!(state, TaskState::Releasing(_, After::Requeue | After::Retry));
    let goes_on = task.state.ending().is_some() && (state.ending() == task.state.ending() || requeued);
    let ending = task.detail.filter(|_| goes_on);
    let unsaved = is_left_behind(task.state, change.event).then(|| unsaved_words(change.detail.as_deref()));
    let detail = ending.or_else(|| change.detail.clone());
    let due = due(task.due, state, change.at, change.policy.retry_pause(earlier));
    store_state(connection, id, (task.state, state), detail.as_deref(), due, change.at)?;
    note_time(connection, id, task.state, state, change)?;
    for &effect in &effects {
        let (kind, attempt) = effect_parts(effect);
        let sql = "INSERT OR IGNORE INTO effects (task, attempt, kind) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![id.to_string(), attempt.0, kind])?;
    }
    let mut log = Log::open(connection, id, task.last_seq);
    if let (TaskState::Running(a, _) | TaskState::Collecting(a, _), TaskState::Releasing(..)) =
        (task.state, state)
    {
        carries::give_up(connection, &mut log, id.attempt(a), change.at)?;
    }
    let unsaved = unsaved.map(|text| MayflyEvent::Warning { text });
    for told in unsaved.into_iter().chain(tell(task.state, state, detail, due, change)) {
        log.mayfly(attempt_of(task.state, state), change.at, &told)?;
    }
    Ok(Some(Changed { task: id, state, effects, last_seq: log.close()? }))
}

/// What became of the attempts before the task's current one.
fn earlier(connection: &Connection, task: &TaskRow) -> Result<Earlier, StoreError> {
    let sql = "SELECT count(started_ms), count(*) - count(started_ms) FROM attempts WHERE task = ?1 AND attempt < ?2";
    let key = params![task.id.to_string(), task.attempt];
    let row = |row: &rusqlite::Row<'_>| Ok(Earlier { started: row.get(0)?, unstarted: row.get(1)? });
    Ok(connection.prepare_cached(sql)?.query_row(key, row)?)
}

/// Before when the task is not claimed: known from the moment on when its attempt failed.
fn due(before: Option<Timestamp>, state: TaskState, at: Timestamp, pause: Duration) -> Option<Timestamp> {
    match state {
        TaskState::Releasing(_, After::Retry) => {
            let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
            Some(at.checked_add(pause).unwrap_or(Timestamp::MAX))
        }
        TaskState::Queued(_) => before,
        _ => None,
    }
}

fn store_state(
    connection: &Connection,
    id: TaskId,
    (from, state): (TaskState, TaskState),
    detail: Option<&str>,
    due: Option<Timestamp>,
    at: Timestamp,
) -> Result<(), StoreError> {
    // A finished task keeps the number of its last attempt; one that ended in the queue never had its next.
    let attempt = match (from, state) {
        (_, TaskState::Queued(attempt)) => Some(attempt.0),
        (TaskState::Queued(next), TaskState::Finished(_)) => Some(next.0 - 1),
        (_, state) => state.machine().map(|attempt| attempt.0),
    };
    let finished = state.outcome().map(|_| at.as_millisecond());
    let detail = detail.filter(|_| !matches!(state, TaskState::Queued(_)));
    let sql = "UPDATE tasks SET state = ?2, attempt = coalesce(?3, attempt), word = ?4, detail = ?5, \
               finished_ms = ?6, due_ms = ?7 WHERE id = ?1";
    let (name, due) = (state.name(), due.map(Timestamp::as_millisecond));
    let values = params![id.to_string(), name, attempt, row::word(state), detail, finished, due];
    connection.prepare_cached(sql)?.execute(values)?;
    if finished.is_some() {
        connection.prepare_cached("DELETE FROM credentials WHERE task = ?1")?.execute([id.to_string()])?;
    }
    Ok(())
}

/// The times that limits are counted from.
fn note_time(
    connection: &Connection,
    id: TaskId,
    from: TaskState,
    to: TaskState,
    change: &Change,
) -> Result<(), StoreError> {
    let at = change.at.as_millisecond();
    let set = |sql: &str, attempt: Attempt| -> Result<(), StoreError> {
        connection.prepare_cached(sql)?.execute(params![id.to_string(), attempt.0, at])?;
        Ok(())
    };
    match (from, to) {
        (TaskState::Queued(_), TaskState::Launching(a)) => {
            set("INSERT INTO attempts (task, attempt, launched_ms) VALUES (?1, ?2, ?3)", a)
        }
        (TaskState::Launching(_), TaskState::Running(a, _)) => {
            set("UPDATE attempts SET joined_ms = ?3, heard_ms = ?3 WHERE task = ?1 AND attempt = ?2", a)
        }
        (TaskState::Running(_, Phase::Seeding), TaskState::Running(a, Phase::Claude)) => {
            set("UPDATE attempts SET started_ms = ?3 WHERE task = ?1 AND attempt = ?2", a)
        }
        (TaskState::Running(..), TaskState::Collecting(a, _)) => {
            set("UPDATE attempts SET ended_ms = ?3 WHERE task = ?1 AND attempt = ?2", a)
        }
        _ => Ok(()),
    }
}

/// What the log says of a step.
fn tell(
    from: TaskState,
    to: TaskState,
    detail: Option<String>,
    due_at: Option<Timestamp>,
    change: &Change,
) -> Option<MayflyEvent> {
    use TaskState::*;
    let outcome =
        |name: mayfly_core::Outcome| api::Outcome { name: name.name().to_owned(), detail: detail.clone() };
    match (from, to) {
        (_, Launching(_)) => Some(MayflyEvent::Launching { provider: change.provider.to_owned() }),
        (Launching(_), Running(..)) => Some(MayflyEvent::Running),
        (_, Running(..)) => Some(MayflyEvent::Started),
        (Collecting(..), Collecting(..)) => None,
        (_, Collecting(_, name)) => Some(MayflyEvent::Collecting { outcome: outcome(name) }),
        (_, Finished(name)) => Some(MayflyEvent::Finished { outcome: outcome(name) }),
        (Releasing(..), Queued(_)) => Some(MayflyEvent::Queued),
        (Releasing(..), Releasing(..)) => None,
        (_, Releasing(_, After::Requeue | After::Retry)) => {
            Some(MayflyEvent::Requeued { detail: why_requeued(from, detail, change.event), due_at })
        }
        (_, Releasing(_, After::Finish(_))) => Some(MayflyEvent::Releasing),
        (_, Queued(_)) => None,
    }
}

/// Whether work stays in the machine that is let go.
fn is_left_behind(from: TaskState, event: Event) -> bool {
    let lets_go = matches!(event, Event::Vanished(_) | Event::Aborted);
    match from {
        TaskState::Running(_, Phase::Claude) => lets_go,
        TaskState::Collecting(..) => lets_go || matches!(event, Event::Expired(..)),
        _ => false,
    }
}

fn unsaved_words(why: Option<&str>) -> String {
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("the work in the machine was not brought out{why}")
}

fn why_requeued(from: TaskState, detail: Option<String>, event: Event) -> String {
    let why = match event {
        Event::Expired(_, Limit::Launch) => "its machine was made, and its worker was never heard",
        _ => "its machine was lost",
    };
    match (from.ending(), detail) {
        (Some(outcome), Some(detail)) => format!("{outcome}: {detail}"),
        (Some(outcome), None) => outcome.to_string(),
        (None, detail) => detail.unwrap_or_else(|| why.to_owned()),
    }
}

fn attempt_of(from: TaskState, to: TaskState) -> u32 {
    to.machine().or(from.machine()).map_or(0, |attempt| attempt.0)
}

pub(crate) fn effect_parts(effect: Effect) -> (&'static str, Attempt) {
    match effect {
        Effect::CreateMachine(attempt) => ("create", attempt),
        Effect::CollectWork(attempt) => ("collect", attempt),
        Effect::DestroyMachine(attempt) => ("destroy", attempt),
    }
}

pub(crate) fn effect_of(kind: &str, attempt: Attempt) -> Result<Effect, StoreError> {
    match kind {
        "create" => Ok(Effect::CreateMachine(attempt)),
        "collect" => Ok(Effect::CollectWork(attempt)),
        "destroy" => Ok(Effect::DestroyMachine(attempt)),
        other => Err(corrupt(format!("effect {other}"))),
    }
}
