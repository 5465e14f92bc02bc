//! The proxy for machines against haproxy: one request of plain HTTP by a connection of its own, to a host on loopback.
//!
//! Ours: a unix socket, the proxy, the question whether the host is allowed to a real engine with its database, a row for
//! the decision in that, one TCP connection to the host. Theirs: a unix socket, haproxy in mode `http`, which decides
//! nothing and keeps nothing, one TCP connection to the host. Client and host are of this process in both. The worker's
//! relay in a machine and the door's upgrade are in neither. Without haproxy (`apt-get install haproxy`) only ours runs.
//!
//! Run: `cargo bench --bench egress -- [ROUNDS]`.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

mod support;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
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

const ROUNDS: usize = 50;
const BODY_BYTES: usize = 10_000_000;
const HOST: &str = "own.test";
/// What is done before anything is counted.
const WARM_UP: usize = 3;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let site = site().await?;
    let dir = tempfile::tempdir_in(support::scratch())?;
    let ours = dir.path().join("ours");
    let _engine = ours_at(&ours, site).await?;
    let theirs = dir.path().join("theirs");
    let haproxy = Haproxy::start(dir.path(), &theirs, site).await;
    if haproxy.is_err() {
        println!("haproxy is not here: only ours is measured");
    }

    let (mut bodies, mut alone) = (support::Pairs::default(), Vec::new());
    let mut heads = support::Pairs::default();
    for round in 0..WARM_UP + rounds {
        let counts = round >= WARM_UP;
        let big = ask(UnixStream::connect(&ours).await?, "/big", BODY_BYTES).await?.1;
        if counts {
            alone.push(big);
        }
        if haproxy.is_ok() {
            let other = ask(UnixStream::connect(&theirs).await?, "/big", BODY_BYTES).await?.1;
            counts.then(|| bodies.push(big, other));
        }
        let through = ask(UnixStream::connect(&ours).await?, "/small", 1).await?.0;
        let direct = ask(TcpStream::connect(site).await?, "/small", 1).await?.0;
        counts.then(|| heads.push(through, direct));
    }
    if haproxy.is_ok() {
        bodies.print(
            "10 MB by plain HTTP, from the request to the last byte",
            "mayfly: decided, on record",
            "haproxy",
        );
    }
    let best = alone.iter().min().context("a round")?.as_secs_f64();
    println!("  the best of ours: {:.0} MB/s\n", 10.0 / best);
    heads.print(
        "1 byte by plain HTTP, from the request to the first byte",
        "mayfly: decided, on record",
        "no proxy",
    );
    Ok(())
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

/// A haproxy, ended with this.
struct Haproxy(Child);

impl Haproxy {
    async fn start(dir: &Path, socket: &Path, site: SocketAddr) -> anyhow::Result<Self> {
        let file = dir.join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode http\n  option http-server-close\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend f\n  bind unix@{}\n  default_backend b\nbackend b\n  server s {site}\n",
            socket.display()
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Self(command.spawn()?);
        for _ in 0..100 {
            if UnixStream::connect(socket).await.is_ok() {
                return Ok(started);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("haproxy does not listen")
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
