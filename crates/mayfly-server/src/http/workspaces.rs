//! The code that tasks work on: a git bundle each, stored under its own hash. One that is on top of another holds only
//! what that has not. How they come in parts is the business of [`parts`](super::parts).

use std::io;
use std::path::Path;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use mayfly_core::sha256_of;
use mayfly_engine::bundle_of;
use mayfly_git::{Git, whole};
use mayfly_library::pack::is_sha256;
use mayfly_wire::api::{COMMITS_MAX, Commits, Known, WholeBundle, Workspace};
use mayfly_wire::worker::WORKSPACE_BYTES_MAX;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::extract::{Asked, Task, TaskPath, admit};
use super::problem::{Kind, Problem};
use super::{Machine, Owner, download};
use crate::began::Began;
use crate::bundle;
use crate::incoming::Incoming;

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
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A git bundle of one commit with all of its history, or with as much as is there: then a ref `refs/mayfly/cut/COMMIT` for each commit whose parents are not"),
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
    let incoming = Incoming::receive(body.into_data_stream(), &app.incoming, WORKSPACE_BYTES_MAX).await?;
    let file = std::fs::File::open(incoming.path()).map_err(|error| Problem::disk(&error))?;
    let hashed = tokio::task::spawn_blocking(move || sha256_of(file)).await.expect("it does not panic");
    let sha256 = hashed.map_err(|error| Problem::disk(&error))?;
    let workspace = brought(&app, incoming.path(), &sha256, name, None).await?;
    let kept = incoming.keep(&bundle_of(&app.workspaces, &workspace.id)).await;
    kept.map_err(|error| Problem::disk(&error))?;
    Ok((StatusCode::CREATED, Json(workspace)))
}

/// What a task is to name of a bundle that is on top of the one with the id `on`, or of none.
pub(super) async fn brought(
    app: &Owner,
    bundle: &Path,
    id: &str,
    name: String,
    on: Option<&str>,
) -> Result<Workspace, Problem> {
    let brought = read(bundle).await?.map_err(invalid)?;
    let on = match (brought.on, on) {
        (None, None) => None,
        (Some(_), None) => {
            return Err(invalid("needs commits that are not in it: make it of the whole history"));
        }
        (None, Some(_)) => return Err(invalid("is on top of no other: leave `on` out")),
        (Some(needed), Some(on)) => match whole_bundle(app, on).await? {
            Some(whole) if whole.base == needed => Some(whole),
            _ => return Err(invalid("is not on top of the whole bundle that `on` names")),
        },
    };
    Ok(Workspace { id: id.to_owned(), name, base: brought.base, on, origin: None })
}

/// The bundle with this id, if it is here and holds all of its commit.
async fn whole_bundle(app: &Owner, id: &str) -> Result<Option<WholeBundle>, Problem> {
    if !is_sha256(id) || !app.engine.has_bundle(id) {
        return Ok(None);
    }
    let brought = read(&bundle_of(&app.workspaces, id)).await?.ok().filter(bundle::Brought::is_whole);
    Ok(brought.map(|brought| WholeBundle { id: id.to_owned(), base: brought.base }))
}

pub(super) async fn read(bundle: &Path) -> Result<Result<bundle::Brought, &'static str>, Problem> {
    let head = head(bundle).await.map_err(|error| Problem::disk(&error))?;
    Ok(bundle::read(&head))
}

/// `POST /v1/workspaces/known`: which of some commits are here, so that what is on top of them is all that need come.
#[utoipa::path(
    post,
    path = "/v1/workspaces/known",
    request_body = Commits,
    responses(
        (status = 200, description = "The bundle of the first of them that is here whole", body = Known),
        (status = 400, description = "Not such a body, or too many commits", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn known(
    State(app): State<Owner>,
    Json(Commits { commits }): Json<Commits>,
) -> Result<Json<Known>, Problem> {
    if commits.len() > COMMITS_MAX {
        return Err(Problem::bad_request(format!("{COMMITS_MAX} commits are the most")));
    }
    let folder = app.workspaces.clone();
    let found = tokio::task::spawn_blocking(move || first_whole(&folder, &commits)).await;
    let found = found.expect("reading does not panic").map_err(|error| Problem::disk(&error))?;
    // It may be old, and is asked for now.
    Ok(Json(Known { whole: found.filter(|whole| app.engine.has_bundle(&whole.id)) }))
}

/// Looks into the head of each bundle: there are as many as tasks that began with something else than those before.
fn first_whole(folder: &Path, commits: &[String]) -> io::Result<Option<WholeBundle>> {
    use std::io::Read as _;
    let mut best: Option<(usize, WholeBundle)> = None;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".bundle"));
        let Some(id) = id else { continue };
        let mut head = Vec::new();
        let opened = std::fs::File::open(&path);
        // One that goes meanwhile is not here.
        let most = bundle::WHOLE_HEAD_BYTES_MAX as u64;
        if opened.and_then(|file| file.take(most).read_to_end(&mut head)).is_err() {
            continue;
        }
        let Some(bundle::Brought { base, .. }) = bundle::read(&head).ok().filter(bundle::Brought::is_whole)
        else {
            continue;
        };
        let place = commits.iter().position(|commit| *commit == base);
        if let Some(place) = place.filter(|place| best.as_ref().is_none_or(|(best, _)| place < best)) {
            best = Some((place, WholeBundle { id: id.to_owned(), base }));
        }
    }
    Ok(best.map(|(_, whole)| whole))
}

/// `GET /v1/tasks/{id}/workspace`: what the task started from.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/workspace",
    params(TaskPath),
    responses(
        (status = 200, description = "The git bundle that the task started from, with its history: all of it, or as far as the refs `refs/mayfly/cut/COMMIT` say", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or it started from nothing", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn download(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    let task = app.engine.task(id).await?.ok_or_else(Problem::no_task)?;
    let workspace = task.workspace.ok_or_else(Problem::no_workspace)?;
    whole_of(&workspace, &app.workspaces, &app.incoming, &app.git).await
}

/// `GET /v1/worker/workspace`: what the machine's own task starts from.
pub(super) async fn fetch(State(app): State<Machine>, headers: HeaderMap) -> Result<Response, Problem> {
    let attempt = admit(&app, &headers).await?;
    let workspace = app.entry.workspace(attempt).await?.ok_or_else(Problem::no_workspace)?;
    whole_of(&workspace, &app.workspaces, &app.incoming, &app.git).await
}

/// One bundle with all of the history, made of two where it came on top of another.
async fn whole_of(
    workspace: &Workspace,
    workspaces: &Path,
    incoming: &Path,
    git: &Git,
) -> Result<Response, Problem> {
    let began = Began::of(workspaces, workspace);
    if began.is_whole() {
        return download::file(began.bundle(), Problem::no_workspace).await;
    }
    let scratch = tempfile::tempdir_in(incoming).map_err(|error| Problem::disk(&error))?;
    let made = scratch.path().join("whole.bundle");
    whole(git, scratch.path(), began.base(), &made).await.map_err(Problem::git)?;
    // It is open by the time that its folder goes.
    download::file(&made, Problem::no_workspace).await
}

pub(super) fn invalid(reason: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidWorkspace, format!("the workspace {reason}"))
}

async fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path).await?.take(bundle::HEAD_BYTES_MAX as u64).read_to_end(&mut head).await?;
    Ok(head)
}
