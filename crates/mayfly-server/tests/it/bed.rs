//! A whole orchestrator, with machines that are played by the test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use mayfly_client::Client;
use mayfly_core::AttemptId;
use mayfly_link::{Channel, Endpoint, Frame, Route};
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError};
use mayfly_server::{Server, ServerConfig};
use mayfly_testkit::ManualClock;
use mayfly_wire::api::{Collected, CreateTask};
use mayfly_wire::boot::WAY_OUT_SOCKET;
use mayfly_wire::worker::{self, Down, End, Hello, PROTOCOL, Record, Report, Source, WorkOrder};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// The owner's credential.
pub(crate) const CANARY: &str = "sk-canary-77aa";

pub(crate) struct Bed {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) machines: mpsc::UnboundedReceiver<MachineSpec>,
    /// Its time.
    pub(crate) clock: ManualClock,
    provider: Arc<Played>,
    adjust: Adjust,
    data: PathBuf,
    _dir: TempDir,
}

impl Bed {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir.path().to_owned(), dir).await
    }

    /// With a configuration that differs from the usual one in this.
    pub(crate) async fn start_with(adjust: impl Fn(&mut ServerConfig) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_as(dir.path().to_owned(), dir, Arc::new(adjust)).await
    }

    /// With its data in `data`, which is in `dir`.
    pub(crate) async fn start_in(data: PathBuf, dir: TempDir) -> Self {
        Self::start_as(data, dir, Arc::new(|_: &mut ServerConfig| {})).await
    }

    async fn start_as(data: PathBuf, dir: TempDir, adjust: Adjust) -> Self {
        let (made, machines) = mpsc::unbounded_channel();
        let provider = Arc::new(Played { made, alive: watch::Sender::default() });
        let clock = ManualClock::default();
        let server = serve(&data, &provider, &clock, &adjust).await;
        let client = Client::new(&server.socket());
        Self { client, server, machines, clock, provider, adjust, data, _dir: dir }
    }

    /// Ends the orchestrator and starts another in the same folder, with the same machines alive.
    pub(crate) async fn restart(self) -> Self {
        self.server.stop().await;
        Self { server: serve(&self.data, &self.provider, &self.clock, &self.adjust).await, ..self }
    }

    /// The same, where it may not start; gives what it says.
    pub(crate) async fn restart_as_is(self) -> Result<Self, String> {
        self.server.stop().await;
        let clock = Arc::new(self.clock.clone());
        let config = ServerConfig::in_dir(&self.data);
        match Server::start(config, self.provider.clone(), clock).await {
            Ok(server) => Ok(Self { server, ..self }),
            Err(error) => Err(mayfly_core::causes(&error)),
        }
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The next machine's worker, with its work order.
    pub(crate) async fn worker(&mut self) -> Worker {
        let spec = self.machines.recv().await.unwrap();
        Worker::join(&door(&spec), &hello(&spec)).await.unwrap()
    }

    pub(crate) fn machines_alive(&self) -> usize {
        self.provider.alive.borrow().len()
    }

    /// Every machine is gone, whatever it was doing.
    pub(crate) fn lose_machines(&self) {
        self.provider.alive.send_modify(BTreeSet::clear);
    }

    /// A machine that no attempt owns.
    pub(crate) fn put_stranger(&self) {
        let stranger = "0193b2c4-0000-7000-8000-0123456789ab.1".parse().unwrap();
        self.provider.alive.send_if_modified(|alive| alive.insert(stranger));
    }

    /// Waits until so many machines are left.
    pub(crate) async fn nobody_but(&self, machines: usize) {
        self.provider.alive.subscribe().wait_for(|alive| alive.len() == machines).await.unwrap();
    }
}

/// What a configuration has that is not usual.
type Adjust = Arc<dyn Fn(&mut ServerConfig) + Send + Sync>;

async fn serve(data: &Path, provider: &Arc<Played>, clock: &ManualClock, adjust: &Adjust) -> Server {
    let mut config = ServerConfig::in_dir(data);
    adjust(&mut config);
    Server::start(config, provider.clone(), Arc::new(clock.clone())).await.unwrap()
}

/// A client for one of the doors, without any manners.
pub(crate) fn raw(socket: &Path) -> reqwest::Client {
    reqwest::Client::builder().unix_socket(socket).build().unwrap()
}

pub(crate) fn task(prompt: &str, base_url: Option<String>) -> CreateTask {
    let mut task = serde_json::json!({
        "prompt": prompt,
        "credential": { "kind": "api-key", "secret": CANARY },
    });
    if let Some(base_url) = base_url {
        task["credential"]["base_url"] = base_url.into();
    }
    serde_json::from_value(task).unwrap()
}

/// The machine's door.
pub(crate) fn door(spec: &MachineSpec) -> PathBuf {
    spec.way_out.join(WAY_OUT_SOCKET)
}

pub(crate) fn hello(spec: &MachineSpec) -> Hello {
    Hello {
        protocol: PROTOCOL,
        attempt: spec.attempt.to_string(),
        ticket: spec.ticket.expose_secret().to_owned().into(),
        link: format!("link of {}", spec.attempt).into(),
    }
}

/// A machine's worker, as far as the orchestrator can see.
pub(crate) struct Worker {
    channel: Channel,
    pub(crate) door: PathBuf,
    pub(crate) hello: Hello,
    pub(crate) order: WorkOrder,
    /// The last record sent.
    number: u64,
}

impl Worker {
    /// `Err`: what the orchestrator said instead of a welcome.
    pub(crate) async fn join(door: &Path, hello: &Hello) -> Result<Self, Down> {
        Self::join_by(Endpoint::Unix(door.to_owned()), hello).await
    }

    /// The same, by whatever leads there.
    pub(crate) async fn join_by(endpoint: Endpoint, hello: &Hello) -> Result<Self, Down> {
        let door = match &endpoint {
            Endpoint::Unix(door) => door.clone(),
            Endpoint::Tcp(_) | Endpoint::Vsock(_) | Endpoint::Tls { .. } => PathBuf::new(),
        };
        let way = Route::from(endpoint);
        let mut channel = mayfly_link::dial(&way, "/v1/worker", None).await.unwrap();
        channel.send(Frame::Text(serde_json::to_string(hello).unwrap())).await.unwrap();
        match heard(&mut channel).await.expect("an answer") {
            Down::Welcome { stored, order, .. } => {
                let hello = hello.clone();
                Ok(Self { channel, door, hello, order: *order, number: stored })
            }
            other => Err(other),
        }
    }

    /// The last record that the orchestrator has.
    pub(crate) fn stored(&self) -> u64 {
        self.number
    }

    /// Sends a line, and waits until it is stored.
    pub(crate) async fn say(&mut self, source: Source, end: End, bytes: impl Into<Bytes>) {
        self.number += 1;
        let record = Record { number: self.number, at_ms: 0, source, end, bytes: bytes.into() };
        self.channel.send(Frame::Binary(worker::encode([&record]))).await.unwrap();
        loop {
            if let Down::Ack { stored } = heard(&mut self.channel).await.expect("an ack") {
                assert_eq!(stored, self.number);
                return;
            }
        }
    }

    pub(crate) async fn line(&mut self, line: &'static str) {
        self.say(Source::Claude, End::Newline, line).await;
    }

    pub(crate) async fn report(&mut self, report: &Report) {
        self.say(Source::Report, End::Newline, serde_json::to_vec(report).unwrap()).await;
    }

    pub(crate) async fn ready(&mut self) {
        self.report(&Report::Started).await;
        self.report(&Report::Ready { version: "2.1.330".to_owned(), model: "m".to_owned() }).await;
    }

    /// Ends well, with these results.
    pub(crate) async fn finish(&mut self, collected: Collected) {
        self.report(&Report::Ended { outcome: "succeeded".to_owned(), detail: None }).await;
        self.report(&Report::Collected(collected)).await;
    }

    /// Ends by itself in this way, and brings nothing out.
    pub(crate) async fn end(&mut self, outcome: &str) {
        self.report(&Report::Ended { outcome: outcome.to_owned(), detail: None }).await;
        self.report(&Report::Collected(Collected::default())).await;
    }

    /// Sends any bytes as a frame of records.
    pub(crate) async fn send(&mut self, frame: Frame) {
        self.channel.send(frame).await.unwrap();
    }

    /// What the orchestrator says next; `None`: it ended the link.
    pub(crate) async fn heard(&mut self) -> Option<Down> {
        heard(&mut self.channel).await
    }
}

async fn heard(channel: &mut Channel) -> Option<Down> {
    match channel.recv().await?.ok()? {
        Frame::Text(text) => Some(serde_json::from_str(&text).unwrap()),
        Frame::Binary(bytes) => panic!("bytes from an orchestrator: {bytes:?}"),
    }
}

/// Makes machines by telling the test.
#[derive(Debug)]
struct Played {
    made: mpsc::UnboundedSender<MachineSpec>,
    alive: watch::Sender<BTreeSet<AttemptId>>,
}

#[async_trait]
impl Provider for Played {
    fn name(&self) -> &'static str {
        "played"
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        if self.alive.send_if_modified(|alive| alive.insert(spec.attempt)) {
            self.made.send(spec.clone()).unwrap();
        }
        Ok(machine(spec.attempt))
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        self.alive.send_if_modified(|alive| alive.remove(&attempt));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        Ok(self.alive.borrow().iter().copied().map(machine).collect())
    }
}

fn machine(attempt: AttemptId) -> Machine {
    Machine { attempt, alive: true, notes: Vec::new() }
}

/// git in `folder`.
pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
    git_with(folder, args, "")
}

/// The same, with something to read.
pub(crate) fn git_with(folder: &Path, args: &[&str], input: &str) -> String {
    let output = git_bytes(folder, args, input);
    String::from_utf8(output).unwrap().trim_end().to_owned()
}

/// The same, whose output is no text.
pub(crate) fn git_bytes(folder: &Path, args: &[&str], input: &str) -> Vec<u8> {
    let mut command = std::process::Command::new("git");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", folder).current_dir(folder);
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@localhost");
    }
    let read = folder.join(".input");
    std::fs::write(&read, input).unwrap();
    command.stdin(std::fs::File::open(&read).unwrap());
    let output = command.args(args).output().unwrap();
    std::fs::remove_file(read).unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The work of a machine whose file `name` holds `text`, as a bundle; `other` is what it has beside it.
pub(crate) fn bundle(name: &str, text: &str, message: &str, other: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", dir.path());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@localhost");
        }
        let output = command.current_dir(dir.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    git(&["init", "-q", "-b", "work", "."]);
    std::fs::write(dir.path().join(name), text).unwrap();
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", message]);
    git(&["branch", &format!("other/{other}")]);
    git(&["bundle", "create", "-q", "work.bundle", "--branches"]);
    std::fs::read(dir.path().join("work.bundle")).unwrap()
}
