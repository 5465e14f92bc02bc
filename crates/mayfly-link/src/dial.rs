//! The side that asks for a channel.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;

use crate::channel::{Stream, config};
use crate::{Channel, LinkError};

/// The longest time for connecting and the handshake.
pub const DIAL_TIME_MAX: Duration = Duration::from_secs(10);

/// Dials `http_path`, such as `/v1/worker`, over the unix socket `socket`.
pub async fn dial(socket: &Path, http_path: &str) -> Result<Channel, LinkError> {
    let dialled = timeout(DIAL_TIME_MAX, async {
        let stream = UnixStream::connect(socket).await.map_err(LinkError::Unreachable)?;
        shake_hands(Box::new(stream), http_path).await
    });
    dialled.await.map_err(|_| LinkError::Silent { seconds: DIAL_TIME_MAX.as_secs() })?
}

/// The handshake's host is a word of ours: a unix socket has no name.
async fn shake_hands(stream: Box<dyn Stream>, http_path: &str) -> Result<Channel, LinkError> {
    let uri = format!("ws://mayfly{http_path}");
    match client_async_with_config(uri, stream, Some(config())).await {
        Ok((socket, _)) => Ok(Channel::new(socket)),
        Err(Error::Io(error)) => Err(LinkError::Unreachable(error)),
        Err(Error::Http(response)) => {
            Err(LinkError::Handshake { reason: format!("answered with {}", response.status()) })
        }
        Err(other) => Err(LinkError::Handshake { reason: other.to_string() }),
    }
}
