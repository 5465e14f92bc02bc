//! What of the library others are told, and what a machine gets of it: each resource of its own task's lock, by content,
//! and nothing else.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use mayfly_wire::api::Library;
use serde::Deserialize;

use super::extract::{Asked, Task, TaskPath, bearer};
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

/// The query of the library.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Of {
    /// The namespace besides `_global`. Default: none.
    project: Option<String>,
}

/// `GET /v1/library`: what a task would get now.
#[utoipa::path(
    get,
    path = "/v1/library",
    params(Of),
    responses(
        (status = 200, description = "What a task of the project would get, as the library is now", body = Library),
        (status = 400, description = "There is something else in the query, or `project` is no name", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something is wrong in the library that the task would get: a line each, with file, line and column", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    State(app): State<Owner>,
    Asked(Of { project }): Asked<Of>,
) -> Result<Json<Library>, Problem> {
    let project = project.as_deref().map(str::parse).transpose();
    let project =
        project.map_err(|error| Problem::bad_request(format!("`project` is no such name: {error}")))?;
    Ok(Json(app.engine.library(project).await?))
}
