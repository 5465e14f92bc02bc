//! Readers that wait for what does not come: what each takes in the orchestrator's memory, against nats-server.
//!
//! Each is a connection over loopback TCP that follows the log of one task, which says nothing; of nats-server, a
//! subscription. Both ends are on this machine: where it allows fewer open files than there are to be readers, there are
//! fewer, and that is said. The memory is the resident set of the server's process, without the system's own buffers.
//!
//! Run: `cargo bench --bench readers -- [READERS] [ROUNDS]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/nats.rs"]
mod nats;
#[path = "support/orchestrator.rs"]
mod orchestrator;
#[path = "support/process.rs"]
mod process;
#[path = "support/standin.rs"]
mod standin;
mod support;

use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::TcpStream;

use nats::Nats;
use orchestrator::Orchestrator;

const READERS: usize = 10_000;
const ROUNDS: usize = 2;
/// Readers that come before it is measured, so that what all share is there.
const FIRST: usize = 50;
/// Files of this process that are no readers.
const FILES_KEPT: usize = 200;
/// The time after which nothing more is expected to change.
const SETTLED: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let files = process::raise_open_files()?;
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (asked, rounds) = (numbers.next().unwrap_or(READERS), numbers.next().unwrap_or(ROUNDS));
    let readers = asked.min(files - FILES_KEPT);
    println!("{readers} of {asked} idle readers: a process has {files} files here");
    for _ in 0..rounds {
        print("mayfly", readers, ours(readers).await?);
        match theirs(readers).await? {
            Some(grown) => print("nats-server", readers, grown),
            None => println!("nats-server is not here"),
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn print(who: &str, readers: usize, grown: u64) {
    println!("  {who:12} {:6.1} KiB a reader", grown as f64 / 1024.0 / readers as f64);
}

/// By how much an orchestrator grows.
async fn ours(readers: usize) -> anyhow::Result<u64> {
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let server = Orchestrator::start(&dir.path().join("data"), 1).await?;
    let task = server.submit("ticks 200 0 1 600000").await?;
    let log = format!("{}/events", task.id);
    let mut there = Vec::new();
    follow(&server, &log, FIRST, &mut there).await?;
    let before = process::memory(server.pid())?;
    follow(&server, &log, readers, &mut there).await?;
    let grown = process::memory(server.pid())?.saturating_sub(before);
    server.client().cancel(&task.id, true).await?;
    drop(there);
    server.drain()?;
    Ok(grown)
}

async fn follow(
    server: &Orchestrator,
    log: &str,
    readers: usize,
    there: &mut Vec<BufReader<TcpStream>>,
) -> anyhow::Result<()> {
    for _ in 0..readers {
        there.push(server.events(log).await?);
    }
    tokio::time::sleep(SETTLED).await;
    Ok(())
}

/// By how much nats-server grows.
async fn theirs(readers: usize) -> anyhow::Result<Option<u64>> {
    let Some(server) = Nats::start().await? else { return Ok(None) };
    let mut there = Vec::new();
    subscribe(&server, FIRST, &mut there).await?;
    let before = process::memory(server.pid())?;
    subscribe(&server, readers, &mut there).await?;
    Ok(Some(process::memory(server.pid())?.saturating_sub(before)))
}

async fn subscribe(
    server: &Nats,
    readers: usize,
    there: &mut Vec<BufReader<TcpStream>>,
) -> anyhow::Result<()> {
    for _ in 0..readers {
        there.push(server.subscribe().await?);
    }
    tokio::time::sleep(SETTLED).await;
    Ok(())
}
