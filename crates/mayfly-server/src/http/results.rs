//! What came out of a machine, as it came. The bytes are the machine's: the receiver must not trust them.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use mayfly_core::{Attempt, TaskId};
use mayfly_engine::{BUNDLE, TRANSCRIPT, result_folder};
use mayfly_git::Work;
use mayfly_wire::api::{self, TaskResult};

use super::download;
use super::extract::{Task, TaskPath, bearer};
use super::problem::Problem;
use super::{Machine, Owner};
use crate::began::Began;

/// `GET /v1/tasks/{id}/result`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result",
    params(TaskPath),
    responses(
        (status = 200, description = "How it ended, and what came out", body = TaskResult),
        (status = 404, description = "No such task", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not over, or the ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn summary(State(app): State<Owner>, Task(id): Task) -> Result<Json<TaskResult>, Problem> {
    let task = kept(&app, id).await?;
    let outcome = task.outcome.ok_or_else(|| Problem::not_over(&task.short))?;
    let (attempt, usage) = (task.result_attempt, task.usage);
    Ok(Json(TaskResult { outcome, usage, attempt, collected: task.result }))
}

/// `GET /v1/tasks/{id}/result/bundle`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/bundle",
    params(TaskPath),
    responses(
        (status = 200, description = "A git bundle; what it builds on is in the workspace of the task", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or nothing came out of it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn bundle(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    file(&app, id, BUNDLE).await
}

/// `GET /v1/tasks/{id}/result/transcript`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/transcript",
    params(TaskPath),
    responses(
        (status = 200, description = "The session file of the CLI", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or nothing came out of it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn transcript(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    file(&app, id, TRANSCRIPT).await
}

/// `GET /v1/tasks/{id}/result/patch`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result/patch",
    params(TaskPath),
    responses(
        (status = 200, description = "What was changed, as `git apply` takes it", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such task, or nothing was changed in it", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was over too long ago, and is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "What came back is not fit for a repository", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn patch(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    let task = kept(&app, id).await?;
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

/// A task of which the result is kept, if it has one.
async fn kept(app: &Owner, id: TaskId) -> Result<api::Task, Problem> {
    let task = app.engine.task(id).await?.ok_or_else(Problem::no_task)?;
    if task.pruned { Err(Problem::pruned(&task.short)) } else { Ok(task) }
}

/// `GET /v1/worker/resumed/{name}`: what was left by the task with which the machine's own goes on.
pub(super) async fn resumed(
    State(app): State<Machine>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let token = bearer(&headers).ok_or_else(Problem::denied)?;
    let attempt = app.entry.admit_result(token).await.map_err(|_| Problem::denied())?;
    let path = app.entry.resumed_file(attempt, &name).await?.ok_or_else(Problem::denied)?;
    download::file(&path, Problem::no_result).await
}

async fn file(app: &Owner, id: TaskId, name: &str) -> Result<Response, Problem> {
    let task = kept(app, id).await?;
    let attempt = task.result_attempt.ok_or_else(Problem::no_result)?;
    let folder = result_folder(&app.results, id.attempt(Attempt(attempt)));
    download::file(&folder.join(name), Problem::no_result).await
}
