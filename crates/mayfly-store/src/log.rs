//! Logs as they are written: each event becomes the line that clients read, once, in the commit that it is part of.
//!
//! Consecutive events of a task that are committed together are one row, a run, of up to [`RUN_BYTES_MAX`]; one event
//! may go over it. Each event has a number in its task's log, and a position among the events of all tasks. Both
//! grow by one, in the order of the commits, and neither is ever given twice.

use jiff::Timestamp;
use mayfly_core::TaskId;
use mayfly_wire::event::{Envelope, EventSource, MayflyEvent};
use mayfly_wire::worker::End;
use rusqlite::params;

use crate::desk::Desk;
use crate::error::StoreError;
use crate::read::Run;

/// The bytes after which a run is full.
const RUN_BYTES_MAX: usize = 256 * 1024;

/// What somebody said, on its way into a log.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    /// 0 before the first attempt.
    pub(crate) attempt: u32,
    pub(crate) at: Timestamp,
    pub(crate) source: EventSource,
    pub(crate) end: End,
    pub(crate) bytes: &'a [u8],
    /// Whether the bytes are one JSON value.
    pub(crate) json: bool,
    /// How many stretches of the bytes are masked.
    pub(crate) redacted: u32,
}

/// A task's log, open for appending: what was appended is stored by [`Log::close`].
#[derive(Debug)]
pub(crate) struct Log<'a> {
    desk: &'a Desk<'a>,
    id: TaskId,
    task: String,
    last: u64,
    /// The last event that is in a row.
    written: u64,
    lines: Vec<u8>,
}

impl<'a> Log<'a> {
    pub(crate) fn open(desk: &'a Desk<'a>, id: TaskId, last_seq: u64) -> Self {
        Self { desk, id, task: id.to_string(), last: last_seq, written: last_seq, lines: Vec::new() }
    }

    /// Appends what mayfly itself tells.
    pub(crate) fn mayfly(
        &mut self,
        attempt: u32,
        at: Timestamp,
        event: &MayflyEvent,
    ) -> Result<(), StoreError> {
        self.passed_on(attempt, at, event, 0)
    }

    /// The same of what a machine told, with secrets in so many places of it masked.
    pub(crate) fn passed_on(
        &mut self,
        attempt: u32,
        at: Timestamp,
        event: &MayflyEvent,
        redacted: u32,
    ) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(event).expect("our own events are JSON");
        let (source, end) = (EventSource::Mayfly, End::Newline);
        self.append(&Said { attempt, at, source, end, bytes: &bytes, json: true, redacted }).map(drop)
    }

    /// Returns how many bytes its line has.
    pub(crate) fn append(&mut self, said: &Said<'_>) -> Result<usize, StoreError> {
        let before = self.lines.len();
        self.last += 1;
        let Said { attempt, at, source, end, bytes, json, redacted } = *said;
        let (task, seq) = (&*self.task, self.last);
        let envelope = Envelope { task, attempt, seq, at, source, end, bytes, json, redacted };
        envelope.write(&mut self.lines);
        let taken = self.lines.len() - before;
        if self.lines.len() >= RUN_BYTES_MAX {
            self.write_run()?;
        }
        Ok(taken)
    }

    /// Stores the number of the last event, and gives it.
    pub(crate) fn close(&mut self) -> Result<u64, StoreError> {
        self.write_run()?;
        let sql = "UPDATE tasks SET last_seq = ?2 WHERE id = ?1";
        self.desk.prepare_cached(sql)?.execute(params![self.task, self.last])?;
        Ok(self.last)
    }

    fn write_run(&mut self) -> Result<(), StoreError> {
        if self.written == self.last {
            return Ok(());
        }
        let sql = "UPDATE feed SET head = head + ?1 RETURNING head";
        let count = self.last - self.written;
        let pos: u64 = self.desk.prepare_cached(sql)?.query_row([count], |row| row.get(0))?;
        let sql = "INSERT INTO runs (pos, task, first_seq, last_seq, lines) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![pos, self.task, self.written + 1, self.last, self.lines];
        self.desk.prepare_cached(sql)?.execute(values)?;
        let (first_seq, lines) = (self.written + 1, std::mem::take(&mut self.lines).into());
        self.desk.note(pos, Run { task: self.id, first_seq, last_seq: self.last, lines });
        self.written = self.last;
        Ok(())
    }
}
