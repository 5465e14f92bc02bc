//! Takes away the log and the result of a task that was over long ago; what it was, and how it ended, stays.
//!
//! It is marked first, and counted as gone from then on; then what is outside this file can be removed, and then its
//! log goes in steps, from its beginning. Whatever ends us in between, the mark says where to go on.

use jiff::Timestamp;
use mayfly_core::TaskId;
use rusqlite::{Connection, params};

use crate::error::{StoreError, corrupt};

/// The bytes of a log that one step takes away; one run may go over it.
const STEP_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most runs of one step.
const STEP_RUNS_MAX: usize = 1000;

/// Tasks that were over before `before` and of which something is kept, the oldest first.
pub(crate) fn expired(
    connection: &Connection,
    before: Timestamp,
    most: u32,
) -> Result<Vec<TaskId>, StoreError> {
    let sql = "SELECT id FROM tasks WHERE pruned < 2 AND finished_ms IS NOT NULL AND finished_ms < ?1 \
               ORDER BY finished_ms LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_and_then(params![before.as_millisecond(), most], |row| {
        row.get::<_, String>(0)?.parse::<TaskId>().map_err(corrupt)
    })?;
    ids.collect()
}

/// Marks a task that is over: what is kept of it counts as gone.
pub(crate) fn begin(connection: &Connection, task: TaskId) -> Result<(), StoreError> {
    let sql = "UPDATE tasks SET pruned = 1 WHERE id = ?1 AND pruned = 0 AND state = 'finished'";
    connection.prepare_cached(sql)?.execute([task.to_string()])?;
    Ok(())
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
