//! What came out of a machine, as it came. The bytes are the machine's: the receiver must not trust them.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use mayfly_core::{Attempt, TaskId};
use mayfly_engine::{ARTIFACTS, BUNDLE, TRANSCRIPT, result_folder};
use mayfly_git::Work;
use mayfly_library::artifacts::{BadArtifacts, Member, find, list};
use mayfly_wire::api::{self, TaskResult};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::download;
use super::extract::{Asked, Task, TaskPath, admit, task_called};
use super::problem::Problem;
use super::{Machine, Owner};
use crate::began::Began;

/// The query of what came out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    /// The attempt that it came out of. Default: the last of which anything did.
    attempt: Option<u32>,
}

/// `GET /v1/tasks/{id}/result`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result",
    params(TaskPath, Of),
    responses(
        (status = 200, description = "How it ended, and what came out", body = TaskResult),
        (status = 404, description = "No such task", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not over, or the ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn summary(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(of): Asked<Of>,
) -> Result<Json<TaskResult>, Problem> {
    let task = kept(&app, id, &of).await?;
    let outcome = task.outcome.ok_or_else(|| Problem::not_over(&task.short))?;
    let (attempt, usage) = (task.result_attempt, task.usage);
    let others = app.engine.collected(id).await?.into_iter();
    let others = others.filter(|(other, left)| left.bundle && Some(*other) != attempt);
    let other_attempts = others.map(|(attempt, _)| attempt).collect();
    Ok(Json(TaskResult { outcome, usage, attempt, collected: task.result, other_attempts }))
}

/// `GET /v1/tasks/{id}/result/bundle`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/bundle",
    params(TaskPath, Of),
    responses(
        (status = 200, description = "A git bundle; what it builds on is in the workspace of the task", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or nothing came out of it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn bundle(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(of): Asked<Of>,
) -> Result<Response, Problem> {
    file(&app, id, &of, BUNDLE).await
}

/// `GET /v1/tasks/{id}/result/transcript`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/transcript",
    params(TaskPath, Of),
    responses(
        (status = 200, description = "The session file of the CLI", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or nothing came out of it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn transcript(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(of): Asked<Of>,
) -> Result<Response, Problem> {
    file(&app, id, &of, TRANSCRIPT).await
}

/// `GET /v1/tasks/{id}/result/artifacts`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/artifacts",
    params(TaskPath, Of),
    responses(
        (status = 200, description = "What it left besides its work, by name", body = [api::Artifact]),
        (status = 404, description = "No such task, or it left none", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn artifacts(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(of): Asked<Of>,
) -> Result<Json<Vec<api::Artifact>>, Problem> {
    let path = result_file(&app, id, &of, ARTIFACTS).await?;
    let members = read_artifacts(path, list).await?;
    let artifact = |member: Member| api::Artifact { name: member.path, bytes: member.bytes };
    Ok(Json(members.into_iter().map(artifact).collect()))
}

/// `GET /v1/tasks/{id}/result/artifacts.tar`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/artifacts.tar",
    params(TaskPath, Of),
    responses(
        (status = 200, description = "All of them in one archive: plain files by path, and nothing else", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or it left none", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn artifacts_archive(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(of): Asked<Of>,
) -> Result<Response, Problem> {
    file(&app, id, &of, ARTIFACTS).await
}

/// `GET /v1/tasks/{id}/result/artifacts/{name}`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/artifacts/{name}",
    params(
        ("id" = String, Path, description = "The id of a task, or any end of it with at least 4 hex digits"),
        ("name" = String, Path, description = "Its path below the workspace, with each `/` as `%2F`"),
        Of,
    ),
    responses(
        (status = 200, description = "The file, as it came out of the machine", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or it left no such file", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn artifact(
    State(app): State<Owner>,
    Path((id, name)): Path<(String, String)>,
    Asked(of): Asked<Of>,
) -> Result<Response, Problem> {
    let id = task_called(&app, &id).await?;
    let path = result_file(&app, id, &of, ARTIFACTS).await?;
    let found = read_artifacts(path.clone(), move |archive| find(archive, &name)).await?;
    let member = found.ok_or_else(Problem::no_result)?;
    download::part(&path, member.at, member.bytes, Problem::no_result).await
}

async fn read_artifacts<T: Send + 'static>(
    path: PathBuf,
    read: impl FnOnce(BufReader<File>) -> Result<T, BadArtifacts> + Send + 'static,
) -> Result<T, Problem> {
    let reading = spawn_blocking(move || File::open(path).map(|file| read(BufReader::new(file))));
    match reading.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(read) => read.map_err(|error| Problem::bad_artifacts(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Problem::no_result()),
        Err(error) => Err(Problem::disk(&error)),
    }
}

/// `GET /v1/tasks/{id}/result/patch`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/patch",
    params(TaskPath, Of),
    responses(
        (status = 200, description = "What was changed, as `git apply` takes it", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or nothing was changed in it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "What came back is not fit for a repository", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn patch(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(of): Asked<Of>,
) -> Result<Response, Problem> {
    let task = kept(&app, id, &of).await?;
    let head = task.result.and_then(|result| result.head.filter(|_| result.bundle));
    let (head, attempt) = head.zip(task.result_attempt).ok_or_else(Problem::no_result)?;
    let bundle = result_folder(&app.results, id.attempt(Attempt(attempt))).join(BUNDLE);
    let scratch = tempfile::tempdir_in(&app.incoming).map_err(|error| Problem::disk(&error))?;
    let began = task.workspace.as_ref().map(|from| Began::of(&app.workspaces, from));
    let base = began.as_ref().map(Began::base);
    let (git, made) = (&app.git, scratch.path().join("patch"));
    let work = Work::open(git, scratch.path(), base, &bundle, &head).await.map_err(Problem::git)?;
    work.patch(&made).await.map_err(Problem::git)?;
    // It is open by the time that its folder goes.
    download::file(&made, Problem::no_result).await
}

/// A task of which the result is kept, if it has one: with that of the attempt that was asked for.
async fn kept(app: &Owner, id: TaskId, of: &Of) -> Result<api::Task, Problem> {
    let task = app.engine.task(id).await?.ok_or_else(Problem::no_task)?;
    if task.pruned {
        return Err(Problem::pruned(&task.short));
    }
    let Some(attempt) = of.attempt else { return Ok(task) };
    let result = app.engine.collected(id).await?.remove(&attempt).ok_or_else(Problem::no_result)?;
    Ok(api::Task { result: Some(result), result_attempt: Some(attempt), ..task })
}

/// `GET /v1/worker/resumed/{name}`: what was left by the task with which the machine's own goes on.
pub(super) async fn resumed(
    State(app): State<Machine>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let attempt = admit(&app, &headers).await?;
    let path = app.entry.resumed_file(attempt, &name).await?.ok_or_else(Problem::denied)?;
    download::file(&path, Problem::no_result).await
}

async fn file(app: &Owner, id: TaskId, of: &Of, name: &str) -> Result<Response, Problem> {
    download::file(&result_file(app, id, of, name).await?, Problem::no_result).await
}

async fn result_file(app: &Owner, id: TaskId, of: &Of, name: &str) -> Result<PathBuf, Problem> {
    let task = kept(app, id, of).await?;
    let attempt = task.result_attempt.ok_or_else(Problem::no_result)?;
    Ok(result_folder(&app.results, id.attempt(Attempt(attempt))).join(name))
}
