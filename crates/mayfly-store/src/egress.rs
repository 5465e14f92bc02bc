//! Where the machines of a task may go, and where they asked to go.
//!
//! A rule is on the disk before anybody goes by it, and is never taken back: a task's rules end with the task. Of the
//! decisions a row each is kept, up to [`ROWS_MAX`] for each attempt and kind, so that those of one kind leave room for
//! the others; the rest is counted. Of refusals that is told with the last that is kept.

use jiff::Timestamp;
use mayfly_core::egress::Verdict;
use mayfly_core::host::Rule;
use mayfly_core::{AttemptId, TaskId, TaskState};
use mayfly_wire::api::{ALLOWED_MAX, Egress, EgressEntry};
use mayfly_wire::event::MayflyEvent;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::change::find;
use crate::desk::Desk;
use crate::error::{StoreError, corrupt};
use crate::row::time;
use crate::store::{Store, tell};

/// The most decisions of one kind that are kept of one attempt.
pub(crate) const ROWS_MAX: u32 = 1000;

/// What a machine asked for, and what was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The host, or what it had in its place.
    pub host: String,
    /// The port; 0 if none can be read.
    pub port: u16,
    /// What was decided.
    pub verdict: Verdict,
    /// Of a refusal, what the machine was told.
    pub words: String,
}

/// What became of new rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowing {
    /// All that hold now.
    Now(Vec<String>),
    /// There is no such task.
    NoTask,
    /// The task is over.
    Over,
    /// There would be too many.
    TooMany,
}

impl Store {
    /// Where the attempt may go. `None`: it does not run.
    pub async fn rules_of(&self, attempt: AttemptId) -> Result<Option<Vec<Rule>>, StoreError> {
        self.readers
            .read(move |connection| {
                let sql = "SELECT 1 FROM tasks WHERE id = ?1 AND attempt = ?2 AND state = 'running'";
                let key = params![attempt.task.to_string(), attempt.attempt.0];
                match connection.prepare_cached(sql)?.exists(key)? {
                    true => rules(connection, attempt.task).map(Some),
                    false => Ok(None),
                }
            })
            .await
    }

    /// Where the machines of a task may go, in the order in which it was said.
    pub async fn allowed(&self, task: TaskId) -> Result<Vec<String>, StoreError> {
        self.readers.read(move |connection| texts(connection, task)).await
    }

    /// Lets the machines of a task that is not over go to more places.
    pub async fn allow(&self, task: TaskId, rules: Vec<Rule>, at: Timestamp) -> Result<Allowing, StoreError> {
        self.writer.run(move |desk| allow(desk, task, &rules, at)).await
    }

    /// Keeps a decision, and tells of the first refusal of each host. Gives the number of its row, if it has one.
    pub fn keep_asked(
        &self,
        attempt: AttemptId,
        asked: Asked,
        at: Timestamp,
    ) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send + use<> {
        self.writer.begin(move |desk| keep_asked(desk, attempt, &asked, at), |_| ())
    }

    /// Notes what went through a connection that is over.
    pub async fn keep_bytes(&self, row: i64, sent: u64, received: u64) -> Result<(), StoreError> {
        self.writer
            .run(move |desk| {
                let sql = "UPDATE egress SET sent = ?2, received = ?3 WHERE id = ?1";
                let most = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
                desk.prepare_cached(sql)?.execute(params![row, most(sent), most(received)])?;
                Ok(())
            })
            .await
    }

    /// What was decided about the machines of a task.
    pub async fn asked(&self, task: TaskId) -> Result<Egress, StoreError> {
        self.readers.read(move |connection| record(connection, task)).await
    }
}

fn texts(connection: &Connection, task: TaskId) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT rule FROM allowed WHERE task = ?1 ORDER BY id")?;
    let rules = statement.query_map([task.to_string()], |row| row.get(0))?;
    Ok(rules.collect::<Result<_, _>>()?)
}

fn rules(connection: &Connection, task: TaskId) -> Result<Vec<Rule>, StoreError> {
    texts(connection, task)?.iter().map(|rule| rule.parse().map_err(corrupt)).collect()
}

pub(crate) fn keep_rules(
    connection: &Connection,
    task: TaskId,
    rules: &[Rule],
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO allowed (task, rule, at_ms) VALUES (?1, ?2, ?3)";
    let mut statement = connection.prepare_cached(sql)?;
    for rule in rules {
        statement.execute(params![task.to_string(), rule.to_string(), at.as_millisecond()])?;
    }
    Ok(())
}

fn allow(desk: &Desk<'_>, task: TaskId, rules: &[Rule], at: Timestamp) -> Result<Allowing, StoreError> {
    match find(desk, task)?.map(|task| task.state) {
        None => return Ok(Allowing::NoTask),
        Some(TaskState::Finished(_)) => return Ok(Allowing::Over),
        Some(_) => {}
    }
    let mut all = texts(desk, task)?;
    let mut new: Vec<Rule> = Vec::new();
    for rule in rules {
        let text = rule.to_string();
        if !all.contains(&text) {
            all.push(text);
            new.push(rule.clone());
        }
    }
    if all.len() > ALLOWED_MAX {
        return Ok(Allowing::TooMany);
    }
    keep_rules(desk, task, &new, at)?;
    Ok(Allowing::Now(all))
}

fn keep_asked(
    desk: &Desk<'_>,
    attempt: AttemptId,
    asked: &Asked,
    at: Timestamp,
) -> Result<Option<i64>, StoreError> {
    let (task, number) = (attempt.task.to_string(), attempt.attempt.0);
    let Asked { host, port, verdict, words } = asked;
    let sql = "SELECT count(*) FROM egress WHERE task = ?1 AND attempt = ?2 AND decision = ?3";
    let key = params![task, number, verdict.name()];
    let kept: u32 = desk.prepare_cached(sql)?.query_row(key, |row| row.get(0))?;
    if kept >= ROWS_MAX {
        let sql = "UPDATE attempts SET egress_dropped = egress_dropped + 1 WHERE task = ?1 AND attempt = ?2";
        desk.prepare_cached(sql)?.execute(params![task, number])?;
        return Ok(None);
    }
    if matches!(verdict, Verdict::Denied(_)) && is_first(desk, &task, host)? {
        let host = Some(format!("{host}:{port}"));
        let event = MayflyEvent::Denied { tool: "network".to_owned(), message: words.clone(), host };
        tell(desk, attempt, at, &[event])?;
    }
    if matches!(verdict, Verdict::Denied(_)) && kept + 1 == ROWS_MAX {
        let text =
            format!("{ROWS_MAX} requests to other hosts were refused: any more are counted, and not told of");
        tell(desk, attempt, at, &[MayflyEvent::Warning { text }])?;
    }
    let sql = "INSERT INTO egress (task, attempt, at_ms, host, port, decision, reason) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id";
    let values = params![task, number, at.as_millisecond(), host, port, verdict.name(), verdict.reason()];
    Ok(Some(desk.prepare_cached(sql)?.query_row(values, |row| row.get(0))?))
}

/// Whether this host was never refused to the task.
fn is_first(connection: &Connection, task: &str, host: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM egress WHERE task = ?1 AND host = ?2 AND decision = 'denied' LIMIT 1";
    let found = connection.prepare_cached(sql)?.query_row(params![task, host], |_| Ok(())).optional()?;
    Ok(found.is_none())
}

fn record(connection: &Connection, task: TaskId) -> Result<Egress, StoreError> {
    let task = task.to_string();
    let sql = "SELECT coalesce(sum(egress_dropped), 0) FROM attempts WHERE task = ?1";
    let dropped = connection.prepare_cached(sql)?.query_row([&task], |row| row.get(0))?;
    let sql = "SELECT attempt, at_ms, host, port, decision, reason, sent, received FROM egress \
               WHERE task = ?1 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let entries = statement.query_and_then([&task], |row| {
        Ok::<_, StoreError>(EgressEntry {
            attempt: row.get(0)?,
            at: time(row.get(1)?)?,
            host: row.get(2)?,
            port: row.get(3)?,
            decision: row.get(4)?,
            reason: row.get(5)?,
            sent: row.get(6)?,
            received: row.get(7)?,
        })
    })?;
    Ok(Egress { entries: entries.collect::<Result<_, _>>()?, dropped })
}
