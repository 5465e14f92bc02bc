//! The way out of a machine to hosts that its owner allowed: a proxy, which decides about each of them.
//!
//! ```text
//! CONNECT host:443      policy ─ resolve ─ check the addresses ─ dial one of these ─► 200 ─ ClientHello names host? ─► bytes
//! GET http://host/path  policy ─ resolve ─ check the addresses ─ dial one of these ─► the request, for that host alone
//! ```
//!
//! A name that nobody allowed is not even resolved. Names are resolved here and nowhere else, and the connection goes to
//! an address that was checked: what the name leads to a moment later does not matter. Nothing but TLS that names the
//! same host goes through a tunnel; a request of plain HTTP names one host to us and to whom it is for. Redirects are
//! the machine's to follow, by asking again. What is in TLS cannot be seen: neither a name in it that is encrypted, nor
//! the host that a request in it is for; whoever answers under an allowed name decides about these.
//!
//! Each decision is told to the [`Policy`] with what it is about, and later how many bytes went through.
//!
//! Bounds: [`HEAD_MAX`] and [`HEAD_BYTES_MAX`] for a request, [`HELLO_MAX`] and [`HELLO_BYTES_MAX`] for a hello,
//! [`RESOLVE_MAX`], [`DIAL_MAX`] and [`ADDRESSES_MAX`] for a host, [`IDLE_MAX`] for silence. How many connections a
//! machine has at once is bounded by its door.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mayfly_core::egress::{Refusal, Verdict};
use mayfly_core::host::Target;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod address;
mod answer;
mod asked;
mod metered;
mod network;
mod own;
mod tunnel;
mod web;

pub use asked::Asked;
pub use network::{Network, Resolve};

/// The time for a request's head, and between two requests.
pub const HEAD_MAX: Duration = Duration::from_secs(30);
/// The longest head of a request or an answer.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The time for the first message of TLS.
pub const HELLO_MAX: Duration = Duration::from_secs(10);
/// The longest first message of TLS.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;
/// The time for the addresses of a name.
pub const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// The time for a connection to one of them.
pub const DIAL_MAX: Duration = Duration::from_secs(10);
/// The most addresses of a name that are tried.
pub const ADDRESSES_MAX: usize = 8;
/// The longest silence, in both directions, of a connection that went through.
pub const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// Decides where one machine may go, and keeps the record of it.
#[async_trait::async_trait]
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Whether it may go there now.
    async fn allows(&self, target: &Target) -> Result<bool, Undecided>;

    /// Keeps a decision: it has its place among the others once this returns. The future gives its row, if it has one.
    fn keep(&self, asked: Asked) -> BoxFuture<'static, Option<i64>>;

    /// Notes how many bytes went out and came back through what has this row.
    async fn keep_bytes(&self, row: i64, sent: u64, received: u64);
}

/// Nobody can tell now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody can tell now whether this is allowed")]
pub struct Undecided;

/// The way out of one machine.
#[derive(Debug, Clone)]
pub struct Egress {
    policy: Arc<dyn Policy>,
    network: Network,
    /// Ends whatever goes through.
    leave: CancellationToken,
    /// Takes what goes on beside the requests.
    errands: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

/// Serves one connection of a machine, until it is over or has to `leave`: requests one after another, of which one may
/// turn the connection into a tunnel. Whatever goes on is over when this returns, and its bytes are noted.
pub async fn serve<S>(stream: S, policy: Arc<dyn Policy>, network: Network, leave: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Unbounded, and yet few: a request is an errand, and the next is read when it is answered.
    let (errands, mut todo) = mpsc::unbounded_channel();
    let egress = Egress { policy: Arc::clone(&policy), network, leave: leave.clone(), errands };
    let mut requests = Some(Box::pin(requests(stream, egress)));
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            ended = async { requests.as_mut().expect("it is asked only then").await }, if requests.is_some() => {
                requests = None;
                if ended.is_err_and(|error| error.is_parse() || error.is_timeout()) {
                    policy.keep(Asked::nothing()).await;
                }
            }
            () = leave.cancelled(), if requests.is_some() => requests = None,
            Some(()) = running.next() => {}
            Some(errand) = todo.recv() => running.push(errand),
            else => return,
        }
    }
}

async fn requests<S>(stream: S, egress: Egress) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let service = service_fn(move |request| {
        let egress = egress.clone();
        async move { Ok::<_, std::convert::Infallible>(egress.answer(request).await) }
    });
    http.serve_connection(TokioIo::new(stream), service).with_upgrades().await
}

impl Egress {
    /// Whether the machine may go there, for whatever reason not.
    async fn decide(&self, target: &Target) -> Result<(), Verdict> {
        match self.policy.allows(target).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Verdict::Denied(Refusal::NotListed)),
            Err(Undecided) => Err(Verdict::Denied(Refusal::Undecided)),
        }
    }
}
