//! What attempts have used of model APIs.
//!
//! Bound: [`MODELS_MAX`] names of models an attempt, and [`NAME_BYTES_MAX`] a name; what goes over is one more.

use mayfly_core::{AttemptId, TaskId};
use rusqlite::{Connection, Row, params};

use crate::error::StoreError;

/// The most models that are told apart in an attempt.
const MODELS_MAX: u32 = 32;
/// The longest name of one.
const NAME_BYTES_MAX: usize = 100;
/// What all others are called.
const OTHER: &str = "other";

/// What was used of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// As the model API names it; empty where it gave no answer.
    pub model: String,
    /// The requests.
    pub requests: u64,
    /// Those of them that were answered to the main agent.
    pub turns: u64,
    /// The tokens that were sent and were in no cache.
    pub input_tokens: u64,
    /// The tokens of the answers.
    pub output_tokens: u64,
    /// The tokens that were read from a cache.
    pub cache_read_tokens: u64,
    /// The tokens that were written to a cache.
    pub cache_write_tokens: u64,
}

/// What an attempt has used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttemptUsage {
    /// Its number.
    pub attempt: u32,
    /// By model.
    pub models: Vec<Used>,
    /// What it has cost, as `claude` counts it.
    pub cost_usd: Option<f64>,
}

/// Adds to what an attempt has used, and gives all of it.
pub(crate) fn add(
    connection: &Connection,
    attempt: AttemptId,
    used: &Used,
) -> Result<AttemptUsage, StoreError> {
    let (task, number) = (attempt.task.to_string(), attempt.attempt.0);
    let sql = "SELECT coalesce(sum(model = ?3), 0) = 1 OR count(*) < ?4 FROM usage WHERE task = ?1 AND attempt = ?2";
    let known = params![task, number, used.model, MODELS_MAX];
    let fits: bool = connection.prepare_cached(sql)?.query_row(known, |row| row.get(0))?;
    let model = if fits && used.model.len() <= NAME_BYTES_MAX { &used.model } else { OTHER };
    let sql = "INSERT INTO usage (task, attempt, model, requests, turns, input_tokens, output_tokens, \
               cache_read_tokens, cache_write_tokens) SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM tasks WHERE id = ?1 \
               ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, turns = turns + excluded.turns, \
               input_tokens = input_tokens + excluded.input_tokens, \
               output_tokens = output_tokens + excluded.output_tokens, \
               cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens, \
               cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens";
    let values = params![
        task,
        number,
        model,
        used.requests,
        used.turns,
        used.input_tokens,
        used.output_tokens,
        used.cache_read_tokens,
        used.cache_write_tokens,
    ];
    connection.prepare_cached(sql)?.execute(values)?;
    let all = of_task(connection, attempt.task)?;
    Ok(all.into_iter().find(|usage| usage.attempt == number).unwrap_or_default())
}

/// What each attempt of a task has used.
pub(crate) fn of_task(connection: &Connection, task: TaskId) -> Result<Vec<AttemptUsage>, StoreError> {
    let sql = "SELECT attempt, cost_usd FROM attempts WHERE task = ?1 ORDER BY attempt";
    let mut statement = connection.prepare_cached(sql)?;
    let attempts = statement.query_map([task.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut all = Vec::new();
    for attempt in attempts {
        let (attempt, cost_usd) = attempt?;
        all.push(AttemptUsage { attempt, cost_usd, models: models(connection, task, attempt)? });
    }
    Ok(all)
}

fn models(connection: &Connection, task: TaskId, attempt: u32) -> Result<Vec<Used>, StoreError> {
    let sql = "SELECT model, requests, turns, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens \
               FROM usage WHERE task = ?1 AND attempt = ?2 ORDER BY model";
    let mut statement = connection.prepare_cached(sql)?;
    let models = statement.query_map(params![task.to_string(), attempt], used)?;
    Ok(models.collect::<Result<_, _>>()?)
}

fn used(row: &Row<'_>) -> rusqlite::Result<Used> {
    Ok(Used {
        model: row.get(0)?,
        requests: row.get(1)?,
        turns: row.get(2)?,
        input_tokens: row.get(3)?,
        output_tokens: row.get(4)?,
        cache_read_tokens: row.get(5)?,
        cache_write_tokens: row.get(6)?,
    })
}
