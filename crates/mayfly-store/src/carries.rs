//! What waits of each attempt's unfinished lines, since it may be the beginning of a secret.
//!
//! It is stored in the commit that acknowledges the record it was a part of, and goes out with the next part of its line.
//! If none comes, because the machine is gone, the log has as many `*` in its place.

use jiff::Timestamp;
use mayfly_core::{AttemptId, Carry};
use mayfly_wire::event::EventSource;
use mayfly_wire::worker::End;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::error::{StoreError, corrupt};
use crate::log::{Log, Said};

/// One for each source of lines.
#[derive(Debug, Default)]
pub(crate) struct Carries {
    claude: Carry,
    stderr: Carry,
    /// Whether there is a row of them to be replaced.
    stored: bool,
}

impl Carries {
    /// As they are stored.
    pub(crate) fn of(connection: &Connection, attempt: AttemptId) -> Result<Self, StoreError> {
        let sql = "SELECT carry_claude, carry_stderr FROM attempts WHERE task = ?1 AND attempt = ?2 \
                   AND (carry_claude IS NOT NULL OR carry_stderr IS NOT NULL)";
        let key = params![attempt.task.to_string(), attempt.attempt.0];
        let found = connection.prepare_cached(sql)?.query_row(key, |row| Ok(both(row))).optional()?;
        found.unwrap_or_else(|| Ok(Self::default()))
    }

    pub(crate) fn get(&mut self, source: EventSource) -> &mut Carry {
        match source {
            EventSource::Stderr => &mut self.stderr,
            EventSource::Claude | EventSource::Mayfly => &mut self.claude,
        }
    }

    /// Stores them.
    pub(crate) fn keep(&mut self, connection: &Connection, attempt: AttemptId) -> Result<(), StoreError> {
        let is_there = !self.claude.is_empty() || !self.stderr.is_empty();
        if !is_there && !self.stored {
            return Ok(());
        }
        let stored = |carry: &Carry| (!carry.is_empty()).then(|| carry.to_bytes());
        let sql = "UPDATE attempts SET carry_claude = ?3, carry_stderr = ?4 WHERE task = ?1 AND attempt = ?2";
        let (task, number) = (attempt.task.to_string(), attempt.attempt.0);
        let values = params![task, number, stored(&self.claude), stored(&self.stderr)];
        connection.prepare_cached(sql)?.execute(values)?;
        self.stored = is_there;
        Ok(())
    }
}

/// Tells how much waits of an attempt, and forgets it.
pub(crate) fn give_up(
    connection: &Connection,
    log: &mut Log<'_>,
    attempt: AttemptId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut carries = Carries::of(connection, attempt)?;
    for source in [EventSource::Claude, EventSource::Stderr] {
        let carry = std::mem::take(carries.get(source));
        if !carry.is_empty() {
            let masked = carry.masked();
            let (attempt, bytes, redacted) = (attempt.attempt.0, &*masked.bytes, masked.places);
            log.append(&Said { attempt, at, source, end: End::More, bytes, json: false, redacted })?;
        }
    }
    carries.keep(connection, attempt)
}

fn both(row: &Row<'_>) -> Result<Carries, StoreError> {
    let carry = |column: usize| match row.get_ref(column)?.as_blob_or_null().map_err(corrupt)? {
        Some(bytes) => Carry::from_bytes(bytes).ok_or_else(|| corrupt("the end of a line that waits")),
        None => Ok(Carry::default()),
    };
    Ok(Carries { claude: carry(0)?, stderr: carry(1)?, stored: true })
}
