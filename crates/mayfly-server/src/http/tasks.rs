//! Tasks: submitted, listed, shown, cancelled.

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mayfly_wire::api::{self, IDEMPOTENCY_KEY_BYTES_MAX};

use super::Owner;
use super::extract::{Body, Task};
use super::problem::Problem;

/// `POST /v1/tasks`: accepts a task, and answers before it has run.
pub(super) async fn create(
    State(app): State<Owner>,
    headers: HeaderMap,
    Body(task): Body<api::CreateTask>,
) -> Result<(StatusCode, Json<api::Task>), Problem> {
    let task = app.engine.submit(task, idempotency_key(&headers)?).await?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

/// `GET /v1/tasks`: the newest first.
pub(super) async fn list(State(app): State<Owner>) -> Result<Json<Vec<api::Task>>, Problem> {
    Ok(Json(app.engine.tasks().await?))
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

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    let bad = || {
        let most = IDEMPOTENCY_KEY_BYTES_MAX;
        Problem::bad_request(format!("`Idempotency-Key` is not 1 to {most} ASCII characters"))
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(bad)
}
