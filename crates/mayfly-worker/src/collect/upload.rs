//! Hands a file over: `PUT /v1/worker/result/<name>`, by a connection of its own.
//!
//! While the orchestrator is away, or in trouble of its own, it is tried again, as long as the caller waits.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_link::{BackOff, Dial};
use mayfly_wire::Secret;
use tokio::fs::File;
use tokio::time::sleep;
use tokio_util::io::ReaderStream;

use crate::Random;
use crate::claude::interpret::shorten;

/// What is read of a refusal.
const REFUSAL_BYTES_MAX: usize = 8 * 1024;
/// What is read of the file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The way to hand over.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    pub(crate) way: &'a dyn Dial,
    pub(crate) token: &'a Secret,
    pub(crate) random: Random,
}

impl Upload<'_> {
    /// Hands `file` over as `name`.
    pub(crate) async fn put(&self, name: &str, file: &Path) -> Result<(), UploadError> {
        let mut back_off = BackOff::new(self.random);
        loop {
            match self.once(name, file).await {
                Err(UploadError::Broken(error)) => {
                    tracing::debug!(%error, name, "not handed over yet");
                    sleep(back_off.wait()).await;
                }
                done => return done,
            }
        }
    }

    async fn once(&self, name: &str, file: &Path) -> Result<(), UploadError> {
        let file = File::open(file).await.map_err(UploadError::Unreadable)?;
        let length = file.metadata().await.map_err(UploadError::Unreadable)?.len();
        let body = ReaderStream::with_capacity(file, CHUNK_BYTES).map_ok(Frame::<Bytes>::data);
        let request = Request::put(format!("/v1/worker/result/{name}"))
            .header(HOST, self.way.host())
            .header(AUTHORIZATION, format!("Bearer {}", self.token.expose()))
            .header(CONTENT_LENGTH, length)
            .body(StreamBody::new(body))
            .map_err(|error| UploadError::Refused {
                status: StatusCode::BAD_REQUEST,
                answer: error.to_string(),
            })?;
        let broken = |error: hyper::Error| UploadError::Broken(Box::new(error));
        let stream = self.way.connect().await.map_err(|error| UploadError::Broken(error.into()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        driver.abort();
        let words =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        judge(status, &words)
    }
}

fn judge(status: StatusCode, words: &str) -> Result<(), UploadError> {
    if status.is_success() {
        return Ok(());
    }
    let refused = UploadError::Refused { status, answer: shorten(words) };
    if status.is_server_error() {
        return Err(UploadError::Broken(Box::new(refused)));
    }
    Err(refused)
}

/// Why a file was not handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// The orchestrator does not want it; asking again will not help.
    #[error("the orchestrator refused it with {status}: {answer}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        answer: String,
    },
    /// It did not get through; later may be better.
    #[error("it did not get through")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}
