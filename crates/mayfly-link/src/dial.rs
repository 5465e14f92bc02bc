//! The side that asks for a channel.

use std::fmt;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue};
use mayfly_wire::Secret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use crate::channel::config;
use crate::{Channel, LinkError};

/// The longest time for connecting, and again for the handshake of a channel.
pub const DIAL_TIME_MAX: Duration = Duration::from_secs(10);

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
    let shaken = timeout(DIAL_TIME_MAX, client_async_with_config(request, stream, Some(config()))).await;
    match shaken.map_err(|_| LinkError::Silent { seconds: DIAL_TIME_MAX.as_secs() })? {
        Ok((socket, _)) => Ok(Channel::new(socket)),
        Err(Error::Io(error)) => Err(LinkError::Unreachable(error)),
        Err(Error::Http(response)) => Err(LinkError::Refused { status: response.status().as_u16() }),
        Err(other) => Err(LinkError::Handshake { reason: other.to_string() }),
    }
}

fn request(host: &str, http_path: &str, bearer: Option<&Secret>) -> Result<Request, LinkError> {
    let request = format!("ws://{host}{http_path}").into_client_request();
    let mut request = request.map_err(|error| LinkError::Handshake { reason: error.to_string() })?;
    if let Some(bearer) = bearer {
        let value = HeaderValue::try_from(format!("Bearer {}", bearer.expose()));
        let mut value = value
            .map_err(|_| LinkError::Handshake { reason: "the token is no text for a header".to_owned() })?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}
