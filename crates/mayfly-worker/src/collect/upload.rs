//! Hands a file over: `PUT /v1/worker/result/<name>`.

use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::exchange::{Exchange, ExchangeError};

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// What is read of the file at once.
const CHUNK_BYTES: usize = 64 * 1024;

impl Exchange<'_> {
    /// Hands `file` over as `name`.
    pub(crate) async fn put(&self, name: &str, file: &Path) -> Result<(), ExchangeError> {
        self.put_at(&format!("/v1/worker/result/{name}"), file).await
    }

    /// Hands `file` over at this place, and again until it is there.
    pub(crate) async fn put_at(&self, path: &str, file: &Path) -> Result<(), ExchangeError> {
        self.until_answered(path, || self.put_to(path.to_owned(), file)).await.map(drop)
    }

    /// Hands `file` over at this place, once.
    pub(crate) async fn put_to(&self, path: String, file: &Path) -> Result<Bytes, ExchangeError> {
        let file = File::open(file).await.map_err(ExchangeError::Unreadable)?;
        let length = file.metadata().await.map_err(ExchangeError::Unreadable)?.len();
        let body = ReaderStream::with_capacity(file, CHUNK_BYTES).map_ok(Frame::<Bytes>::data);
        let head = self.head(Method::PUT, &path);
        let request = head.header(CONTENT_LENGTH, length).body(StreamBody::new(body));
        let request = request.map_err(|error| ExchangeError::Refused {
            status: StatusCode::BAD_REQUEST,
            answer: error.to_string(),
        })?;
        self.once(request, ANSWER_BYTES_MAX).await
    }
}
