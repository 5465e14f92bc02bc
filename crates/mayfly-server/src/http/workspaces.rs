//! The code that tasks work on: a git bundle each, stored under its own hash.

use std::io;
use std::path::Path;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mayfly_wire::api::Workspace;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::Owner;
use super::download;
use super::extract::{Asked, Task, TaskPath};
use super::problem::{Kind, Problem};
use crate::bundle;
use crate::incoming::Incoming;

/// The longest bundle of a workspace.
const BUNDLE_BYTES_MAX: u64 = 8 << 30;

/// The query of an upload.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// The folder's name under `/workspace`; it is checked when a task asks for it.
    name: String,
}

/// `POST /v1/workspaces?name=REPO`: stores a bundle, and answers with what a task is to name.
#[utoipa::path(
    post,
    path = "/v1/workspaces",
    params(Named),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A git bundle with one ref"),
    responses(
        (status = 201, description = "What a task is to name", body = Workspace),
        (status = 413, description = "Too long", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not such a bundle", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn upload(
    State(app): State<Owner>,
    Asked(Named { name }): Asked<Named>,
    body: Body,
) -> Result<(StatusCode, Json<Workspace>), Problem> {
    let incoming = Incoming::receive(body.into_data_stream(), &app.incoming, BUNDLE_BYTES_MAX).await?;
    let head = head(incoming.path()).await.map_err(|error| Problem::disk(&error))?;
    let base = bundle::base(&head).map_err(invalid)?;
    let id = incoming.sha256.clone();
    let kept = incoming.keep(&app.workspaces.join(format!("{id}.bundle"))).await;
    kept.map_err(|error| Problem::disk(&error))?;
    Ok((StatusCode::CREATED, Json(Workspace { id, name, base })))
}

/// `GET /v1/tasks/{id}/workspace`: what the task started from.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/workspace",
    params(TaskPath),
    responses(
        (status = 200, description = "The git bundle that the task started from", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or it started from nothing", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn download(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    let task = app.engine.task(id).await?.ok_or_else(Problem::no_task)?;
    let workspace = task.workspace.ok_or_else(Problem::no_workspace)?;
    let path = app.workspaces.join(format!("{}.bundle", workspace.id));
    download::file(&path, Problem::no_workspace).await
}

pub(super) fn invalid(reason: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidWorkspace, format!("the workspace {reason}"))
}

async fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path).await?.take(bundle::HEAD_BYTES_MAX as u64).read_to_end(&mut head).await?;
    Ok(head)
}
