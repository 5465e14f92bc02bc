//! The model gateway against haproxy: both stand between a unix socket and the same model API on loopback.
//!
//! Ours: the door of a machine that runs, where the token is checked, the database asked whose it is, the credential
//! swapped, every piece of the answer searched for secrets, and what it used counted and kept. Theirs: haproxy in mode
//! `http`, which swaps the credential and keeps its connections to the API. Client and API are of this process, and what
//! came through is compared with what was sent, byte by byte. Each request has a connection of its own to the proxy, as it
//! has to a machine's door; those without a proxy have one that is kept, as `claude` has outside a machine. The worker's
//! relay is in none. Without haproxy (`apt-get install haproxy`) only ours runs.
//!
//! Run: `cargo bench --bench gateway -- [ROUNDS]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/haproxy.rs"]
mod haproxy;
#[path = "support/orchestrator.rs"]
mod orchestrator;
#[path = "support/process.rs"]
mod process;
#[path = "support/standin.rs"]
mod standin;
mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind};
use tokio::net::TcpListener;

use haproxy::Haproxy;
use orchestrator::Orchestrator;

const ROUNDS: usize = 40;
/// Short answers for each pair of large bodies.
const SHORT_EACH: usize = 25;
const BODY_BYTES: u32 = 10_000_000;
/// What the API sends at once.
const PIECE_BYTES: usize = 16 * 1024;
/// What is done before anything is counted.
const WARM_UP: usize = 3;
const SECRET: &str = "sk-made-up-for-this";
/// What haproxy does with the credential.
const SWAP: &str = "  http-reuse always\n  http-request del-header authorization\n  http-request set-header x-api-key sk-made-up-for-this\n";

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let bodies = Bodies::new();
    let api = serve(bodies.clone()).await?;
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let ours = Orchestrator::start(&dir.path().join("data"), 1).await?;
    let machine = ours.machine(task(api)).await?;
    let theirs = Haproxy::start(dir.path(), api, SWAP).await?;

    let mut ways = vec![Way::direct(api)?, Way::by("mayfly", &machine.door, &machine.token, ours.pid())?];
    match &theirs {
        Some(haproxy) => ways.push(Way::by("haproxy", &haproxy.socket, "a-placeholder", haproxy.pid())?),
        None => println!("haproxy is not here: only ours is measured"),
    }
    for round in 0..WARM_UP + rounds {
        for way in &mut ways {
            way.round(&bodies, round >= WARM_UP).await?;
        }
    }
    print(&ways);
    ours.client().cancel(&machine.task, true).await?;
    ours.drain()
}

/// A task that has the API as its model's.
fn task(api: SocketAddr) -> CreateTask {
    let credential =
        Credential::new(CredentialKind::ApiKey, SECRET.to_owned().into(), Some(format!("http://{api}")));
    CreateTask { prompt: "machine".to_owned(), credential: Some(credential), ..CreateTask::default() }
}

/// What is sent, made once.
#[derive(Debug, Clone)]
struct Bodies {
    /// A short stream of events, an event each.
    short: Vec<Bytes>,
    /// A long one, in pieces.
    long: Bytes,
    /// A request.
    request: Bytes,
}

impl Bodies {
    fn new() -> Self {
        let start = r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":9,"output_tokens":1}}}"#;
        let piece =
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" some words"}}"#;
        let end =
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":12}}"#;
        let event = |data: &str| format!("event: x\ndata: {data}\n\n");
        let short = [start, piece, piece, end].map(event).map(Bytes::from).to_vec();
        let pieces = event(piece).repeat(BODY_BYTES as usize / event(piece).len());
        let long = [event(start), pieces, event(end)].concat().into();
        let words = r#"{"role":"user","content":"what was said so far, and what a tool has given"},"#;
        let request = words.repeat(BODY_BYTES as usize / words.len()).into();
        Self { short, long, request }
    }

    fn pieces(&self) -> Vec<Bytes> {
        let starts = (0..self.long.len()).step_by(PIECE_BYTES);
        starts.map(|at| self.long.slice(at..self.long.len().min(at + PIECE_BYTES))).collect()
    }
}

/// The API: what a request asks for is in its query.
async fn serve(bodies: Bodies) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/v1/messages", post(answer)).with_state(bodies);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn answer(State(bodies): State<Bodies>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.headers.get("x-api-key").is_none_or(|key| key != SECRET) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    // All of it is read: a connection that is closed with something unread loses what is under way on it.
    let mut came = Came::default();
    let mut body = body.into_data_stream();
    while let Some(Ok(piece)) = body.next().await {
        came.take(&piece, &bodies.request);
    }
    match parts.uri.query() {
        Some("long") => events(bodies.pieces()),
        Some("up") if !came.is_all(&bodies.request) => StatusCode::BAD_REQUEST.into_response(),
        _ => events(bodies.short),
    }
}

fn events(pieces: Vec<Bytes>) -> Response {
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

/// How much of what was sent has come.
#[derive(Debug, Default)]
struct Came {
    bytes: usize,
    other: bool,
}

impl Came {
    fn take(&mut self, piece: &[u8], sent: &[u8]) {
        self.other |= sent.get(self.bytes..self.bytes + piece.len()) != Some(piece);
        self.bytes += piece.len();
    }

    fn is_all(&self, sent: &[u8]) -> bool {
        !self.other && self.bytes == sent.len()
    }
}

/// One way to the API.
#[derive(Debug)]
struct Way {
    name: &'static str,
    client: reqwest::Client,
    url: String,
    /// What it wants to see.
    credential: (&'static str, String),
    /// The proxy, if there is one.
    pid: Option<u32>,
    times: Times,
}

/// What was measured.
#[derive(Debug, Default)]
struct Times {
    first: Vec<Duration>,
    down: Vec<Duration>,
    up: Vec<Duration>,
    /// What the proxy used for all of them.
    cpu_down: Duration,
    cpu_up: Duration,
}

impl Way {
    fn direct(api: SocketAddr) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let credential = ("x-api-key", SECRET.to_owned());
        let url = format!("http://{api}/v1/messages");
        Ok(Self { name: "no proxy", client, url, credential, pid: None, times: Times::default() })
    }

    fn by(name: &'static str, socket: &Path, token: &str, pid: u32) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.unix_socket(socket).build()?;
        let credential = ("authorization", format!("Bearer {token}"));
        let url = "http://proxy/v1/messages".to_owned();
        Ok(Self { name, client, url, credential, pid: Some(pid), times: Times::default() })
    }

    /// A few short answers, one that is long, and a long request.
    async fn round(&mut self, bodies: &Bodies, counts: bool) -> anyhow::Result<()> {
        let (little, short) = (Bytes::from_static(b"{}"), bodies.short.concat());
        let mut now = Times::default();
        for _ in 0..SHORT_EACH {
            now.first.push(self.ask("short", little.clone(), &short).await?.0);
        }
        let before = self.cpu()?;
        now.down.push(self.ask("long", little, &bodies.long).await?.1);
        let between = self.cpu()?;
        now.up.push(self.ask("up", bodies.request.clone(), &short).await?.1);
        now.cpu_down = between.saturating_sub(before);
        now.cpu_up = self.cpu()?.saturating_sub(between);
        if counts {
            self.times.add(now);
        }
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        self.pid.map_or(Ok(Duration::ZERO), process::cpu)
    }

    /// The time to the first byte of the answer's body, and to its last.
    async fn ask(&self, what: &str, body: Bytes, answer: &[u8]) -> anyhow::Result<(Duration, Duration)> {
        let (name, value) = &self.credential;
        let request = self.client.post(format!("{}?{what}", self.url)).header(*name, value).body(body);
        let begun = Instant::now();
        let mut got = request.send().await?.error_for_status()?;
        let (mut came, mut first) = (Came::default(), None);
        while let Some(piece) = got
            .chunk()
            .await
            .with_context(|| format!("{} broke off after {} bytes of {what}", self.name, came.bytes))?
        {
            first.get_or_insert_with(|| begun.elapsed());
            came.take(&piece, answer);
        }
        let last = begun.elapsed();
        ensure!(came.is_all(answer), "{}: {} bytes came, or others than were sent", self.name, came.bytes);
        Ok((first.context("an answer")?, last))
    }
}

impl Times {
    fn add(&mut self, more: Self) {
        self.first.extend(more.first);
        self.down.extend(more.down);
        self.up.extend(more.up);
        self.cpu_down += more.cpu_down;
        self.cpu_up += more.cpu_up;
    }
}

fn print(ways: &[Way]) {
    let of = |part: fn(&Times) -> &Vec<Duration>| -> Vec<(&str, &[Duration])> {
        ways.iter().map(|way| (way.name, part(&way.times).as_slice())).collect()
    };
    let megabytes = f64::from(BODY_BYTES) / 1e6;
    let first = "a streamed answer, from its request to the first byte of its body";
    support::print_beside(first, &of(|times| &times.first));
    support::print_rates(
        "an answer of 10 MB in events, to its last byte",
        megabytes,
        &of(|times| &times.down),
    );
    support::print_rates("a request of 10 MB, to the end of its answer", megabytes, &of(|times| &times.up));
    for Way { name, times: Times { cpu_down, cpu_up, down, .. }, .. } in &ways[1..] {
        let each = |cpu: Duration| {
            cpu.as_secs_f64() * 1e3 / f64::from(u32::try_from(down.len()).unwrap_or(u32::MAX))
        };
        println!(
            "CPU of {name} for 10 MB: {:.1} ms an answer, {:.1} ms a request",
            each(*cpu_down),
            each(*cpu_up)
        );
    }
}
