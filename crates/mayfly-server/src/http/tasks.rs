//! Tasks: submitted, listed, shown, cancelled, asked for again.

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mayfly_core::{TaskId, TaskState};
use mayfly_engine::Listing;
use mayfly_wire::api::{self, IDEMPOTENCY_KEY_BYTES_MAX};
use serde::Deserialize;

use super::Owner;
use super::extract::{Asked, Body, Task};
use super::problem::Problem;

/// How many tasks a list has that is not asked for more or fewer.
const LIMIT: u32 = 100;

/// `POST /v1/tasks`: accepts a task, and answers before it has run.
pub(super) async fn create(
    State(app): State<Owner>,
    headers: HeaderMap,
    Body(task): Body<api::CreateTask>,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let task = app.engine.submit(task, idempotency_key(&headers)?).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The name of a state.
    state: Option<String>,
    /// The last task of the page before.
    cursor: Option<String>,
    /// How many. Default: 100.
    limit: Option<u32>,
}

/// `GET /v1/tasks?state=&cursor=&limit=`: the newest first.
pub(super) async fn list(
    State(app): State<Owner>,
    Asked(Which { state, cursor, limit }): Asked<Which>,
) -> Result<Json<Vec<api::Task>>, Problem> {
    let state = state.map(|name| state_name(&name)).transpose()?;
    let before = cursor.map(|id| id.parse::<TaskId>()).transpose();
    let before = before.map_err(|error| Problem::bad_request(format!("`cursor`: {error}")))?;
    let listing = Listing { state, before, most: limit.unwrap_or(LIMIT) };
    Ok(Json(app.engine.tasks(listing).await?))
}

fn state_name(name: &str) -> Result<&'static str, Problem> {
    let known = TaskState::NAMES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| Problem::bad_request(format!("`state` is one of {}", TaskState::NAMES.join(", "))))
}

/// `GET /v1/tasks/{id}`
pub(super) async fn show(State(app): State<Owner>, Task(id): Task) -> Result<Json<api::Task>, Problem> {
    app.engine.task(id).await?.map(Json).ok_or_else(Problem::no_task)
}

/// `POST /v1/tasks/{id}/cancel`: answers before the task has ended.
pub(super) async fn cancel(
    State(app): State<Owner>,
    Task(id): Task,
    Body(cancel): Body<api::Cancel>,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let task = app.engine.cancel(id, cancel.force).await?.ok_or_else(Problem::no_task)?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// `POST /v1/tasks/{id}/retry`: accepts a new task like one that is over.
pub(super) async fn retry(
    State(app): State<Owner>,
    Task(id): Task,
    headers: HeaderMap,
    Body(retry): Body<api::Retry>,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let task = app.engine.retry(id, retry.credential, idempotency_key(&headers)?).await?;
    Ok((StatusCode::ACCEPTED, Json(task.ok_or_else(Problem::no_task)?)))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    let bad = || {
        let most = IDEMPOTENCY_KEY_BYTES_MAX;
        Problem::bad_request(format!("`Idempotency-Key` is not 1 to {most} ASCII characters"))
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(bad)
}
