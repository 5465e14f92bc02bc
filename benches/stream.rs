//! One stream of lines, from a program in a machine to a reader over HTTP, against websocketd.
//!
//! Ours: a sandbox, the worker, its WebSocket over a unix socket, the orchestrator with its log on the disk before
//! anything is acknowledged, NDJSON over HTTP over a unix socket. Theirs: websocketd, which runs the same program, keeps
//! nothing, and sends each line as a message over loopback TCP. Each reader hashes what the program wrote. The two run in
//! turn; without websocketd (`apt-get install websocketd`) only ours does.
//!
//! Run: `cargo bench --bench stream -- [MEGABYTES] [ROUNDS] [LINE_BYTES]`; 1024 MB for the figures that are published,
//! and one length of lines for a profile.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/standin.rs"]
mod standin;
mod support;

use std::fs;
use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use mayfly_client::Client;
use mayfly_core::Policy;
use mayfly_engine::SystemClock;
use mayfly_server::{Server, ServerConfig};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind};
use memchr::memmem;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

/// How much each run writes, unless an argument says otherwise.
const MEGABYTES: u64 = 128;
const ROUNDS: usize = 3;
const LINES: [usize; 3] = [200, 4096, 65_536];
/// A line each 10 ms.
const PAUSE_US: u64 = 10_000;
const TICKS: usize = 500;

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let total = numbers.next().unwrap_or(MEGABYTES) << 20;
    let rounds = numbers.next().map_or(Ok(ROUNDS), usize::try_from)?;
    let only = numbers.next().map(usize::try_from).transpose()?;
    let ours = Ours::start().await?;
    let theirs = Command::new("websocketd").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !theirs {
        println!("websocketd is not here: only ours is measured");
    }
    for line_bytes in only.map_or(LINES.to_vec(), |only| vec![only]) {
        let words = format!("stream {line_bytes} {total}");
        let expected = standin::hash(line_bytes, total);
        let (mut pairs, mut alone) = (support::Pairs::default(), Vec::new());
        for _ in 0..rounds {
            let mut sink = Hash::default();
            let time = ours.run(&words, &mut sink).await?;
            sink.check(expected, "ours")?;
            alone.push(time);
            if theirs {
                let mut sink = Hash::default();
                pairs.push(time, websocketd(&words, &mut sink).await?);
                sink.check(expected, "websocketd")?;
            }
        }
        let what = format!("{} MB in lines of {line_bytes} bytes, hash checked at the reader", total >> 20);
        if theirs {
            pairs.print(&what, "mayfly: sandbox, worker, durable log, HTTP", "websocketd: nothing kept");
        }
        rate(&alone, line_bytes, total);
    }
    latency(&ours, theirs).await?;
    ours.server.stop().await;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn rate(times: &[Duration], line_bytes: usize, total: u64) {
    let best = times.iter().min().map_or(0.0, Duration::as_secs_f64);
    let (lines, megabytes) = ((total / line_bytes as u64) as f64 / best, total as f64 / 1e6 / best);
    println!("  the best of ours: {lines:.0} lines/s, {megabytes:.0} MB/s\n");
}

async fn latency(ours: &Ours, theirs: bool) -> anyhow::Result<()> {
    let words = format!("ticks 200 {PAUSE_US} {TICKS}");
    let mut sink = Delays::default();
    ours.run(&words, &mut sink).await?;
    let mut peer = Delays::default();
    if theirs {
        websocketd(&words, &mut peer).await?;
    }
    println!("a line of 200 bytes each {PAUSE_US} us: from the write to the reader, in us");
    for (name, mut delays) in [("mayfly, durable", sink.0), ("websocketd", peer.0)] {
        delays.sort_unstable();
        let at = |part: usize| delays.get(delays.len() * part / 1000).map_or(0, |ns| ns / 1000);
        println!("  {name:20} n {:5}  p50 {:6}  p99 {:6}  max {:6}", delays.len(), at(500), at(990), at(999));
    }
    Ok(())
}

/// Takes what the program wrote, a line at a time, with its line end.
trait Sink {
    fn line(&mut self, line: &[u8]);
}

#[derive(Default)]
struct Hash(Sha256, Vec<u8>);

impl Sink for Hash {
    fn line(&mut self, line: &[u8]) {
        // In larger pieces, as the hash likes it.
        self.1.extend_from_slice(line);
        if self.1.len() > 64 * 1024 {
            self.0.update(&self.1);
            self.1.clear();
        }
    }
}

impl Hash {
    fn check(mut self, expected: [u8; 32], who: &str) -> anyhow::Result<()> {
        self.0.update(&self.1);
        ensure!(<[u8; 32]>::from(self.0.finalize()) == expected, "{who}: not what was written");
        Ok(())
    }
}

#[derive(Default)]
struct Delays(Vec<u64>);

impl Sink for Delays {
    fn line(&mut self, line: &[u8]) {
        self.0.extend(standin::tick(line).map(|then| standin::now_ns().saturating_sub(then)));
    }
}

/// A whole orchestrator, with the stand-in as its `claude`.
struct Ours {
    server: Server,
    client: Client,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Ours {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
        let mut config = ServerConfig::in_dir(dir.path().join("data"));
        fs::create_dir(&config.data)?;
        config.rules.policy = Policy { log_bytes_max: u64::MAX, ..config.rules.policy };
        let provider = support::sandbox(&config.data, std::env::current_exe()?);
        let server = Server::start(config, provider, Arc::new(SystemClock)).await?;
        let client = Client::new(&server.socket());
        let http = reqwest::Client::builder().unix_socket(server.socket()).no_proxy().build()?;
        Ok(Self { server, client, http, _dir: dir })
    }

    /// From the first line that arrives to the last.
    async fn run(&self, words: &str, sink: &mut impl Sink) -> anyhow::Result<Duration> {
        let credential = Credential::new(
            CredentialKind::ApiKey,
            "sk-made-up".to_owned().into(),
            Some("http://127.0.0.1:9".to_owned()),
        );
        let create =
            CreateTask { prompt: words.to_owned(), credential: Some(credential), ..CreateTask::default() };
        let task = self.client.submit(&create, &uuid::Uuid::now_v7().to_string()).await?;
        let url = format!("http://mayfly/v1/tasks/{}/events", task.id);
        let mut body = self.http.get(url).send().await?.error_for_status()?.bytes_stream();
        let (mut rest, mut times) = (Vec::new(), Times::default());
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let mut lines = chunk.split_inclusive(|&byte| byte == b'\n');
            if !rest.is_empty() {
                rest.extend_from_slice(lines.next().unwrap_or_default());
                if rest.ends_with(b"\n") {
                    take(&std::mem::take(&mut rest), sink, &mut times);
                }
            }
            for line in lines {
                if line.ends_with(b"\n") {
                    take(line, sink, &mut times);
                } else {
                    rest.extend_from_slice(line);
                }
            }
        }
        let task = self.client.task(&task.id).await?;
        times.span().with_context(|| format!("the task ended as {:?}", task.outcome))
    }
}

/// When the first and the last line came.
#[derive(Default)]
struct Times(Option<(Instant, Instant)>);

impl Times {
    fn note(&mut self) {
        let now = Instant::now();
        self.0 = Some(self.0.map_or((now, now), |(first, _)| (first, now)));
    }

    fn span(&self) -> anyhow::Result<Duration> {
        let (first, last) = self.0.context("the program wrote nothing")?;
        Ok(last - first)
    }
}

/// Gives on what the program wrote, of an event that carries it.
fn take(event: &[u8], sink: &mut impl Sink, times: &mut Times) {
    const MARK: &[u8] = br#""source":"claude","line":"#;
    let head = &event[..event.len().min(300)];
    let Some(at) = memmem::find(head, MARK) else { return };
    let mut line = event[at + MARK.len()..event.len() - 2].to_vec();
    line.push(b'\n');
    times.note();
    sink.line(&line);
}

/// What a child of ours writes through websocketd to a reader.
async fn websocketd(words: &str, sink: &mut impl Sink) -> anyhow::Result<Duration> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("websocketd");
    command.args(["--address=127.0.0.1", &format!("--port={port}"), "--loglevel=fatal"]);
    command.arg(std::env::current_exe()?).arg("stand-in").args(words.split(' '));
    let _peer = Peer(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let stream = connect(port).await?;
    stream.set_nodelay(true)?;
    let url = format!("ws://127.0.0.1:{port}/");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
    let mut times = Times::default();
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_text() {
            continue;
        }
        let mut line = message.into_data().to_vec();
        line.push(b'\n');
        times.note();
        sink.line(&line);
    }
    times.span()
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Err(_) if start.elapsed() < Duration::from_secs(5) => tokio::task::yield_now().await,
            connected => return connected,
        }
    }
}

/// Ends a process of ours.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
