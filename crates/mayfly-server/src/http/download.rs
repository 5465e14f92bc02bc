//! A file as an answer, a piece at a time.

use std::io::{ErrorKind, SeekFrom};
use std::path::Path;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::problem::Problem;

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// The bytes of the file at `path`; `missing` is the answer if there is none.
pub(super) async fn file(path: &Path, missing: fn() -> Problem) -> Result<Response, Problem> {
    let file = open(path, missing).await?;
    let bytes = file.metadata().await.map_err(|error| Problem::disk(&error))?.len();
    Ok(answer(file, bytes))
}

/// The same for `bytes` of it, from `at` on.
pub(super) async fn part(
    path: &Path,
    at: u64,
    bytes: u64,
    missing: fn() -> Problem,
) -> Result<Response, Problem> {
    let mut file = open(path, missing).await?;
    file.seek(SeekFrom::Start(at)).await.map_err(|error| Problem::disk(&error))?;
    Ok(answer(file.take(bytes), bytes))
}

async fn open(path: &Path, missing: fn() -> Problem) -> Result<File, Problem> {
    match File::open(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing()),
        opened => opened.map_err(|error| Problem::disk(&error)),
    }
}

fn answer(content: impl AsyncRead + Send + 'static, bytes: u64) -> Response {
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, bytes.to_string())];
    (headers, Body::from_stream(ReaderStream::with_capacity(content, READ_BYTES))).into_response()
}
