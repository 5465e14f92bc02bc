//! Holds a request of `claude` while the orchestrator is away, and replays it once when it is back.
//!
//! ```text
//! claude ── POST /v1/messages, "stream": true ──► 200, pings …  orchestrator is back  … its answer
//!        ── any other request ──────────────────► nothing …     orchestrator is back  … its answer
//! ```
//!
//! The pings keep the CLI's byte watchdog calm, which would give an answer up after a minute of silence. Only a
//! request that came after the orchestrator had gone is held, so that nobody has seen it yet: one that was under
//! way is cut, and what the CLI then asks again is held here.
//!
//! A status can no longer be passed on once pings are: an error becomes the `error` event that the API itself
//! sends in the middle of a stream. At `overloaded_error` the CLI asks again as it does at a 529; at the others it
//! asks once more without a stream, and so hears the true status with its headers, which tell it of a usage limit.
//! What is neither a stream of events nor an error of the API is cut, and the CLI asks again as well.
//!
//! The CLI (2.1.330, measured) gives a stream up after ten minutes whatever comes, asks once more for one, and then
//! without a stream for five minutes each; each of these is held anew. With the retries that it is given here, it
//! outlasts more than half an hour without an orchestrator.
//!
//! Bounds: [`HELD_BYTES_MAX`] a request, [`HEAD_MAX`] for it to say what it wants, [`ERROR_BYTES_MAX`] of an error;
//! the caller's for how many at once and how long. What is sent here is bytes of the machine's own programs.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mayfly_link::ByteStream;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// The longest body of a held request: what the gateway lets pass.
pub(crate) const HELD_BYTES_MAX: usize = 34 * 1024 * 1024;
/// The time for a request's head.
const HEAD_MAX: Duration = Duration::from_secs(20);
/// How often a stream that waits is pinged.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The event that says nothing.
const PING: Bytes = Bytes::from_static(b"event: ping\ndata: {\"type\": \"ping\"}\n\n");
/// The longest error that becomes an event.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// The media type of a stream of events.
const EVENTS: &str = "text/event-stream";
/// The one route that streams.
const MESSAGES: &str = "/v1/messages";

type Body = UnsyncBoxBody<Bytes, Cut>;

/// Why an exchange ends before its answer does. The connection is broken off with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    /// The orchestrator stayed away.
    #[error("no orchestrator for too long")]
    Away,
    /// The request or the answer broke off.
    #[error("the exchange broke off")]
    Broken(#[from] hyper::Error),
    /// The request could not be read.
    #[error("the request cannot be read")]
    Unread(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that cannot follow on pings.
    #[error("the answer is neither a stream of events nor an error of the API")]
    Unfit,
}

/// Holds the next request of `near`. `back` gives a connection to the orchestrator, or nothing if it stays away.
pub(crate) async fn hold<B>(near: TcpStream, back: impl Fn() -> B) -> Result<(), hyper::Error>
where
    B: Future<Output = Option<Box<dyn ByteStream>>> + Send + 'static,
{
    let service = service_fn(|request| answer(request, back()));
    let mut http = hyper::server::conn::http1::Builder::new();
    // The next one may find the orchestrator there, and go straight through.
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    http.serve_connection(TokioIo::new(near), service).await
}

async fn answer<B>(request: Request<Incoming>, back: B) -> Result<Response<Body>, Cut>
where
    B: Future<Output = Option<Box<dyn ByteStream>>> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let body = match Limited::new(body, HELD_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Ok(too_long()),
        Err(error) => return Err(Cut::Unread(error)),
    };
    leave_connection(&mut parts.headers);
    let streams = is_streamed(&parts, &body);
    if streams {
        // What follows on plain pings cannot be compressed.
        parts.headers.remove(ACCEPT_ENCODING);
    }
    let replayed = replay(Request::from_parts(parts, Full::new(body)), back);
    if streams {
        return Ok(events(replayed));
    }
    let mut answer = replayed.await?;
    leave_connection(answer.headers_mut());
    Ok(answer.map(|body| body.map_err(Cut::from).boxed_unsync()))
}

/// Sends the request, once there is somebody to send it to.
async fn replay(
    request: Request<Full<Bytes>>,
    back: impl Future<Output = Option<Box<dyn ByteStream>>>,
) -> Result<Response<Incoming>, Cut> {
    let far = back.await.ok_or(Cut::Away)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(far)).await?;
    // Ends with the answer, or when nobody wants it any more.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Whether it asks for a stream of the model's.
fn is_streamed(parts: &Parts, body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Asked {
        stream: bool,
    }
    parts.method == Method::POST
        && parts.uri.path() == MESSAGES
        && serde_json::from_slice(body).is_ok_and(|Asked { stream }| stream)
}

/// Takes off what is about one connection.
fn leave_connection(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, EXPECT] {
        headers.remove(name);
    }
}

fn too_long() -> Response<Body> {
    let message = format!("mayfly: the orchestrator is away, and {HELD_BYTES_MAX} bytes are held at most");
    let error =
        serde_json::json!({"type": "error", "error": {"type": "request_too_large", "message": message}});
    let body = Full::new(Bytes::from(error.to_string())).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer that begins at once.
fn events(
    replayed: impl Future<Output = Result<Response<Incoming>, Cut>> + Send + 'static,
) -> Response<Body> {
    let rest = stream::unfold(Held::Waiting(Box::pin(replayed)), Held::next);
    let frames = stream::iter([Ok(Frame::data(PING))]).chain(rest);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    response
}

/// Where a stream stands.
enum Held {
    Waiting(Pin<Box<dyn Future<Output = Result<Response<Incoming>, Cut>> + Send>>),
    Answering(Incoming),
    Over,
}

impl Held {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Cut>, Self)> {
        loop {
            self = match self {
                Self::Waiting(mut replayed) => tokio::select! {
                    answer = &mut replayed => match answer {
                        Ok(answer) if is_events(&answer) => Self::Answering(answer.into_body()),
                        Ok(answer) => return Some((error_event(answer).await, Self::Over)),
                        Err(cut) => return Some((Err(cut), Self::Over)),
                    },
                    () = sleep(PING_EVERY) => return Some((Ok(Frame::data(PING)), Self::Waiting(replayed))),
                },
                Self::Answering(mut body) => {
                    let frame = body.frame().await?;
                    return Some((frame.map_err(Cut::from), Self::Answering(body)));
                }
                Self::Over => return None,
            }
        }
    }
}

fn is_events(answer: &Response<Incoming>) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    answer.status() == StatusCode::OK
        && kind.is_some_and(|kind| kind.starts_with(EVENTS))
        && !answer.headers().contains_key(CONTENT_ENCODING)
}

/// The API's own error as an event.
async fn error_event(answer: Response<Incoming>) -> Result<Frame<Bytes>, Cut> {
    let body = Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await.map_err(|_| Cut::Unfit)?;
    let error: serde_json::Value = serde_json::from_slice(&body.to_bytes()).map_err(|_| Cut::Unfit)?;
    if error["type"] != "error" {
        return Err(Cut::Unfit);
    }
    Ok(Frame::data(format!("event: error\ndata: {error}\n\n").into()))
}
