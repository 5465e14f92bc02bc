//! What a machine gets of the library: each resource of its own task's lock, by content, and nothing else of it.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::extract::{Task, TaskPath, bearer};
use super::problem::Problem;
use super::{Machine, Owner, download};

/// `GET /v1/worker/resources/{sha256}`
pub(super) async fn fetch(
    State(app): State<Machine>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let token = bearer(&headers).ok_or_else(Problem::denied)?;
    let attempt = app.entry.admit_result(token).await.map_err(|_| Problem::denied())?;
    let path = app.entry.resource(attempt, &sha256).await?.ok_or_else(Problem::denied)?;
    download::file(&path, Problem::no_resource).await
}

/// `GET /v1/tasks/{id}/lock`: the resources that the task runs with, by content.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/lock",
    params(TaskPath),
    responses(
        (status = 200, description = "The lock; the SHA-256 of these bytes is its name", body = String, content_type = "application/json"),
        (status = 404, description = "No such task, or it has no resources", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn lock(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    let lock = app.engine.lock_of(id).await?.ok_or_else(Problem::no_lock)?;
    Ok(([(CONTENT_TYPE, "application/json")], lock).into_response())
}
