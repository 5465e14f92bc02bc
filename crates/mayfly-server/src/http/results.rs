//! What came out of a machine, as it came. The bytes are the machine's: the receiver must not trust them.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use mayfly_core::TaskId;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::Owner;
use super::extract::Task;
use super::problem::Problem;

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

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
    let file = match File::open(folder.join(name)).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Problem::no_result()),
        opened => opened.map_err(|error| Problem::disk(&error))?,
    };
    let bytes = file.metadata().await.map_err(|error| Problem::disk(&error))?.len();
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, bytes.to_string())];
    Ok((headers, Body::from_stream(ReaderStream::with_capacity(file, READ_BYTES))).into_response())
}
