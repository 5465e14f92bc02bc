//! An orchestrator in a process of its own, with the benchmark as its `claude`.
#![allow(dead_code, reason = "no benchmark takes all of it")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use mayfly_client::Client;
use mayfly_wire::api::{CreateTask, Credential, CredentialKind, Task};
use mayfly_wire::boot::WAY_OUT_SOCKET;
use mayfly_wire::event::Event;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader as AsyncBufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::MAYFLY;
use crate::{process, standin};

/// What a reader reads at once.
const READ_BYTES: usize = 64 * 1024;

/// A machine in which the stand-in does nothing, so that others can ask in its place.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) task: String,
    pub(crate) door: PathBuf,
    /// With which the model can be asked there.
    pub(crate) token: String,
}

/// `mayfly serve`, ready.
#[derive(Debug)]
pub(crate) struct Orchestrator {
    child: Child,
    data: PathBuf,
    address: SocketAddr,
}

impl Orchestrator {
    /// Starts one on a data folder, for `parallel` machines at once. It says when it serves; from then on it takes tasks.
    pub(crate) async fn start(data: &Path, parallel: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(MAYFLY);
        command.env_clear().env("HOME", data).env("PATH", "/usr/bin:/bin").arg("--claude");
        command.arg(std::env::current_exe()?).args(["serve", "--listen", "127.0.0.1:0", "--parallel"]);
        command.arg(parallel.to_string()).arg("--data").arg(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let first = lines.next().context("it said nothing")??;
        ensure!(first.starts_with("serving on"), "it said `{first}`");
        let second = lines.next().context("it has no port")??;
        let address = second.split_once("http://").and_then(|(_, rest)| rest.split_once(','));
        let address = address.with_context(|| format!("it said `{second}`"))?.0.parse()?;
        let orchestrator = Self { child, data: data.to_owned(), address };
        orchestrator.client().ready().await?;
        Ok(orchestrator)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.data.join("api.sock"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Submits a task for the stand-in.
    pub(crate) async fn submit(&self, words: &str) -> anyhow::Result<Task> {
        Ok(self.client().submit(&task(words), &uuid::Uuid::now_v7().to_string()).await?)
    }

    /// Runs a task of the stand-in whose words are `machine`, and waits until its machine may ask the model.
    pub(crate) async fn machine(&self, task: CreateTask) -> anyhow::Result<Machine> {
        let task = self.client().submit(&task, &uuid::Uuid::now_v7().to_string()).await?;
        let mut events = self.client().events(&task.id, 0);
        while let Some(line) = events.next().await? {
            let event = Event::parse(&line)?;
            if let Some(token) = event.text.as_deref().and_then(standin::token) {
                let door = self.data.join("way-out").join(format!("{}.{}", task.id, event.attempt));
                return Ok(Machine {
                    task: task.id,
                    door: door.join(WAY_OUT_SOCKET),
                    token: token.to_owned(),
                });
            }
        }
        bail!("the task is over: {:?}", self.client().task(&task.id).await?.outcome)
    }

    /// The log of a task by the port, behind the head of the answer.
    pub(crate) async fn events(&self, query: &str) -> anyhow::Result<AsyncBufReader<TcpStream>> {
        self.events_over(TcpStream::connect(self.address).await?, query).await
    }

    /// The same by a connection for which the system holds so many bytes at this end.
    pub(crate) async fn events_held(
        &self,
        query: &str,
        bytes: u32,
    ) -> anyhow::Result<AsyncBufReader<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        self.events_over(socket.connect(self.address).await?, query).await
    }

    async fn events_over(
        &self,
        mut stream: TcpStream,
        query: &str,
    ) -> anyhow::Result<AsyncBufReader<TcpStream>> {
        let token = std::fs::read_to_string(self.data.join("token"))?;
        let (host, token) = (self.address, token.trim());
        let asked = format!(
            "GET /v1/tasks/{query} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(asked.as_bytes()).await?;
        let mut stream = AsyncBufReader::with_capacity(READ_BYTES, stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read_until(b'\n', &mut head).await?;
            ensure!(read > 0, "the answer broke off: {}", String::from_utf8_lossy(&head));
        }
        ensure!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        Ok(stream)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets what runs end, so that no machine is left.
    pub(crate) fn drain(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        ensure!(self.child.wait()?.success(), "it did not stop as it should");
        Ok(())
    }

    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        process::memory(self.pid())
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A task for the stand-in.
pub(crate) fn task(words: &str) -> CreateTask {
    let credential = Credential::new(
        CredentialKind::ApiKey,
        "sk-made-up".to_owned().into(),
        Some("http://127.0.0.1:9".to_owned()),
    );
    CreateTask { prompt: words.to_owned(), credential: Some(credential), ..CreateTask::default() }
}
