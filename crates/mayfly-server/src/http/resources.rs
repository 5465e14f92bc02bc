//! What of the library others are told, and what a machine gets of it: each resource of its own task's lock, by content,
//! and nothing else.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use mayfly_core::TaskId;
use mayfly_library::Lock;
use mayfly_wire::api::KeptLock;

use super::extract::{Task, TaskPath, admit};
use super::problem::{Kind, Problem};
use super::{Machine, Owner, download};

/// `GET /v1/worker/resources/{sha256}`
pub(super) async fn fetch(
    State(app): State<Machine>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let attempt = admit(&app, &headers).await?;
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
        (status = 404, description = "No such task, or it has no resources, or what it had is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn lock(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    let lock = lock_of(&app, id).await?;
    Ok(([(CONTENT_TYPE, "application/json")], lock).into_response())
}

/// The lock of a task, or why it has none.
pub(super) async fn lock_of(app: &Owner, id: TaskId) -> Result<String, Problem> {
    if let Some(lock) = app.engine.lock_of(id).await? {
        return Ok(lock);
    }
    let forgotten = app.engine.forgotten_lock(id).await?;
    Err(forgotten.map_or_else(Problem::no_lock, |sha256| Problem::forgotten_lock(&sha256)))
}

/// `HEAD /v1/resources/{sha256}`: whether a resource is here, so that it need not be handed over.
#[utoipa::path(
    head,
    path = "/v1/resources/{sha256}",
    params(("sha256" = String, Path, description = "The SHA-256 of the archive, in hex")),
    responses(
        (status = 204, description = "It is kept"),
        (status = 404, description = "It is not"),
    ),
)]
pub(super) async fn is_kept(
    State(app): State<Owner>,
    Path(sha256): Path<String>,
) -> Result<StatusCode, Problem> {
    match app.engine.has_resource(sha256).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::no_resource()),
    }
}

/// `PUT /v1/resources/{sha256}`: keeps a resource of a library elsewhere, for a lock to name.
#[utoipa::path(
    put,
    path = "/v1/resources/{sha256}",
    params(("sha256" = String, Path, description = "The SHA-256 of the archive, in hex")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The archive of a resource"),
    responses(
        (status = 204, description = "It is kept"),
        (status = 413, description = "Too long", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not that archive, or none of a resource", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn keep(
    State(app): State<Owner>,
    Path(sha256): Path<String>,
    archive: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let archive = archive.map_err(|error| too_large(&error))?;
    app.engine.keep_resource(sha256, archive.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/locks`: keeps a lock of a library elsewhere, for tasks to name.
#[utoipa::path(
    post,
    path = "/v1/locks",
    request_body(content = String, content_type = "application/json", description = "A lock, as `mayfly library lock --json` prints it, whose resources were handed over"),
    responses(
        (status = 201, description = "What a task is to name", body = KeptLock),
        (status = 413, description = "Too long", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not such a lock, or a resource of it is not here", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn keep_lock(
    State(app): State<Owner>,
    lock: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<KeptLock>), Problem> {
    let lock = lock.map_err(|error| too_large(&error))?;
    let lock: Lock = serde_json::from_slice(&lock).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidLock, format!("this is no lock: {error}"))
    })?;
    let lock = app.engine.keep_lock(lock).await?;
    Ok((StatusCode::CREATED, Json(KeptLock { lock })))
}

pub(super) fn too_large(error: &BytesRejection) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::TooLarge, "it is longer than a resource can be")
        }
        _ => Problem::bad_request("the body broke off"),
    }
}
