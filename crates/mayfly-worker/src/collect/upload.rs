//! Hands a file over, or a bundle as it is put together: `PUT /v1/worker/result/<name>`.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::unfold;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::fs::File;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::io::ReaderStream;

use super::bundle::Body;
use crate::exchange::{Exchange, ExchangeError};

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// What is read of the file at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// What is sent of a bundle at once, and how many such pieces wait.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_MAX: usize = 4;

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

    /// Hands a bundle over, and again until it is there.
    pub(crate) async fn put_bundle(&self, body: Body) -> Result<(), ExchangeError> {
        self.until_answered("bundle", || self.put_bundle_once(body.clone())).await.map(drop)
    }

    async fn put_bundle_once(&self, body: Body) -> Result<Bytes, ExchangeError> {
        let head = self.head(Method::PUT, "/v1/worker/result/bundle").header(CONTENT_LENGTH, body.bytes());
        let (pieces, sent) = mpsc::channel(PIECES_MAX);
        let pieces = BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces));
        let writing = spawn_blocking(move || body.write(pieces));
        let sent = unfold(sent, |mut sent| async move {
            Some((Ok::<_, io::Error>(Frame::data(sent.recv().await?)), sent))
        });
        let request = head.body(StreamBody::new(Box::pin(sent))).expect("a plain path");
        let answer = self.once(request, ANSWER_BYTES_MAX).await;
        match writing.await.expect("writing does not panic") {
            // Nobody took it to its end, and the answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => answer,
            Err(error) => Err(ExchangeError::Unreadable(error)),
            Ok(()) => answer,
        }
    }
}

/// Takes what is written as pieces that are sent.
struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
