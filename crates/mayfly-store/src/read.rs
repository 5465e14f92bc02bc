//! Logs as they are read: by task, or all of them in the order of their commits.

use bytes::Bytes;
use mayfly_core::TaskId;
use memchr::memchr;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::error::{StoreError, corrupt};

/// Consecutive events of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Whose.
    pub task: TaskId,
    /// The number of the first event.
    pub first_seq: u64,
    /// The number of the last event.
    pub last_seq: u64,
    /// A line for each, as clients read them.
    pub lines: Bytes,
}

impl Run {
    /// The events from `first` on, which is one of them.
    pub(crate) fn from(mut self, first: u64) -> Self {
        let cut = end_of(&self.lines, first - self.first_seq);
        self.lines = self.lines.slice(cut..);
        self.first_seq = first;
        self
    }
}

/// Where the first `count` lines end.
fn end_of(lines: &[u8], count: u64) -> usize {
    let mut end = 0;
    for _ in 0..count {
        end += memchr(b'\n', &lines[end..]).map_or(lines.len() - end, |at| at + 1);
    }
    end
}

/// A part of what all tasks said, in the order of their commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedChunk {
    /// The events, those of one task that follow one another in one run.
    pub runs: Vec<Run>,
    /// How many events of this part are not kept any more.
    pub skipped: u64,
    /// The position of the last event of this part: the next one begins after it.
    pub position: u64,
    /// The position of the newest event that was committed when this was read.
    pub head: u64,
}

/// Why a task's log was not read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What was asked for is not kept any more.
    #[error("the log before event {first} is not kept any more")]
    Gone {
        /// The first event that is; the one after the last if none is.
        first: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A row of `runs`, while it is looked at.
struct Piece<'a> {
    pos: u64,
    task: &'a str,
    first_seq: u64,
    last_seq: u64,
    lines: &'a [u8],
}

const COLUMNS: &str = "pos, task, first_seq, last_seq, lines";

impl<'a> Piece<'a> {
    fn of(row: &'a Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            pos: row.get(0)?,
            task: row.get_ref(1)?.as_str().map_err(corrupt)?,
            first_seq: row.get(2)?,
            last_seq: row.get(3)?,
            lines: row.get_ref(4)?.as_blob().map_err(corrupt)?,
        })
    }

    /// The position of its first event.
    fn first_pos(&self) -> u64 {
        self.pos - (self.last_seq - self.first_seq)
    }

    /// Leaves its first `count` events out.
    fn skip(&mut self, count: u64) {
        self.lines = &self.lines[end_of(self.lines, count)..];
        self.first_seq += count;
    }
}

/// A run that is being put together.
#[derive(Default)]
struct Open {
    task: String,
    first_seq: u64,
    last_seq: u64,
    lines: Vec<u8>,
}

impl Open {
    fn begin(piece: &Piece<'_>) -> Self {
        let (first_seq, last_seq) = (piece.first_seq, piece.last_seq);
        Self { task: piece.task.to_owned(), first_seq, last_seq, lines: piece.lines.to_vec() }
    }

    fn is_followed_by(&self, piece: &Piece<'_>) -> bool {
        self.task == piece.task && self.last_seq + 1 == piece.first_seq
    }

    fn add(&mut self, piece: &Piece<'_>) {
        self.lines.extend_from_slice(piece.lines);
        self.last_seq = piece.last_seq;
    }

    fn close(self) -> Result<Run, StoreError> {
        let Self { task, first_seq, last_seq, lines } = self;
        Ok(Run { task: task.parse().map_err(corrupt)?, first_seq, last_seq, lines: lines.into() })
    }
}

/// A task's events after `after`. `None`: there is none.
pub(crate) fn log(
    connection: &Connection,
    task: TaskId,
    after: u64,
    bytes_max: usize,
) -> Result<Option<Run>, LogError> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE task = ?1 AND last_seq > ?2 ORDER BY last_seq");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![task.to_string(), i64::try_from(after).unwrap_or(i64::MAX)])?;
    let mut open: Option<Open> = None;
    while let Some(row) = rows.next()? {
        let mut piece = Piece::of(row)?;
        match &mut open {
            None if piece.first_seq > after + 1 => return Err(LogError::Gone { first: piece.first_seq }),
            None => {
                piece.skip(after + 1 - piece.first_seq);
                open = Some(Open::begin(&piece));
            }
            Some(open) => open.add(&piece),
        }
        if open.as_ref().is_some_and(|open| open.lines.len() >= bytes_max) {
            break;
        }
    }
    match open {
        Some(open) => Ok(Some(open.close()?)),
        None => check_kept(connection, task, after).map(|()| None),
    }
}

/// Whether nothing after `after` was there once and is not kept any more.
pub(crate) fn check_kept(connection: &Connection, task: TaskId, after: u64) -> Result<(), LogError> {
    let mut statement = connection.prepare_cached("SELECT first_seq FROM tasks WHERE id = ?1")?;
    let first: Option<u64> = statement.query_row([task.to_string()], |row| row.get(0)).optional()?;
    match first.filter(|&first| after.saturating_add(1) < first) {
        Some(first) => Err(LogError::Gone { first }),
        None => Ok(()),
    }
}

/// What all tasks said after the position `after`.
pub(crate) fn feed(connection: &Connection, after: u64, bytes_max: usize) -> Result<FeedChunk, StoreError> {
    // Read first: what is committed meanwhile is for the next chunk, and what is pruned meanwhile is skipped.
    let head = head(connection)?;
    // Of a log whose beginning may be gone nobody can begin to keep the rest.
    let sql = format!(
        "SELECT {COLUMNS} FROM runs WHERE pos > ?1 AND pos <= ?2 \
         AND NOT EXISTS (SELECT 1 FROM tasks WHERE id = runs.task AND pruned > 0) ORDER BY pos"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after, head])?;
    let mut chunk = FeedChunk { runs: Vec::new(), skipped: 0, position: after, head };
    let (mut open, mut bytes): (Option<Open>, _) = (None, 0);
    while bytes < bytes_max {
        let Some(row) = rows.next()? else {
            chunk.skipped += head.saturating_sub(chunk.position);
            chunk.position = head.max(after);
            break;
        };
        let mut piece = Piece::of(row)?;
        piece.skip((after + 1).saturating_sub(piece.first_pos()));
        chunk.skipped += piece.first_pos() - 1 - chunk.position;
        chunk.position = piece.pos;
        bytes += piece.lines.len();
        match &mut open {
            Some(open) if open.is_followed_by(&piece) => open.add(&piece),
            _ => chunk.runs.extend(open.replace(Open::begin(&piece)).map(Open::close).transpose()?),
        }
    }
    chunk.runs.extend(open.map(Open::close).transpose()?);
    Ok(chunk)
}

/// The position of the newest event.
pub(crate) fn head(connection: &Connection) -> Result<u64, StoreError> {
    Ok(connection.prepare_cached("SELECT head FROM feed")?.query_row([], |row| row.get(0))?)
}

/// Which store this is.
pub(crate) fn store_id(connection: &Connection) -> Result<[u8; 16], StoreError> {
    Ok(connection.query_row("SELECT store FROM feed", [], |row| row.get(0))?)
}
