//! The proxy for machines against haproxy: one request of plain HTTP by a connection of its own, to a host on loopback.
//!
//! Ours: a unix socket, the proxy, the question whether the host is allowed to a real engine with its database, a row for
//! the decision in that, one TCP connection to the host. Theirs: a unix socket, haproxy in mode `http`, which decides
//! nothing and keeps nothing, one TCP connection to the host. Client and host are of this process in both. The worker's
//! relay in a machine and the door's upgrade are in neither. Without haproxy (`apt-get install haproxy`) only ours runs.
//!
//! Run: `cargo bench --bench egress -- [ROUNDS]`.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/haproxy.rs"]
mod haproxy;
#[path = "support/process.rs"]
mod process;
mod support;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::Router;
use axum::routing::get;
use futures_util::future::BoxFuture;
use mayfly_core::AttemptId;
use mayfly_core::host::Target;
use mayfly_engine::Engine;
use mayfly_gateway::egress::{Asked, Network, Policy, Resolve, Undecided, serve};
use mayfly_testkit::{TestEngine, task};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use haproxy::Haproxy;

const ROUNDS: usize = 50;
/// Small answers for each large one.
const SMALL_EACH: usize = 20;
const BODY_BYTES: usize = 10_000_000;
const HOST: &str = "own.test";
/// What is done before anything is counted.
const WARM_UP: usize = 3;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let site = site().await?;
    let dir = tempfile::tempdir_in(support::scratch())?;
    let socket = dir.path().join("ours");
    let _engine = ours_at(&socket, site).await?;
    let haproxy = Haproxy::start(dir.path(), site, "  option http-server-close\n").await?;
    let mut ways =
        vec![Way::new("no proxy", To::Site(site)), Way::new("mayfly: decided, on record", To::Proxy(socket))];
    match &haproxy {
        Some(haproxy) => ways.push(Way::new("haproxy", To::Proxy(haproxy.socket.clone()))),
        None => println!("haproxy is not here: only ours is measured"),
    }
    for round in 0..WARM_UP + rounds {
        for way in &mut ways {
            way.round(round >= WARM_UP).await?;
        }
    }
    let of = |part: fn(&Way) -> &Vec<Duration>| -> Vec<(&str, &[Duration])> {
        ways.iter().map(|way| (way.name, part(way).as_slice())).collect()
    };
    let first = "1 byte by plain HTTP, from the request to the first byte of its answer";
    support::print_beside(first, &of(|way| &way.first));
    support::print_rates(
        "10 MB by plain HTTP, from the request to the last byte",
        10.0,
        &of(|way| &way.whole),
    );
    Ok(())
}

/// One way to the host.
struct Way {
    name: &'static str,
    to: To,
    first: Vec<Duration>,
    whole: Vec<Duration>,
}

enum To {
    Site(SocketAddr),
    Proxy(PathBuf),
}

impl Way {
    fn new(name: &'static str, to: To) -> Self {
        Self { name, to, first: Vec::new(), whole: Vec::new() }
    }

    /// A few small answers, and a large one.
    async fn round(&mut self, counts: bool) -> anyhow::Result<()> {
        for _ in 0..SMALL_EACH {
            let first = self.ask("/small", 1).await?.0;
            counts.then(|| self.first.push(first));
        }
        let whole = self.ask("/big", BODY_BYTES).await?.1;
        counts.then(|| self.whole.push(whole));
        Ok(())
    }

    async fn ask(&self, path: &str, body_bytes: usize) -> anyhow::Result<(Duration, Duration)> {
        match &self.to {
            To::Site(address) => ask(TcpStream::connect(address).await?, path, body_bytes).await,
            To::Proxy(socket) => ask(UnixStream::connect(socket).await?, path, body_bytes).await,
        }
    }
}

/// The time to the first byte of the answer, and to the last.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    path: &str,
    body_bytes: usize,
) -> anyhow::Result<(Duration, Duration)> {
    let request = format!("GET http://{HOST}{path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let begun = Instant::now();
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = stream.read(&mut buffer).await?;
    let first = begun.elapsed();
    ensure!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..bytes]));
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            more => bytes += more,
        }
    }
    ensure!(bytes > body_bytes, "{bytes} bytes are not all");
    Ok((first, begun.elapsed()))
}

/// A host on loopback.
async fn site() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let big = axum::body::Bytes::from(vec![b'x'; BODY_BYTES]);
    let app = Router::new().route("/big", get(async move || big)).route("/small", get(async || "x"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// The proxy behind a socket, with an engine in which a task runs that may reach the host.
async fn ours_at(socket: &Path, site: SocketAddr) -> anyhow::Result<TestEngine> {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let mut asked = task("x");
    asked.allow = vec![HOST.to_owned()];
    mayfly.submit(asked).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    let policy = Arc::new(Real { engine: mayfly.engine.clone(), attempt: machine.attempt() });
    let network = Network::new(Arc::new(One(site)), vec![HOST.parse()?]);
    let listener = UnixListener::bind(socket)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let policy = Arc::clone(&policy) as Arc<dyn Policy>;
            tokio::spawn(serve(stream, policy, network.clone(), CancellationToken::new()));
        }
        drop(machine);
    });
    Ok(mayfly)
}

/// What the orchestrator does for a machine.
#[derive(Debug)]
struct Real {
    engine: Engine,
    attempt: AttemptId,
}

#[async_trait::async_trait]
impl Policy for Real {
    async fn allows(&self, target: &Target) -> Result<bool, Undecided> {
        self.engine.may_go(self.attempt, target).await.map_err(|_| Undecided)
    }

    fn keep(&self, asked: Asked) -> BoxFuture<'static, Option<i64>> {
        let Asked { host, port, verdict } = asked;
        let kept = mayfly_engine::Asked { host, port, verdict, words: String::new() };
        let kept = self.engine.keep_asked(self.attempt, kept);
        Box::pin(async { kept.await.ok().flatten() })
    }

    async fn keep_bytes(&self, row: i64, sent: u64, received: u64) {
        let _ = self.engine.keep_bytes(row, sent, received).await;
    }
}

#[derive(Debug)]
struct One(SocketAddr);

#[async_trait::async_trait]
impl Resolve for One {
    async fn resolve(&self, _: &Target) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0])
    }
}
