//! An orchestrator that is killed with a thousand workers and a thousand readers: how soon all are there again.
//!
//! The orchestrator is a process of its own, the benchmark itself, with its database, doors and socket as ever; its
//! machines are played, since a thousand agents find no room on a small host. Each plays its worker's part over its own
//! door: it dials again with the waits of a real one, keeps each line until it is acknowledged, and sends it again. Each
//! reader is the client that the command line has. Once all run, the orchestrator is killed, and another is started at once.
//!
//! What is told counts from the start of the other. At the end each log must have each line once and in order.
//!
//! Run: `cargo bench --bench reattach -- [MACHINES] [ROUNDS]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/process.rs"]
mod process;
mod support;

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mayfly_client::{Client, ClientError};
use mayfly_core::AttemptId;
use mayfly_engine::SystemClock;
use mayfly_link::{BackOff, Channel, Endpoint, Frame, LinkError, Route, dial};
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError};
use mayfly_server::{Server, ServerConfig};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind};
use mayfly_wire::boot::WAY_OUT_SOCKET;
use mayfly_wire::event::{Event, EventSource};
use mayfly_wire::worker::{self, Down, End, Hello, PROTOCOL, Record, Report, Source};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use process::Peer;

const MACHINES: usize = 1000;
const ROUNDS: usize = 3;
/// How often each agent says a line.
const PACE: Duration = Duration::from_secs(1);
/// The time after which nothing more is expected to change.
const SETTLED: Duration = Duration::from_secs(3);
/// For each machine its door and link, for each reader its connection; and as much again at the other end.
const FILES_EACH: usize = 8;
/// How many tasks are submitted at once.
const SUBMITS: usize = 20;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.iter().position(|arg| arg == "orchestrate") {
        Some(at) => runtime.block_on(orchestrate(Path::new(&args[at + 1]), &args[at + 2])),
        None => runtime.block_on(measure(args.iter().filter_map(|arg| arg.parse().ok()))),
    }
}

/// The orchestrator's process, until it is killed.
async fn orchestrate(data: &Path, machines_max: &str) -> anyhow::Result<()> {
    mayfly_server::raise_open_files();
    let mut config = ServerConfig::in_dir(data);
    config.rules.policy.machines_max = machines_max.parse()?;
    let provider = Played { folder: data.with_extension("machines") };
    fs::create_dir_all(&provider.folder)?;
    let _server = Server::start(config, Arc::new(provider), Arc::new(SystemClock)).await?;
    println!("ready");
    std::future::pending().await
}

/// Makes machines by writing down what their workers need.
#[derive(Debug)]
struct Played {
    folder: PathBuf,
}

impl Played {
    fn machine(attempt: AttemptId) -> Machine {
        Machine { attempt, alive: true, notes: Vec::new() }
    }

    fn unclear(call: &'static str) -> impl FnOnce(std::io::Error) -> ProviderError {
        move |error| ProviderError::Unclear { call, source: error.into() }
    }
}

#[async_trait::async_trait]
impl Provider for Played {
    fn name(&self) -> &'static str {
        "played"
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        let text = format!("{}\n{}\n", spec.way_out.display(), spec.ticket.expose_secret());
        let path = self.folder.join(spec.attempt.to_string());
        fs::write(path, text).map_err(Self::unclear("create"))?;
        Ok(Self::machine(spec.attempt))
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        let _ = fs::remove_file(self.folder.join(attempt.to_string()));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        let names = fs::read_dir(&self.folder).map_err(Self::unclear("list"))?;
        let attempts = names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(attempts.map(Self::machine).collect())
    }
}

/// Starts an orchestrator, and returns once it serves.
fn start(data: &Path, machines: usize) -> anyhow::Result<Peer> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env_clear().arg("orchestrate").arg(data).arg(machines.to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let said = BufReader::new(child.stdout.take().context("a pipe")?).lines().next();
    let peer = Peer(child);
    ensure!(said.context("it ended")?? == "ready", "it said something else");
    Ok(peer)
}

async fn measure(mut numbers: impl Iterator<Item = usize>) -> anyhow::Result<()> {
    let files = process::raise_open_files()?;
    let (asked, rounds) = (numbers.next().unwrap_or(MACHINES), numbers.next().unwrap_or(ROUNDS));
    let machines = asked.min(files / FILES_EACH);
    println!("{machines} workers and as many readers of {asked}: a process has {files} files here");
    for _ in 0..rounds {
        round(machines).await?;
    }
    Ok(())
}

/// What the parts tell, as it happens.
#[derive(Debug, Clone)]
struct Told {
    /// A worker was let in, with so many lines of its own unacknowledged.
    joined: mpsc::UnboundedSender<(Instant, usize)>,
    /// A reader heard a line.
    heard: mpsc::UnboundedSender<(Instant, usize)>,
    /// Nobody says anything any more.
    quiet: Arc<AtomicBool>,
    said: Arc<AtomicUsize>,
}

async fn round(machines: usize) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let data = dir.path().join("data");
    let killed = start(&data, machines)?;
    let client = Client::new(&data.join("api.sock"));
    let tasks = submit(&client, machines).await?;
    let (joined, mut joins) = mpsc::unbounded_channel();
    let (heard, mut telling) = mpsc::unbounded_channel();
    let told = Told { joined, heard, quiet: Arc::default(), said: Arc::default() };
    let mut workers = JoinSet::new();
    for spec in specs(&data.with_extension("machines"), machines).await? {
        workers.spawn(Worker::new(&spec, told.clone())?.run());
    }
    let mut readers = JoinSet::new();
    for (number, task) in tasks.iter().enumerate() {
        readers.spawn(follow(client.clone(), task.clone(), number, told.clone()));
    }
    each(machines, &mut joins, None).await?;
    each_of(machines, &mut telling, None).await?;
    sleep(SETTLED).await;

    let before = process::memory(killed.0.id())?;
    drop(killed);
    let begun = Instant::now();
    let next = start(&data, machines)?;
    let ready = begun.elapsed();
    let (joined, behind) = each(machines, &mut joins, Some(begun)).await?;
    let heard = each_of(machines, &mut telling, Some(begun)).await?;
    sleep(SETTLED).await;
    let after = process::memory(next.0.id())?;
    println!(
        "  ready after {} ms; memory {} MiB before, {} MiB after",
        ready.as_millis(),
        before >> 20,
        after >> 20
    );
    print("workers let in", joined);
    println!("    lines that a worker had to send again: {behind} at most");
    print("readers that hear their agent", heard);

    told.quiet.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    readers.abort_all();
    check(&client, &tasks, told.said.load(Ordering::Relaxed)).await
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_millis();
    println!("    {what:30} ms: p50 {:5}  p99 {:5}  max {:5}", at(50), at(99), at(100));
}

async fn submit(client: &Client, machines: usize) -> anyhow::Result<Vec<String>> {
    let mut submitting = JoinSet::new();
    for part in 0..SUBMITS {
        let client = client.clone();
        submitting.spawn(async move {
            let mut tasks = Vec::new();
            for number in (part..machines).step_by(SUBMITS) {
                let nowhere = Some("http://127.0.0.1:9".to_owned());
                let secret = "sk-made-up".to_owned().into();
                let credential = Some(Credential::new(CredentialKind::ApiKey, secret, nowhere));
                let task = CreateTask { prompt: "x".to_owned(), credential, ..CreateTask::default() };
                tasks.push(client.submit(&task, &number.to_string()).await?.id);
            }
            Ok::<_, ClientError>(tasks)
        });
    }
    let mut tasks = Vec::new();
    while let Some(part) = submitting.join_next().await {
        tasks.extend(part??);
    }
    Ok(tasks)
}

/// What the workers of all machines need, once all are made.
async fn specs(folder: &Path, machines: usize) -> anyhow::Result<Vec<PathBuf>> {
    loop {
        let made =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
        if made.len() == machines {
            return Ok(made);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// When each of so many happened, after `since`, and the most that any told.
async fn each(
    count: usize,
    events: &mut mpsc::UnboundedReceiver<(Instant, usize)>,
    since: Option<Instant>,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let (mut times, mut most) = (Vec::new(), 0);
    while times.len() < count {
        let (at, told) = events.recv().await.context("nobody is there any more")?;
        if since.is_none_or(|since| at > since) {
            times.push(at - since.unwrap_or(at));
            most = most.max(told);
        }
    }
    Ok((times, most))
}

/// When each number of so many came first after `since`.
async fn each_of(
    count: usize,
    events: &mut mpsc::UnboundedReceiver<(Instant, usize)>,
    since: Option<Instant>,
) -> anyhow::Result<Vec<Duration>> {
    let mut came = vec![None; count];
    let mut missing = count;
    while missing > 0 {
        let (at, number) = events.recv().await.context("nobody is there any more")?;
        if came[number].is_none() && since.is_none_or(|since| at > since) {
            came[number] = Some(at - since.unwrap_or(at));
            missing -= 1;
        }
    }
    Ok(came.into_iter().flatten().collect())
}

/// The worker of one machine.
struct Worker {
    way: Route,
    hello: Hello,
    back_off: BackOff,
    /// What is not acknowledged yet, by its number.
    waiting: VecDeque<(u64, Source, Vec<u8>)>,
    number: u64,
    next: Instant,
    told: Told,
}

impl Worker {
    fn new(spec: &Path, told: Told) -> anyhow::Result<Self> {
        let text = fs::read_to_string(spec)?;
        let (way_out, ticket) = text.trim_end().split_once('\n').context("two lines")?;
        let attempt = spec.file_name().context("a name")?.to_string_lossy().into_owned();
        let (link, ticket) = (format!("link of {attempt}").into(), ticket.to_owned().into());
        let hello = Hello { protocol: PROTOCOL, attempt, ticket, link };
        let way = Route::from(Endpoint::Unix(Path::new(way_out).join(WAY_OUT_SOCKET)));
        let (back_off, waiting) = (BackOff::new(|| fastrand::u64(..)), VecDeque::new());
        let next = Instant::now() + PACE.mul_f64(fastrand::f64());
        let mut worker = Self { way, hello, back_off, waiting, number: 0, next, told };
        worker.push(Source::Report, serde_json::to_vec(&Report::Started)?);
        let ready = Report::Ready { version: "2.1.330".to_owned(), model: "m".to_owned() };
        worker.push(Source::Report, serde_json::to_vec(&ready)?);
        Ok(worker)
    }

    fn push(&mut self, source: Source, bytes: Vec<u8>) {
        self.number += 1;
        self.waiting.push_back((self.number, source, bytes));
    }

    /// Until there is nothing more to say, and all of it was acknowledged.
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            match self.link().await {
                Ok(()) => return Ok(()),
                Err(LinkError::Unreachable(_) | LinkError::Cut(_) | LinkError::Refused { .. }) => {}
                Err(error) => bail!(error),
            }
            sleep(self.back_off.wait()).await;
        }
    }

    async fn link(&mut self) -> Result<(), LinkError> {
        let mut channel = dial(&self.way, "/v1/worker", None).await?;
        channel.send(Frame::Text(serde_json::to_string(&self.hello).expect("plain data"))).await?;
        let Down::Welcome { stored, .. } = hear(&mut channel).await? else { panic!("no welcome") };
        self.back_off.reset();
        self.forget(stored);
        let _ = self.told.joined.send((Instant::now(), self.waiting.len()));
        for record in &self.waiting {
            send(&mut channel, record).await?;
        }
        loop {
            tokio::select! {
                down = hear(&mut channel) => match down? {
                    Down::Ack { stored } => self.forget(stored),
                    other => panic!("{other:?}"),
                },
                () = sleep_until(self.next) => {
                    self.next += PACE;
                    if !self.is_quiet() {
                        self.say();
                        send(&mut channel, self.waiting.back().expect("a line")).await?;
                    }
                }
            }
            if self.is_quiet() && self.waiting.is_empty() {
                return Ok(());
            }
        }
    }

    fn say(&mut self) {
        self.told.said.fetch_add(1, Ordering::Relaxed);
        self.push(Source::Claude, format!("{{\"n\":{}}}", self.number + 1).into_bytes());
    }

    fn is_quiet(&self) -> bool {
        self.told.quiet.load(Ordering::Relaxed)
    }

    fn forget(&mut self, stored: u64) {
        while self.waiting.front().is_some_and(|(number, ..)| *number <= stored) {
            self.waiting.pop_front();
        }
    }
}

async fn send(channel: &mut Channel, record: &(u64, Source, Vec<u8>)) -> Result<(), LinkError> {
    let (number, source, bytes) = record.clone();
    let record = Record { number, at_ms: 0, source, end: End::Newline, bytes: bytes.into() };
    channel.send(Frame::Binary(worker::encode([&record]))).await
}

async fn hear(channel: &mut Channel) -> Result<Down, LinkError> {
    match channel.recv().await {
        Some(Ok(Frame::Text(text))) => Ok(serde_json::from_str(&text).expect("a word of ours")),
        Some(Ok(Frame::Binary(_))) => panic!("bytes from an orchestrator"),
        Some(Err(error)) => Err(error),
        None => Err(LinkError::Unreachable(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Follows a task for ever.
async fn follow(client: Client, task: String, number: usize, told: Told) -> anyhow::Result<()> {
    let (mut events, mut last) = (client.events(&task, 0), 0);
    loop {
        match events.next().await {
            Ok(Some(line)) => {
                let Event { seq, source, .. } = Event::parse(&line)?;
                ensure!(seq == last + 1, "event {seq} of {task} came after {last}");
                last = seq;
                if source == EventSource::Claude {
                    let _ = told.heard.send((Instant::now(), number));
                }
            }
            Ok(None) => bail!("task {task} is over"),
            Err(ClientError::Unreachable { .. }) => {}
            Err(error) => bail!(error),
        }
    }
}

/// Each log has each line of its agent once, in order, and all together as many as were said.
async fn check(client: &Client, tasks: &[String], said: usize) -> anyhow::Result<()> {
    let mut kept = 0;
    for task in tasks {
        let (mut events, mut due) = (client.events_so_far(task, 0), 3);
        while let Some(line) = events.next().await? {
            let event = Event::parse(&line)?;
            if event.source == EventSource::Claude {
                ensure!(event.raw() == format!("{{\"n\":{due}}}\n").as_bytes(), "of {task}: {line}");
                (due, kept) = (due + 1, kept + 1);
            }
        }
    }
    ensure!(kept == said, "{said} lines were said, and {kept} kept");
    println!("    lines: {said} said, {kept} kept, each once and in order");
    Ok(())
}
