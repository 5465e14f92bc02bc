//! The queue: durable submits from many clients at once, and how soon an orchestrator that was killed is there again.
//!
//! `mayfly serve` is a process of its own with one machine at a time; each client is a connection of its own, and each
//! answer says that the task is on the disk. Run: `cargo bench --bench queue -- [TASKS] [CLIENTS]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/standin.rs"]
mod standin;
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mayfly_client::Client;
use mayfly_wire::api::{CreateTask, Credential, CredentialKind};
use rustix::process::{Pid, Signal, kill_process};

const TASKS: usize = 10_000;
const CLIENTS: usize = 50;
const KILLS: usize = 3;

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (tasks, clients) = (numbers.next().unwrap_or(TASKS), numbers.next().unwrap_or(CLIENTS));
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let data = dir.path().join("data");
    let mut orchestrator = Orchestrator::start(&data)?;
    orchestrator.until_ready(&data).await?;
    for count in [1, clients] {
        let part = if count == 1 { tasks / 10 } else { tasks };
        let time = submit(&data, part, count).await?;
        println!("{part} durable submits, {count} at a time: {:.0} a second", rate(part, time));
    }
    for _ in 0..KILLS {
        orchestrator.kill()?;
        let start = Instant::now();
        orchestrator = Orchestrator::start(&data)?;
        orchestrator.until_ready(&data).await?;
        println!("ready {:.0} ms after SIGKILL and start", start.elapsed().as_secs_f64() * 1e3);
    }
    println!("memory of the orchestrator: {}", orchestrator.memory()?);
    orchestrator.drain()
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

async fn submit(data: &Path, tasks: usize, clients: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let client = Client::new(&data.join("api.sock"));
        running.spawn(async move {
            for _ in 0..tasks / clients {
                client.submit(&task(), &uuid::Uuid::now_v7().to_string()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(start.elapsed())
}

fn task() -> CreateTask {
    let credential = Credential::new(
        CredentialKind::ApiKey,
        "sk-made-up".to_owned().into(),
        Some("http://127.0.0.1:9".to_owned()),
    );
    CreateTask { prompt: "stream 200 200".to_owned(), credential: Some(credential), ..CreateTask::default() }
}

/// An orchestrator in a process of its own.
struct Orchestrator(Child);

impl Orchestrator {
    fn start(data: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(support::MAYFLY);
        command.env_clear().env("HOME", data).env("PATH", "/usr/bin:/bin").arg("--claude");
        command.arg(std::env::current_exe()?).args(["serve", "--parallel", "1", "--listen", "127.0.0.1:0"]);
        command.arg("--data").arg(data).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// It says when it serves; from then on it would take a task.
    async fn until_ready(&mut self, data: &Path) -> anyhow::Result<()> {
        let stdout = self.0.stdout.as_mut().context("a pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.starts_with("serving on"), "it said `{line}`");
        Ok(Client::new(&data.join("api.sock")).ready().await?)
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    fn memory(&self) -> anyhow::Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS")).context("a size")?;
        Ok(line.trim_start_matches("VmRSS:").trim().to_owned())
    }

    /// Lets what runs end, so that no machine is left.
    fn drain(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        ensure!(self.0.wait()?.success(), "it did not stop as it should");
        Ok(())
    }
}
