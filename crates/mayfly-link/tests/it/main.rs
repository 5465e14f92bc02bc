//! Channels over real sockets, with hyper on the accepting side as in the orchestrator.

#![allow(clippy::unwrap_used, missing_docs)]

mod faults;
mod routes;

use std::convert::Infallible;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mayfly_link::{ByteStream, Channel, Endpoint, Frame, LinkError, Route, accept};
use mayfly_wire::worker::FRAME_BYTES_MAX;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// An accepting side: each channel that it makes comes out of `channels`.
struct Host {
    socket: PathBuf,
    channels: mpsc::Receiver<Result<Channel, LinkError>>,
    _dir: TempDir,
}

async fn dial(socket: PathBuf, http_path: &str) -> Result<Channel, LinkError> {
    mayfly_link::dial(&Route::from(Endpoint::Unix(socket)), http_path, None).await
}

impl Host {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let (made, channels) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, made.clone()));
            }
        });
        Self { socket, channels, _dir: dir }
    }

    async fn pair(&mut self) -> (Channel, Channel) {
        let dialled = dial(self.socket.clone(), "/v1/worker").await.unwrap();
        (dialled, self.channels.recv().await.unwrap().unwrap())
    }
}

/// One connection, of whatever kind.
async fn serve(stream: impl ByteStream + 'static, made: mpsc::Sender<Result<Channel, LinkError>>) {
    let service = service_fn(move |mut request: Request<_>| {
        let answer = answer(&mut request, made.clone());
        async move { Ok::<_, Infallible>(answer) }
    });
    let server = hyper::server::conn::http1::Builder::new();
    // How it ends shows at the channel, if it comes to one.
    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn answer(
    request: &mut Request<hyper::body::Incoming>,
    made: mpsc::Sender<Result<Channel, LinkError>>,
) -> Response<Empty<Bytes>> {
    let Ok((response, accepting)) = accept(request) else {
        return Response::builder().status(StatusCode::BAD_REQUEST).body(Empty::new()).unwrap();
    };
    tokio::spawn(async move { made.send(accepting.channel().await).await });
    response.map(|()| Empty::new())
}

fn text(text: &str) -> Frame {
    Frame::Text(text.to_owned())
}

#[tokio::test]
async fn frames_pass_both_ways_in_order_and_whole() {
    let (mut near, mut far) = Host::start().pair().await;
    let large = Frame::Binary(Bytes::from(vec![7; FRAME_BYTES_MAX]));
    let (sent, got) = tokio::join!(
        async {
            near.send(text("hello")).await.unwrap();
            near.send(large.clone()).await.unwrap();
            near
        },
        async { (far.recv().await.unwrap().unwrap(), far.recv().await.unwrap().unwrap()) }
    );
    near = sent;
    assert_eq!(got, (text("hello"), large));
    far.send(text("welcome")).await.unwrap();
    assert_eq!(near.recv().await.unwrap().unwrap(), text("welcome"));
}

#[tokio::test]
async fn a_ping_is_answered_and_is_no_message() {
    let (near, far) = Host::start().pair().await;
    let ((mut sender, _), (_far_sender, mut receiver)) = (near.split(), far.split());
    sender.ping().await.unwrap();
    sender.send(text("after")).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), text("after"));
}

#[tokio::test]
async fn a_leave_is_an_end_and_no_error() {
    let (near, mut far) = Host::start().pair().await;
    let (sender, _receiver) = near.split();
    sender.close().await.unwrap();
    assert!(far.recv().await.is_none());
}

#[tokio::test]
async fn a_message_over_the_limit_is_not_sent() {
    let (mut near, _far) = Host::start().pair().await;
    let over = Frame::Binary(Bytes::from(vec![0; FRAME_BYTES_MAX + 1]));
    assert!(matches!(near.send(over).await, Err(LinkError::Protocol(_))));
}

/// Dials by hand, so that the bytes can be wrong.
async fn by_hand(host: &Host) -> UnixStream {
    let mut stream = UnixStream::connect(&host.socket).await.unwrap();
    let handshake = "GET /v1/worker HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream
}

/// Covers S38: each is refused by its first bytes, without a buffer for what it announces.
#[tokio::test]
async fn frames_that_no_side_of_ours_sends_end_the_link_with_an_error() {
    let mut oversize = vec![0x82, 0xff];
    oversize.extend(u64::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes());
    oversize.extend([0; 4]);
    let unmasked = vec![0x82, 0x01, 0x00];
    let no_text = vec![0x81, 0x81, 0, 0, 0, 0, 0xff];
    for (bytes, code) in [(oversize, 1009_u16), (unmasked, 1002), (no_text, 1007)] {
        let mut host = Host::start();
        let mut stream = by_hand(&host).await;
        let mut far = host.channels.recv().await.unwrap().unwrap();
        stream.write_all(&bytes).await.unwrap();
        let got = far.recv().await;
        assert!(matches!(got, Some(Err(LinkError::Protocol(_)))), "{bytes:?}: {got:?}");
        let [high, low] = code.to_be_bytes();
        let mut leave = [0; 4];
        stream.read_exact(&mut leave).await.unwrap();
        assert_eq!(leave, [0x88, 2, high, low], "it is told why");
    }
}

/// Covers S38: parts of one message count together.
#[tokio::test]
async fn endless_fragments_end_the_link_at_the_limit() {
    let mut host = Host::start();
    let mut stream = by_hand(&host).await;
    let mut far = host.channels.recv().await.unwrap().unwrap();
    let writer = tokio::spawn(async move {
        let mut part = vec![0x02, 0xff];
        part.extend(65536_u64.to_be_bytes());
        part.resize(part.len() + 4 + 65536, 0);
        while stream.write_all(&part).await.is_ok() {
            part[0] = 0;
        }
    });
    assert!(matches!(far.recv().await, Some(Err(LinkError::Protocol(_)))));
    drop(far);
    writer.await.unwrap();
}

#[tokio::test]
async fn nobody_there_and_an_answer_that_is_no_handshake_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dial(dir.path().join("none"), "/v1/worker").await;
    assert!(matches!(nobody, Err(LinkError::Unreachable(_))), "{nobody:?}");

    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let accept = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
        stream.write_all(accept.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let wrong_key = dial(socket, "/v1/worker").await;
    assert!(matches!(wrong_key, Err(LinkError::Handshake { .. })), "{wrong_key:?}");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_says_nothing_is_taken_for_gone() {
    let (mut near, _far) = Host::start().pair().await;
    assert!(matches!(near.recv().await, Some(Err(LinkError::Silent { .. }))));
}
