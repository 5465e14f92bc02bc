//! The side that asks for a channel.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_wire::Secret;
use mayfly_wire::api::Problem;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::channel::config;
use crate::{Channel, LinkError};

/// The longest time for connecting, and again for the handshake of a channel.
pub const DIAL_TIME_MAX: Duration = Duration::from_secs(10);

/// The longest problem that is read of an answer that makes no channel.
const PROBLEM_BYTES_MAX: usize = 16 * 1024;

/// Bytes both ways, whatever carries them.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

impl fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}

/// A way to an orchestrator. [`Route`](crate::Route) is the one over real sockets.
#[async_trait::async_trait]
pub trait Dial: fmt::Debug + Send + Sync {
    /// A new connection, over which HTTP/1.1 is spoken. It has taken [`DIAL_TIME_MAX`] at most.
    async fn connect(&self) -> Result<Box<dyn ByteStream>, LinkError>;

    /// What requests over it name as their `Host`.
    fn host(&self) -> String;
}

/// Makes a channel at `http_path`, such as `/v1/worker`, by a new connection of `way`.
pub async fn dial(way: &dyn Dial, http_path: &str, bearer: Option<&Secret>) -> Result<Channel, LinkError> {
    let request = request(&way.host(), http_path, bearer)?;
    let stream = way.connect().await?;
    let shaken = timeout(DIAL_TIME_MAX, shake_hands(stream, request)).await;
    shaken.map_err(|_| LinkError::Silent { seconds: DIAL_TIME_MAX.as_secs() })?
}

fn request(host: &str, http_path: &str, bearer: Option<&Secret>) -> Result<Request<Empty<Bytes>>, LinkError> {
    let mut request = Request::get(http_path)
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key());
    if let Some(bearer) = bearer {
        let value = HeaderValue::try_from(format!("Bearer {}", bearer.expose()));
        let mut value = value.map_err(|_| unfit("the token is no text for a header"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Empty::new()).map_err(|_| unfit("the host or the path is no text for a request"))
}

async fn shake_hands(
    stream: Box<dyn ByteStream>,
    request: Request<Empty<Bytes>>,
) -> Result<Channel, LinkError> {
    let key = derive_accept_key(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(sort)?;
    // Ends with the sender, or hands the stream over.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(sort)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status().as_u16();
        return Err(LinkError::Refused { status, kind: kind(response.into_body()).await });
    }
    let headers = response.headers();
    if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| *accept != *key) {
        return Err(unfit("Sec-WebSocket-Accept is not the answer to our key"));
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(unfit("it has extensions that were not asked for"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(sort)?;
    let parts = upgraded.downcast::<TokioIo<Box<dyn ByteStream>>>().expect("what was put into it");
    let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
    Ok(Channel::new(WebSocketStream::from_partially_read(stream, read, Role::Client, Some(config())).await))
}

/// The type of the problem that an answer tells; what is longer or broken tells none.
async fn kind(body: Incoming) -> Option<String> {
    let body = Limited::new(body, PROBLEM_BYTES_MAX).collect().await.ok()?.to_bytes();
    serde_json::from_slice::<Problem>(&body).ok().map(|problem| problem.kind)
}

fn unfit(reason: &str) -> LinkError {
    LinkError::Handshake { reason: reason.to_owned() }
}

fn sort(error: hyper::Error) -> LinkError {
    match error.is_parse() {
        true => LinkError::NotHttp(Box::new(error)),
        false => LinkError::Cut(Box::new(error)),
    }
}
