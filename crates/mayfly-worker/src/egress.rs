//! The way to other hosts, as programs of the machine see it: a proxy on loopback.
//!
//! ```text
//! program ─► 127.0.0.1:port ─► a new connection to the orchestrator, for each ─► the proxy, which decides
//! ```
//!
//! Bytes pass both ways unread: what is asked for, and whether it may be had, is decided outside the machine. Where
//! nobody answers, the program is told so as a proxy tells it, and may ask again.
//!
//! Bounds: [`CONNECTIONS_MAX`] at once, later ones wait; [`OPEN_MAX`] for the way to the proxy.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mayfly_link::{Dial, LinkError};
use mayfly_wire::Secret;
use mayfly_wire::worker::{EGRESS_PATH, EGRESS_UPGRADE};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::relay::accept;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 64;
/// The time for a connection to become one to the proxy.
const OPEN_MAX: Duration = Duration::from_secs(20);
/// What is read at once of each direction.
const COPY_BYTES: usize = 64 * 1024;
/// What a program is told while nobody is there.
const AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 59\r\n\r\nmayfly: nobody answers on the way out just now: ask again.\n";

/// Begins to listen, on the current runtime and until it ends. Gives the port on loopback.
pub(crate) async fn start(way: Arc<dyn Dial>, token: Secret) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener, way, token));
    Ok(port)
}

async fn serve(listener: TcpListener, way: Arc<dyn Dial>, token: Secret) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (near, slot) = accept(&listener, &slots).await;
        let (way, token) = (Arc::clone(&way), token.clone());
        tokio::spawn(async move {
            // A broken connection is broken towards the program too; there is nobody else to tell.
            let _ = pass(near, &*way, &token).await;
            drop(slot);
        });
    }
}

async fn pass(mut near: TcpStream, way: &dyn Dial, token: &Secret) -> io::Result<()> {
    near.set_nodelay(true)?;
    match timeout(OPEN_MAX, open(way, token)).await {
        Ok(Ok(far)) => {
            let mut far = TokioIo::new(far);
            copy_bidirectional_with_sizes(&mut near, &mut far, COPY_BYTES, COPY_BYTES).await.map(drop)
        }
        Ok(Err(_)) | Err(_) => near.write_all(AWAY).await,
    }
}

/// A connection to the proxy.
async fn open(way: &dyn Dial, token: &Secret) -> Result<Upgraded, Closed> {
    let request = request(&way.host(), token)?;
    let stream = way.connect().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, or hands the stream over.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => Ok(hyper::upgrade::on(response).await?),
        status => Err(Closed::Refused(status)),
    }
}

fn request(host: &str, token: &Secret) -> http::Result<Request<Empty<Bytes>>> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))?;
    value.set_sensitive(true);
    Request::get(EGRESS_PATH)
        .header(HOST, host)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, EGRESS_UPGRADE)
        .header(AUTHORIZATION, value)
        .body(Empty::new())
}

/// Why there is no connection to the proxy.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("nobody is there")]
    Away(#[from] LinkError),
    #[error("the connection broke")]
    Broken(#[from] hyper::Error),
    #[error("no request can be made of this token")]
    Token(#[from] http::Error),
    #[error("it was refused with {0}")]
    Refused(StatusCode),
}
