//! The channel itself: messages over a WebSocket over any byte stream.
//!
//! Pings of the other side are answered while something is received or sent. The side that dialled pings
//! every [`KEEP_ALIVE`] ([`Sender::ping`]), and either side takes [`SILENCE_MAX`] without a message, ping or
//! pong for a broken link, since a half-open TCP connection says nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use mayfly_wire::worker::FRAME_BYTES_MAX;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::{ByteStream, LinkError};

/// How often the side that dialled shows that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The longest time without a byte from the other side, and the longest time to send one message.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a side that does not keep to the protocol may take to be told so.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// What is read at once; it is allocated for every channel.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// What is gathered before it is written out.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// What may wait to be written: one message of any size, besides the gathered ones.
const WRITE_BUFFER_BYTES_MAX: usize = FRAME_BYTES_MAX + 2 * WRITE_BUFFER_BYTES;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

type Socket = WebSocketStream<Box<dyn ByteStream>>;
type Sink = SplitSink<Socket, Message>;

/// Both directions of a link.
#[derive(Debug)]
pub struct Channel {
    sender: Sender,
    receiver: Receiver,
}

impl Channel {
    pub(crate) fn new(socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        let sink = Arc::new(Mutex::new(sink));
        let receiver = Receiver { stream, sink: Arc::clone(&sink), heard: Instant::now() };
        Self { sender: Sender { sink }, receiver }
    }

    /// Sends one message; see [`Sender::send`].
    pub async fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        self.sender.send(frame).await
    }

    /// Waits for the next message; see [`Receiver::recv`].
    pub async fn recv(&mut self) -> Option<Result<Frame, LinkError>> {
        self.receiver.recv().await
    }

    /// The two directions, for two owners.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// The way out of a channel.
pub struct Sender {
    sink: Arc<Mutex<Sink>>,
}

impl Sender {
    /// Sends one message, and returns when the system has all of it. Given up half-way, the channel is of
    /// no use any more.
    pub async fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        let message = match frame {
            Frame::Text(text) => Message::Text(text.into()),
            Frame::Binary(bytes) => Message::Binary(bytes),
        };
        self.write(message).await
    }

    /// Shows the other side that this one lives.
    pub async fn ping(&mut self) -> Result<(), LinkError> {
        self.write(Message::Ping(Bytes::new())).await
    }

    /// Says that nothing follows. The other side's [`Receiver::recv`] ends with `None`.
    pub async fn close(self) -> Result<(), LinkError> {
        self.write(Message::Close(None)).await
    }

    async fn write(&self, message: Message) -> Result<(), LinkError> {
        if message.len() > FRAME_BYTES_MAX {
            return Err(LinkError::Protocol("a message over the limit was not sent".into()));
        }
        let sent = async { self.sink.lock().await.send(message).await };
        timeout(SILENCE_MAX, sent).await.map_err(|_| silent())?.map_err(sort)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The way into a channel.
pub struct Receiver {
    stream: SplitStream<Socket>,
    /// For the word of leave to a side that does not keep to the protocol.
    sink: Arc<Mutex<Sink>>,
    heard: Instant,
}

impl Receiver {
    /// Waits for the next message. `None`: the other side took its leave. After an error nothing follows.
    /// Given up half-way, nothing is lost.
    pub async fn recv(&mut self) -> Option<Result<Frame, LinkError>> {
        loop {
            let Ok(next) = timeout_at(self.heard + SILENCE_MAX, self.stream.next()).await else {
                return Some(Err(silent()));
            };
            self.heard = Instant::now();
            match next? {
                Ok(Message::Text(text)) => return Some(Ok(Frame::Text(text.as_str().to_owned()))),
                Ok(Message::Binary(bytes)) => return Some(Ok(Frame::Binary(bytes))),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) => return None,
                Err(error) => return Some(Err(self.broken(error).await)),
            }
        }
    }

    /// Tells the other side what it did wrong, if it did; who takes nothing is not waited for.
    async fn broken(&mut self, error: Error) -> LinkError {
        if let Some(code) = leave_code(&error) {
            let close = CloseFrame { code, reason: Utf8Bytes::default() };
            let told = async { self.sink.lock().await.send(Message::Close(Some(close))).await };
            // The link is over either way.
            let _ = timeout(LEAVE_MAX, told).await;
        }
        sort(error)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("heard", &self.heard).finish_non_exhaustive()
    }
}

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

fn silent() -> LinkError {
    LinkError::Silent { seconds: SILENCE_MAX.as_secs() }
}

/// What a side that broke the protocol is told; none: the link broke.
fn leave_code(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        Error::Capacity(_) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        _ => None,
    }
}

/// Tells what the other side did wrong from what happened to the link.
fn sort(error: Error) -> LinkError {
    match error {
        Error::Io(error) => LinkError::Cut(Box::new(error)),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => LinkError::Cut(Box::new(error)),
        Error::Protocol(error) => LinkError::Protocol(Box::new(error)),
        Error::Capacity(error) => LinkError::Protocol(Box::new(error)),
        other => LinkError::Protocol(Box::new(other)),
    }
}
