//! The queue: durable submits from many clients at once, and how soon an orchestrator that was killed is there again.
//!
//! `mayfly serve` is a process of its own with one machine at a time; each client is a connection of its own, and each
//! answer says that the task is on the disk. Run: `cargo bench --bench queue -- [TASKS] [CLIENTS]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/orchestrator.rs"]
mod orchestrator;
#[path = "support/process.rs"]
mod process;
#[path = "support/standin.rs"]
mod standin;
mod support;

use std::time::{Duration, Instant};

use orchestrator::{Orchestrator, task};

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
    let mut orchestrator = Orchestrator::start(&data, 1).await?;
    for count in [1, clients] {
        let part = if count == 1 { tasks / 10 } else { tasks };
        let time = submit(&orchestrator, part, count).await?;
        println!("{part} durable submits, {count} at a time: {:.0} a second", rate(part, time));
    }
    for _ in 0..KILLS {
        orchestrator.kill()?;
        let start = Instant::now();
        orchestrator = Orchestrator::start(&data, 1).await?;
        println!("ready {:.0} ms after SIGKILL and start", start.elapsed().as_secs_f64() * 1e3);
    }
    println!("memory of the orchestrator: {} KiB", orchestrator.memory()? / 1024);
    orchestrator.drain()
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

async fn submit(orchestrator: &Orchestrator, tasks: usize, clients: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let client = orchestrator.client();
        running.spawn(async move {
            for _ in 0..tasks / clients {
                client.submit(&task("stream 200 200"), &uuid::Uuid::now_v7().to_string()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(start.elapsed())
}
