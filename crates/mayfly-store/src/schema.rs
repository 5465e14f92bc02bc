//! The tables, and how a file is known to be ours.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, io, thread};

use mayfly_failpoint::failpoint;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::desk::Desk;
use crate::error::{StoreError, corrupt};
use crate::log::Log;
use crate::row;

/// "mayf": says that the file is ours.
const APPLICATION: i64 = 0x6d61_7966;
/// The page of a file that we make: a long log takes fewer of the larger ones, and one line more of their bytes.
const PAGE_BYTES: u32 = 8192;
/// The pages of the log beside the file after which the writer moves what is left of them into the file: 32 MiB.
pub(crate) const LOG_PAGES_MAX: u32 = 4096;
/// How long a reader waits for a checkpoint that holds the file, in milliseconds.
const BUSY_MS_MAX: u32 = 5000;

/// What makes the tables of each version out of those of the one before; the first starts from nothing. A step
/// that was in a release is never changed.
const STEPS: [Step; VERSION as usize] = [
    Step::Sql(TABLES),
    Step::Sql(QUEUE_AND_CREDENTIALS),
    Step::Sql(RETRIES_LATER),
    Step::Sql(OWNER_TOKENS),
    Step::Work(runs_and_feed),
    Step::Sql(EGRESS),
    Step::Sql(POOL),
    Step::Sql(USAGE_AND_CARRIES),
    Step::Sql(LIBRARY),
    Step::Sql(RESUMES),
    Step::Sql(RESULTS),
];
/// The version of the tables after all steps.
const VERSION: u8 = 11;

/// The tables that the queue needs.
const QUEUE: [&str; 3] = ["tasks", "attempts", "effects"];

/// How a version's tables are made.
enum Step {
    Sql(&'static str),
    Work(fn(&Connection) -> Result<(), StoreError>),
}

const TABLES: &str = "
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    -- A CreateTask as JSON, without its credential.
    spec TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    -- What the state carries besides its attempt: a phase, an outcome, `requeue` or `retry`.
    word TEXT,
    detail TEXT,
    result TEXT,
    last_seq INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    finished_ms INTEGER
) STRICT;
CREATE INDEX tasks_by_state ON tasks (state, id);
CREATE TABLE attempts (
    task TEXT NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,
    launched_ms INTEGER NOT NULL,
    joined_ms INTEGER,
    heard_ms INTEGER,
    ended_ms INTEGER,
    stored INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,
    link_hash BLOB,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    task TEXT NOT NULL REFERENCES tasks (id),
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    source INTEGER NOT NULL,
    ending INTEGER NOT NULL,
    json INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (task, seq)
) STRICT;
-- What is still to be done.
CREATE TABLE effects (
    task TEXT NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (task, attempt, kind)
) STRICT, WITHOUT ROWID;
";

const QUEUE_AND_CREDENTIALS: &str = "
-- Until the task is over; only the engine can open them.
CREATE TABLE credentials (
    task TEXT PRIMARY KEY REFERENCES tasks (id),
    sealed BLOB NOT NULL
) STRICT;
-- What the attempt's machine has written to the log, in bytes.
ALTER TABLE attempts ADD COLUMN logged INTEGER NOT NULL DEFAULT 0;
-- When `claude` was started in it.
ALTER TABLE attempts ADD COLUMN started_ms INTEGER;
ALTER TABLE tasks ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
-- The attempt whose work the result is.
ALTER TABLE tasks ADD COLUMN result_attempt INTEGER;
CREATE INDEX tasks_by_turn ON tasks (state, priority DESC, id);
DROP INDEX tasks_by_state;
";

const RETRIES_LATER: &str = "
-- Before when a task that is tried again is not claimed.
ALTER TABLE tasks ADD COLUMN due_ms INTEGER;
CREATE INDEX tasks_by_due ON tasks (due_ms) WHERE due_ms IS NOT NULL;
-- A task that ended in the queue has the number of the attempt before; if there was none, 0.
UPDATE tasks SET attempt = attempt - 1 WHERE state = 'finished' AND NOT EXISTS
    (SELECT 1 FROM attempts WHERE attempts.task = tasks.id AND attempts.attempt = tasks.attempt);
";

const OWNER_TOKENS: &str = "
-- Who may come by the port. The token itself is with its owner alone.
CREATE TABLE owner_tokens (
    name TEXT PRIMARY KEY,
    -- Its SHA-256.
    hash BLOB NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

const RUNS_AND_FEED: &str = "
-- Consecutive events of one task, as the lines that clients read.
CREATE TABLE runs (
    -- The place of its last event among those of all tasks, in the order of their commits.
    pos INTEGER PRIMARY KEY,
    task TEXT NOT NULL REFERENCES tasks (id),
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    lines BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX runs_by_task ON runs (task, last_seq);
-- One row: which store this is, and the newest place; a place is never given twice, also when its event is gone.
CREATE TABLE feed (
    store BLOB NOT NULL,
    head INTEGER NOT NULL
) STRICT;
INSERT INTO feed (store, head) VALUES (randomblob(16), 0);
-- The first event that is still kept.
ALTER TABLE tasks ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 1;
-- 0: log and result are kept; 1: they are being taken away; 2: they are gone.
ALTER TABLE tasks ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_by_end ON tasks (finished_ms) WHERE pruned < 2 AND finished_ms IS NOT NULL;
";

const EGRESS: &str = "
-- Where the machines of a task may go, besides the model.
CREATE TABLE allowed (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL REFERENCES tasks (id),
    -- HOST[:PORT], in its one form.
    rule TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    UNIQUE (task, rule)
) STRICT;
-- Where they asked to go, and what was decided.
CREATE TABLE egress (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    decision TEXT NOT NULL,
    reason TEXT,
    -- In bytes, once it is over.
    sent INTEGER NOT NULL DEFAULT 0,
    received INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX egress_by_attempt ON egress (task, attempt, decision);
CREATE INDEX egress_by_host ON egress (task, host, decision);
-- Decisions of which there is no row.
ALTER TABLE attempts ADD COLUMN egress_dropped INTEGER NOT NULL DEFAULT 0;
";

const POOL: &str = "
-- Credentials that tasks use by their names; only the engine can open them.
CREATE TABLE pool (
    name TEXT PRIMARY KEY,
    sealed BLOB NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- That which the task uses, if it came with none of its own.
ALTER TABLE tasks ADD COLUMN pooled TEXT;
";

const USAGE_AND_CARRIES: &str = "
-- What each attempt has used of each model.
CREATE TABLE usage (
    task TEXT NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,
    -- As the model API names it; empty where it gave no answer.
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    -- Those of the requests that were answered to the main agent.
    turns INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    PRIMARY KEY (task, attempt, model)
) STRICT, WITHOUT ROWID;
-- What it has cost, as `claude` counts it.
ALTER TABLE attempts ADD COLUMN cost_usd REAL;
-- The end of an unfinished line, by source, that may be the beginning of a secret.
ALTER TABLE attempts ADD COLUMN carry_claude BLOB;
ALTER TABLE attempts ADD COLUMN carry_stderr BLOB;
";

const LIBRARY: &str = "
-- The resources of the library that tasks run with, by content.
CREATE TABLE locks (
    -- Of the JSON.
    sha256 TEXT PRIMARY KEY,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- That of the task; none has no resources.
ALTER TABLE tasks ADD COLUMN lock TEXT;
-- Whether a task can use it for the model; else it is a secret of the library's servers.
ALTER TABLE pool ADD COLUMN for_model INTEGER NOT NULL DEFAULT 1;
";

const RESUMES: &str = "
-- The task whose work and session it goes on with, and the SHA-256 of that one's session file.
ALTER TABLE tasks ADD COLUMN resumes TEXT;
ALTER TABLE tasks ADD COLUMN session TEXT;
CREATE INDEX tasks_by_resumed ON tasks (resumes) WHERE resumes IS NOT NULL;
";

const RESULTS: &str = "
-- What came out of its machine, as JSON; also where a later attempt's is the task's.
ALTER TABLE attempts ADD COLUMN result TEXT;
UPDATE attempts SET result = (SELECT result FROM tasks WHERE tasks.id = attempts.task)
    WHERE attempt = (SELECT result_attempt FROM tasks WHERE tasks.id = attempts.task);
";

/// Writes what each event was as the line that it is.
fn runs_and_feed(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(RUNS_AND_FEED)?;
    let desk = Desk::new(connection);
    let mut tasks = connection.prepare("SELECT DISTINCT task FROM events ORDER BY task")?;
    let tasks = tasks.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let sql = "SELECT attempt, at_ms, source, ending, json, bytes FROM events WHERE task = ?1 ORDER BY seq";
    let mut events = connection.prepare(sql)?;
    for task in tasks {
        let mut log = Log::open(&desk, task.parse().map_err(corrupt)?, 0);
        let mut rows = events.query([&task])?;
        while let Some(row) = rows.next()? {
            log.append(&row::event(row)?)?;
        }
        log.close()?;
        desk.undo(0);
    }
    Ok(connection.execute_batch("DROP TABLE events")?)
}

/// Opens the file, which is made with mode 0600 if it is not there, and brings its tables to this version.
pub(crate) fn open(path: &Path) -> Result<Connection, StoreError> {
    let unopened = |source| StoreError::Open { path: path.to_owned(), source };
    // A file that is there is left to SQLite: closing it here would let go of the locks of this process.
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unopened(error)),
        _ => {}
    }
    let mut connection = checked(path, tuned(path))?.0;
    // Only now is it known to be ours.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(unopened)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction()?;
    let found = version(&transaction)?;
    if found < VERSION.into() {
        // All steps are one commit: whatever ends us, the file has the old tables or the new.
        for step in STEPS.iter().skip(usize::try_from(found).unwrap_or_default()) {
            match step {
                Step::Sql(sql) => transaction.execute_batch(sql)?,
                Step::Work(work) => work(&transaction)?,
            }
            failpoint("migration-step");
        }
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    failpoint("migration-uncommitted");
    transaction.commit()?;
    failpoint("migration-committed");
    settle(&connection)?;
    Ok(connection)
}

/// Brings what is in the log beside the file into the file, and begins that log anew. Where a disk failed, what the
/// system shows of the log may not be on the disk, and nothing must be written behind that.
fn settle(connection: &Connection) -> rusqlite::Result<()> {
    let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    // A disk that is full has not failed: the log stays as it is, and is good.
    moved.or_else(
        |error| if error.sqlite_error_code() == Some(ErrorCode::DiskFull) { Ok(()) } else { Err(error) },
    )
}

/// Whether [`open`] would take the file. Nothing is written, neither into it nor beside it. Gives how many tasks in it
/// are not over.
///
/// For a file that nobody has open: no lock is taken.
pub(crate) fn look(path: &Path) -> Result<usize, StoreError> {
    match path.try_exists() {
        Ok(true) => checked(path, untouched(path)).map(|(_, unfinished)| unfinished),
        Ok(false) => Ok(0),
        Err(source) => Err(StoreError::Open { path: path.to_owned(), source }),
    }
}

/// Reads the whole file for damage, the logs too, for as long as `time` at most. `false`: that was not long enough, and
/// there was none as far as it got.
///
/// For a file that nobody has open: no lock is taken.
pub(crate) fn examine(path: &Path, time: Duration) -> Result<bool, StoreError> {
    let (connection, _) = checked(path, untouched(path))?;
    let (done, ended) = mpsc::channel::<()>();
    let interrupt = connection.get_interrupt_handle();
    // It waits for the end of the check, which lets go of `done`, or for that of the time.
    let watch = thread::spawn(move || {
        if ended.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let whole = sound(&connection, "PRAGMA quick_check(1)");
    drop(done);
    let _ = watch.join();
    match whole {
        Ok(true) => Ok(true),
        Ok(false) => Err(StoreError::Damaged(path.to_owned())),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(false),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// Whether a check of SQLite's finds nothing.
fn sound(connection: &Connection, check: &str) -> rusqlite::Result<bool> {
    connection.query_row(check, [], |row| Ok(row.get::<_, String>(0)? == "ok"))
}

/// Checks the tables of the queue, without which nothing can go on, and which are small beside the logs. Gives how many
/// tasks are not over.
fn check_queue(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    for table in QUEUE {
        if !sound(connection, &format!("PRAGMA quick_check({table})"))? {
            return Err(StoreError::Damaged(path.to_owned()));
        }
    }
    let sql = "SELECT count(*) FROM tasks WHERE state <> 'finished'";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// A connection that leaves everything as it is. What is still in the log beside the file counts, and is read
/// without the index that others would share; without a log, none is made.
fn untouched(path: &Path) -> rusqlite::Result<Connection> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let logged = fs::metadata(log).is_ok_and(|log| log.len() > 0);
    let how = if logged { "vfs=unix-none" } else { "immutable=1" };
    let uri = format!("file:{}?mode=ro&{how}", escaped(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)?;
    if logged {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    Ok(connection)
}

/// A path as a part of a URI.
fn escaped(path: &Path) -> String {
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                escaped.push(char::from(*byte));
            }
            _ => write!(escaped, "%{byte:02x}").expect("a string takes all"),
        }
        escaped
    })
}

/// The connection, if the file is empty, or ours; and how many tasks in it are not over.
fn checked(path: &Path, opened: rusqlite::Result<Connection>) -> Result<(Connection, usize), StoreError> {
    let checked = opened.map_err(StoreError::from).and_then(|connection| {
        let unfinished = match check(&connection, path)? {
            true => check_queue(&connection, path)?,
            false => 0,
        };
        Ok((connection, unfinished))
    });
    checked.map_err(|error| match error {
        StoreError::Sqlite(error) | StoreError::Broken(error) => unreadable(path, error),
        other => other,
    })
}

fn unreadable(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::Foreign(path.to_owned()),
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged(path.to_owned()),
        _ => error.into(),
    }
}

/// One more connection to a file that [`open`] has prepared.
pub(crate) fn connect(path: &Path) -> Result<Connection, StoreError> {
    Ok(tuned(path)?)
}

fn tuned(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS_MAX.into()))?;
    // Of no effect on a file that has pages already.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES_MAX)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is deleted may be a credential, sealed though it is.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Whether there are tables of ours; in an empty file there are none yet.
fn check(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let foreign = || StoreError::Foreign(path.to_owned());
    let tables =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    match (version(connection)?, application, tables) {
        (0, 0, 0) => Ok(false),
        (found, APPLICATION, _) if found > VERSION.into() => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION.into() })
        }
        (1.., APPLICATION, _) => Ok(true),
        _ => Err(foreign()),
    }
}
