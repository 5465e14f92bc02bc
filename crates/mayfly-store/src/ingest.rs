//! Stores what a machine says, exactly once.
//!
//! Records are numbered by the machine. Those already stored are passed over; one that leaves a gap refuses
//! the frame. What a report means for the task is applied in the same transaction as its record. Secrets are masked
//! before anything is written; the end of a part of a line that may begin one waits beside the attempt for the next.

use jiff::Timestamp;
use mayfly_core::{AttemptId, Event, Failure, Outcome, Policy, Redacted, Redactor, TaskState};
use mayfly_failpoint::failpoint;
use mayfly_wire::api::Collected;
use mayfly_wire::event::{EventSource, MayflyEvent, is_json};
use mayfly_wire::worker::{End, Record, Report, Source};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::carries::Carries;
use crate::change::{Change, Changed, apply, find};
use crate::desk::Desk;
use crate::error::StoreError;
use crate::log::{Log, Said};

/// What became of a frame.
#[derive(Debug)]
pub struct Ingested {
    /// The last number stored: what can be acknowledged.
    pub stored: u64,
    /// How many of the frame's records were not stored before.
    pub new: u64,
    /// The number of the task's last event.
    pub last_seq: u64,
    /// Where the task stands now.
    pub state: TaskState,
    /// Steps that the task took.
    pub changed: Vec<Changed>,
    /// Whether `claude` was reported to run as it was asked to.
    pub ready: bool,
}

/// Why a frame was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The attempt is not, or no longer, the task's own.
    #[error("this attempt is over")]
    Over,
    /// Records are missing before this one.
    #[error("record {found} came where {expected} was next")]
    Gap {
        /// Its number.
        found: u64,
        /// The number expected.
        expected: u64,
    },
    /// A report that cannot be read.
    #[error("record {number} is no report that this version knows")]
    BadReport {
        /// Its number.
        number: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for IngestError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// One frame being stored.
#[derive(Debug)]
struct Frame<'a> {
    connection: &'a Desk<'a>,
    attempt: AttemptId,
    at: Timestamp,
    provider: &'static str,
    policy: Policy,
    redactor: &'a Redactor,
    carries: Carries,
    log: Log<'a>,
    /// What the lines of the attempt's machine take in the log, in bytes.
    logged: u64,
    done: Ingested,
}

pub(crate) fn ingest<'a>(
    connection: &'a Desk<'a>,
    attempt: AttemptId,
    records: impl Iterator<Item = (&'a Record, Seen)>,
    at: Timestamp,
    rules: &'a IngestRules,
) -> Result<Ingested, IngestError> {
    let task = find(connection, attempt.task)?.ok_or(IngestError::Over)?;
    if task.state.machine() != Some(attempt.attempt) {
        return Err(IngestError::Over);
    }
    let (stored, logged) = stored_before(connection, attempt)?.ok_or(IngestError::Over)?;
    let done = Ingested {
        stored,
        new: 0,
        last_seq: task.last_seq,
        state: task.state,
        changed: Vec::new(),
        ready: false,
    };
    let log = Log::open(connection, attempt.task, task.last_seq);
    let carries = Carries::of(connection, attempt)?;
    let IngestRules { provider, policy, redactor } = rules;
    let (provider, policy) = (*provider, *policy);
    let mut frame = Frame { connection, attempt, at, provider, policy, redactor, carries, log, logged, done };
    for (record, seen) in records.filter(|(record, _)| record.number > stored) {
        frame.take(record, seen)?;
    }
    frame.close()
}

/// What holds for what machines say.
#[derive(Debug, Clone)]
pub struct IngestRules {
    /// Who makes the machines.
    pub provider: &'static str,
    /// How much they may say.
    pub policy: Policy,
    /// What they may not.
    pub redactor: Redactor,
}

/// What can be known of a record by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Whether what it carries is one JSON value on a line.
    json: bool,
    /// Whether it can be kept as it is.
    clean: bool,
}

/// Looks at a record, before it is its turn.
pub(crate) fn look(record: &Record, redactor: &Redactor) -> Seen {
    let goes_on = record.end == End::More;
    let json = !goes_on && record.source != Source::Report && is_json(&record.bytes);
    Seen { json, clean: redactor.is_clean(&record.bytes, goes_on) }
}

/// The last number stored, and the bytes that the log took.
fn stored_before(connection: &Connection, attempt: AttemptId) -> Result<Option<(u64, u64)>, StoreError> {
    let sql = "SELECT stored, logged FROM attempts WHERE task = ?1 AND attempt = ?2";
    let key = params![attempt.task.to_string(), attempt.attempt.0];
    let both = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    Ok(connection.prepare_cached(sql)?.query_row(key, both).optional()?)
}

impl Frame<'_> {
    fn take(&mut self, record: &Record, seen: Seen) -> Result<(), IngestError> {
        let expected = self.done.stored + 1;
        if record.number != expected {
            return Err(IngestError::Gap { found: record.number, expected });
        }
        self.done.stored = record.number;
        self.done.new += 1;
        match record.source {
            Source::Claude => self.append(EventSource::Claude, record, seen),
            Source::Stderr => self.append(EventSource::Stderr, record, seen),
            Source::Report => self.report(record),
        }
    }

    fn append(&mut self, source: EventSource, record: &Record, seen: Seen) -> Result<(), IngestError> {
        // The machine's clock is hostile too: a time that does not exist is the beginning of time.
        let at = i64::try_from(record.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let (attempt, at) = (self.attempt.attempt.0, at.unwrap_or(Timestamp::UNIX_EPOCH));
        let (end, carry) = (record.end, self.carries.get(source));
        let taken = if seen.clean && carry.is_empty() {
            let (bytes, json) = (&*record.bytes, seen.json);
            self.log.append(&Said { attempt, at, source, end, bytes, json, redacted: 0 })?
        } else {
            let goes_on = end == End::More;
            let Redacted { bytes, places: redacted } = self.redactor.piece(carry, &record.bytes, goes_on);
            let (bytes, json) = (&*bytes, !goes_on && is_json(&bytes));
            self.log.append(&Said { attempt, at, source, end, bytes, json, redacted })?
        };
        self.count(taken as u64)
    }

    /// Ends the attempt when its log is full; what its machine still says is stored all the same. The lines are
    /// counted as they are stored: of what says little, they are many times what was said.
    fn count(&mut self, bytes: u64) -> Result<(), IngestError> {
        let most = self.policy.log_bytes_max;
        let was_full = self.logged >= most;
        self.logged = self.logged.saturating_add(bytes);
        if was_full || self.logged < most {
            return Ok(());
        }
        let ended = Event::Ended(self.attempt.attempt, Outcome::Failed(Failure::LogFull));
        self.step(ended, Some(format!("its log reached the limit of {most} bytes")))
    }

    fn report(&mut self, record: &Record) -> Result<(), IngestError> {
        let bad = || IngestError::BadReport { number: record.number };
        let attempt = self.attempt.attempt;
        let mut report: Report = serde_json::from_slice(&record.bytes).map_err(|_| bad())?;
        let mut redacted = 0;
        for text in report.texts() {
            redacted += u32::from(self.redactor.text(text));
        }
        let told = match report {
            Report::Started => return self.step(Event::Started(attempt), None),
            Report::Ended { outcome, detail } => {
                let outcome: Outcome = outcome.parse().map_err(|_| bad())?;
                return self.step(Event::Ended(attempt, outcome), detail);
            }
            Report::Collected(result) => return self.collected(result, redacted),
            Report::Cost { usd } => return self.cost(usd),
            Report::Ready { version, model } => {
                self.done.ready = true;
                MayflyEvent::Ready { version, model }
            }
            Report::Ignored { file, parts } => MayflyEvent::Ignored { file, parts },
            Report::Denied { tool, message } => MayflyEvent::Denied { tool, message, host: None },
            Report::Limit { kind, limit, resets_at } => MayflyEvent::Limit { kind, limit, resets_at },
            Report::Warning { text } => MayflyEvent::Warning { text },
        };
        Ok(self.log.passed_on(attempt.0, self.at, &told, redacted)?)
    }

    /// It only ever grows.
    fn cost(&mut self, usd: f64) -> Result<(), IngestError> {
        let sql =
            "UPDATE attempts SET cost_usd = max(coalesce(cost_usd, 0), ?3) WHERE task = ?1 AND attempt = ?2";
        let values = params![self.attempt.task.to_string(), self.attempt.attempt.0, usd.max(0.0)];
        self.connection.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    fn collected(&mut self, result: Collected, redacted: u32) -> Result<(), IngestError> {
        keep_result(self.connection, &mut self.log, self.attempt, self.at, result, redacted)?;
        self.step(Event::Collected(self.attempt.attempt), None)
    }

    fn step(&mut self, event: Event, detail: Option<String>) -> Result<(), IngestError> {
        self.log.close()?;
        self.carries.keep(self.connection, self.attempt)?;
        let change = Change { event, at: self.at, detail, provider: self.provider, policy: self.policy };
        if let Some(changed) = apply(self.connection, self.attempt.task, &change)? {
            self.log = Log::open(self.connection, self.attempt.task, changed.last_seq);
            self.done.state = changed.state;
            self.done.changed.push(changed);
            // What waited is told at a machine's end.
            self.carries = Carries::of(self.connection, self.attempt)?;
        }
        Ok(())
    }

    fn close(mut self) -> Result<Ingested, IngestError> {
        self.done.last_seq = self.log.close()?;
        self.carries.keep(self.connection, self.attempt)?;
        // What was stored before says nothing about now.
        let sql = "UPDATE attempts SET heard_ms = iif(stored < ?3, ?4, heard_ms), stored = ?3, \
                   ready = max(ready, ?5), logged = ?6 WHERE task = ?1 AND attempt = ?2";
        let (task, attempt) = (self.attempt.task.to_string(), self.attempt.attempt.0);
        let Ingested { stored, ready, .. } = self.done;
        let values = params![task, attempt, stored, self.at.as_millisecond(), ready, self.logged];
        self.connection.prepare_cached(sql)?.execute(values)?;
        failpoint("ingest-uncommitted");
        Ok(self.done)
    }
}

/// Makes this the task's result, and tells of it.
pub(crate) fn keep_result(
    connection: &Connection,
    log: &mut Log<'_>,
    attempt: AttemptId,
    at: Timestamp,
    result: Collected,
    redacted: u32,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(&result).expect("our own types are JSON");
    let sql = "UPDATE tasks SET result = ?2, result_attempt = ?3 WHERE id = ?1";
    let values = params![attempt.task.to_string(), json, attempt.attempt.0];
    connection.prepare_cached(sql)?.execute(values)?;
    let sql = "UPDATE attempts SET result = ?2 WHERE task = ?1 AND attempt = ?3";
    connection.prepare_cached(sql)?.execute(values)?;
    log.passed_on(attempt.attempt.0, at, &MayflyEvent::Collected { result }, redacted)
}
