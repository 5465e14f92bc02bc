//! Tasks: submitted, listed, shown, cancelled, asked for again.

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mayfly_core::{TaskId, TaskState};
use mayfly_engine::Listing;
use mayfly_wire::api::{self, IDEMPOTENCY_KEY_BYTES_MAX};
use serde::Deserialize;

use super::Owner;
use super::extract::{Asked, Body, NewTask, Task, TaskPath};
use super::problem::Problem;

/// How many tasks a list has that is not asked for more or fewer.
const LIMIT: u32 = 100;

/// `POST /v1/tasks`: accepts a task, and answers before it has run.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 100 ASCII characters: the same key with the same task is the same task")),
    request_body = api::CreateTask,
    responses(
        (status = 202, description = "Accepted, and durable", body = api::Task),
        (status = 409, description = "The key was used for another task", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something about it cannot be, or there is no credential for it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(app): State<Owner>,
    headers: HeaderMap,
    NewTask(task): NewTask,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let key = idempotency_key(&headers)?;
    let task = app.engine.submit(task, key).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// The query of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
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
#[utoipa::path(
    get,
    path = "/v1/tasks",
    params(Which),
    responses(
        (status = 200, description = "Newest first", body = [api::Task]),
        (status = 400, description = "No such state, or no id", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(app): State<Owner>,
    Asked(Which { state, cursor, limit }): Asked<Which>,
) -> Result<Json<Vec<api::Task>>, Problem> {
    let state = state.map(|name| state_name(&name)).transpose()?;
    let before = cursor.map(|id| cursor_id(&id)).transpose()?;
    let listing = Listing { state, before, most: limit.unwrap_or(LIMIT) };
    Ok(Json(app.engine.tasks(listing).await?))
}

pub(super) fn cursor_id(id: &str) -> Result<TaskId, Problem> {
    id.parse().map_err(|error| Problem::bad_request(format!("`cursor`: {error}")))
}

pub(super) fn state_name(name: &str) -> Result<&'static str, Problem> {
    let known = TaskState::NAMES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| Problem::bad_request(format!("`state` is one of {}", TaskState::NAMES.join(", "))))
}

/// `GET /v1/tasks/{id}`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}",
    params(TaskPath),
    responses(
        (status = 200, description = "As it stands", body = api::Task),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(State(app): State<Owner>, Task(id): Task) -> Result<Json<api::Task>, Problem> {
    app.engine.task(id).await?.map(Json).ok_or_else(Problem::no_task)
}

/// `POST /v1/tasks/{id}/cancel`: answers before the task has ended.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/cancel",
    params(TaskPath),
    request_body = api::Cancel,
    responses(
        (status = 202, description = "Asked for; its events tell of its end", body = api::Task),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    State(app): State<Owner>,
    Task(id): Task,
    Body(cancel): Body<api::Cancel>,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let task = app.engine.cancel(id, cancel.force).await?.ok_or_else(Problem::no_task)?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// `POST /v1/tasks/{id}/retry`: accepts a new task like one that is over.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/retry",
    params(TaskPath, ("Idempotency-Key" = Option<String>, Header, description = "1 to 100 ASCII characters: the same key with the same task is the same task")),
    request_body = api::Retry,
    responses(
        (status = 202, description = "The new task", body = api::Task),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not over, or the ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn retry(
    State(app): State<Owner>,
    Task(id): Task,
    headers: HeaderMap,
    Body(retry): Body<api::Retry>,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let key = idempotency_key(&headers)?;
    let task = app.engine.retry(id, retry, key).await?;
    Ok((StatusCode::ACCEPTED, Json(task.ok_or_else(Problem::no_task)?)))
}

/// `POST /v1/tasks/{id}/resume`: accepts a new task that goes on where one that is over ended.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/resume",
    params(TaskPath, ("Idempotency-Key" = Option<String>, Header, description = "1 to 100 ASCII characters: the same key with the same task is the same task")),
    request_body = api::Resume,
    responses(
        (status = 202, description = "The new task", body = api::Task),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not over, or nothing is left of it to go on with, or the ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something about it cannot be, or there is no credential for it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn resume(
    State(app): State<Owner>,
    Task(id): Task,
    headers: HeaderMap,
    Body(resume): Body<api::Resume>,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let key = idempotency_key(&headers)?;
    let task = app.engine.resume(id, resume, key).await?;
    Ok((StatusCode::ACCEPTED, Json(task.ok_or_else(Problem::no_task)?)))
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    let bad = || {
        let most = IDEMPOTENCY_KEY_BYTES_MAX;
        Problem::bad_request(format!("`Idempotency-Key` is not 1 to {most} ASCII characters"))
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(bad)
}
