//! What came out of a machine, as it came. The bytes are the machine's: the receiver must not trust them.

use axum::extract::State;
use axum::response::Response;
use mayfly_core::TaskId;

use super::Owner;
use super::download;
use super::extract::Task;
use super::problem::Problem;

/// `GET /v1/tasks/{id}/result/bundle`
pub(super) async fn bundle(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    file(&app, id, "bundle").await
}

/// `GET /v1/tasks/{id}/result/transcript`
pub(super) async fn transcript(State(app): State<Owner>, Task(id): Task) -> Result<Response, Problem> {
    file(&app, id, "transcript").await
}

async fn file(app: &Owner, id: TaskId, name: &str) -> Result<Response, Problem> {
    let task = app.engine.task(id).await?.ok_or_else(Problem::no_task)?;
    let attempt = task.result_attempt.ok_or_else(Problem::no_result)?;
    let folder = app.results.join(id.to_string()).join(attempt.to_string());
    download::file(&folder.join(name), Problem::no_result).await
}
