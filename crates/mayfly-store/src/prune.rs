//! Takes away the log and the result of a task that was over long ago; what it was, and how it ended, stays. And locks that
//! no task names any more.
//!
//! It is marked first, and counted as gone from then on; then what is outside this file can be removed, and then its
//! log goes in steps, from its beginning. Whatever ends us in between, the mark says where to go on.

use std::collections::HashSet;

use jiff::Timestamp;
use mayfly_core::TaskId;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::error::{StoreError, corrupt};

/// The bytes of a log that one step takes away; one run may go over it.
const STEP_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most runs of one step.
const STEP_RUNS_MAX: usize = 1000;

/// Whether no other task goes on with it of which the result is kept: as long as that could be tried again, so could this.
const NOT_RESUMED: &str =
    "NOT EXISTS (SELECT 1 FROM tasks AS later WHERE later.resumes = tasks.id AND later.pruned = 0)";

/// Tasks that were over before `before` and of which something is kept, the oldest first.
pub(crate) fn expired(
    connection: &Connection,
    before: Timestamp,
    most: u32,
) -> Result<Vec<TaskId>, StoreError> {
    let sql = format!(
        "SELECT id FROM tasks WHERE pruned < 2 AND finished_ms IS NOT NULL AND finished_ms < ?1 AND {NOT_RESUMED} \
         ORDER BY finished_ms LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let ids = statement.query_and_then(params![before.as_millisecond(), most], |row| {
        row.get::<_, String>(0)?.parse::<TaskId>().map_err(corrupt)
    })?;
    ids.collect()
}

/// Marks a task that is over: what is kept of it counts as gone. Whether it does now.
pub(crate) fn begin(connection: &Connection, task: TaskId) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE tasks SET pruned = 1 WHERE id = ?1 AND pruned = 0 AND state = 'finished' AND {NOT_RESUMED}"
    );
    connection.prepare_cached(&sql)?.execute([task.to_string()])?;
    is_pruned(connection, task)
}

/// That what came out of a task is still there for another to go on with.
pub(crate) fn check_kept(connection: &Connection, task: TaskId) -> Result<(), StoreError> {
    if is_pruned(connection, task)? { Err(StoreError::Pruned(task.short())) } else { Ok(()) }
}

fn is_pruned(connection: &Connection, task: TaskId) -> Result<bool, StoreError> {
    let sql = "SELECT pruned > 0 FROM tasks WHERE id = ?1";
    let pruned = connection.prepare_cached(sql)?.query_row([task.to_string()], |row| row.get(0));
    Ok(pruned.optional()?.unwrap_or(true))
}

/// Takes away the beginning of a marked task's log. Whether some of it is left.
pub(crate) fn step(connection: &Connection, task: TaskId) -> Result<bool, StoreError> {
    let (upto, left) = beginning(connection, task)?;
    let key = params![task.to_string(), upto];
    let sql = "DELETE FROM runs WHERE task = ?1 AND last_seq <= ?2";
    connection.prepare_cached(sql)?.execute(key)?;
    let sql = match left {
        true => "UPDATE tasks SET first_seq = ?2 + 1 WHERE id = ?1",
        false => "UPDATE tasks SET first_seq = max(last_seq, ?2) + 1, pruned = 2 WHERE id = ?1",
    };
    connection.prepare_cached(sql)?.execute(key)?;
    if !left {
        for table in ["allowed", "egress"] {
            let sql = format!("DELETE FROM {table} WHERE task = ?1");
            connection.prepare_cached(&sql)?.execute([task.to_string()])?;
        }
    }
    Ok(left)
}

/// The last event of the runs that one step takes away, and whether there are runs after it.
fn beginning(connection: &Connection, task: TaskId) -> Result<(u64, bool), StoreError> {
    let sql = "SELECT last_seq, length(lines) FROM runs WHERE task = ?1 ORDER BY last_seq";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([task.to_string()])?;
    let (mut upto, mut bytes, mut runs) = (0, 0, 0);
    while let Some(row) = rows.next()? {
        if bytes >= STEP_BYTES_MAX || runs == STEP_RUNS_MAX {
            return Ok((upto, true));
        }
        upto = row.get(0)?;
        bytes += row.get::<_, u64>(1)?;
        runs += 1;
    }
    Ok((upto, false))
}

/// The ids of the workspaces that the tasks name of which something is kept, and of those that they are on top of.
pub(crate) fn workspaces(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT spec ->> '$.workspace.id' FROM tasks \
               WHERE pruned = 0 AND spec ->> '$.workspace.id' IS NOT NULL \
               UNION SELECT spec ->> '$.workspace.on.id' FROM tasks \
               WHERE pruned = 0 AND spec ->> '$.workspace.on.id' IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// What the locks that are kept name, by content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Archives of resources.
    pub resources: HashSet<String>,
    /// Trees of tools.
    pub tools: HashSet<String>,
}

/// The locks that no task names of which something is kept: each with its JSON, at most `most`.
pub(crate) fn unnamed_locks(connection: &Connection, most: u32) -> Result<Vec<(String, String)>, StoreError> {
    let sql = format!("SELECT sha256, json FROM locks WHERE {UNNAMED} LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let locks = statement.query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(locks.collect::<Result<_, _>>()?)
}

/// Whether a lock is named by no task of which something is kept.
const UNNAMED: &str = "sha256 NOT IN (SELECT lock FROM tasks WHERE pruned = 0 AND lock IS NOT NULL)";

/// Takes a lock away, unless a task names it by now.
pub(crate) fn forget_lock(connection: &Connection, sha256: &str) -> Result<(), StoreError> {
    let sql = format!("DELETE FROM locks WHERE sha256 = ?1 AND {UNNAMED}");
    connection.prepare_cached(&sql)?.execute([sha256])?;
    Ok(())
}

/// What locks name.
pub(crate) fn named(connection: &Connection) -> Result<Named, StoreError> {
    let all = |sql: &str| -> Result<HashSet<String>, StoreError> {
        let mut statement = connection.prepare_cached(sql)?;
        let contents = statement.query_map([], |row| row.get(0))?;
        Ok(contents.collect::<Result<_, _>>()?)
    };
    let resources =
        "SELECT DISTINCT one.value ->> '$.sha256' FROM locks, json_each(locks.json, '$.resources') AS one";
    let tools = "SELECT DISTINCT tool.value FROM locks, json_each(locks.json, '$.resources') AS one, \
                 json_each(one.value, '$.tools') AS tool";
    Ok(Named { resources: all(resources)?, tools: all(tools)? })
}
