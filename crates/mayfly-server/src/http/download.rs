//! A file as an answer, a piece at a time.

use std::io::ErrorKind;
use std::path::Path;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::problem::Problem;

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// The bytes of the file at `path`; `missing` is the answer if there is none.
pub(super) async fn file(path: &Path, missing: fn() -> Problem) -> Result<Response, Problem> {
    let file = match File::open(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
        opened => opened.map_err(|error| Problem::disk(&error))?,
    };
    let bytes = file.metadata().await.map_err(|error| Problem::disk(&error))?.len();
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, bytes.to_string())];
    Ok((headers, Body::from_stream(ReaderStream::with_capacity(file, READ_BYTES))).into_response())
}
