//! How late an agent that says little is heard beside one that floods the orchestrator.
//!
//! One task says a line of 200 bytes each 20 ms, and is followed. Beside it is nobody, then a task that only computes, as
//! an agent may, and then one that writes as fast as it can, in long lines or in the shortest: what a flood costs beyond the
//! processors that it takes is the difference to the second. The readers are of this process, over loopback TCP.
//!
//! Run: `cargo bench --bench flood -- [LINES] [ROUNDS]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/orchestrator.rs"]
mod orchestrator;
#[path = "support/process.rs"]
mod process;
#[path = "support/standin.rs"]
mod standin;
mod support;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::AsyncBufReadExt as _;

use orchestrator::Orchestrator;

const LINES: usize = 200;
const ROUNDS: usize = 3;
const PAUSE_US: usize = 20_000;
const LINE_BYTES: usize = 200;
/// How long its reader has to come.
const WAIT_MS: usize = 300;
const START_MAX: Duration = Duration::from_secs(10);
/// What is beside it: more than is written in the time.
const BESIDE: [(&str, &str); 4] = [
    ("nobody", ""),
    ("one that computes", "burn 600"),
    ("a flood of lines of 1000 bytes", "stream 1000 900000000"),
    ("a flood of lines of 50 bytes", "stream 50 200000000"),
];

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (lines, rounds) = (numbers.next().unwrap_or(LINES), numbers.next().unwrap_or(ROUNDS));
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let server = Orchestrator::start(&dir.path().join("data"), 2).await?;
    println!("{lines} lines of {LINE_BYTES} bytes, one each {} ms; from write to reader", PAUSE_US / 1000);
    for _ in 0..rounds {
        for (name, words) in BESIDE {
            let flood = if words.is_empty() { None } else { Some(begin(&server, words).await?) };
            let mut late = late(&server, lines).await?;
            if let Some(flood) = flood {
                let still = server.client().task(&flood).await?.outcome.is_none();
                ensure!(still, "it ended too soon: {words}");
                server.client().cancel(&flood, true).await?;
            }
            late.sort_unstable();
            #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
            let at = |part: usize| late[(late.len() - 1) * part / 1000] as f64 / 1e3;
            println!("  beside {name:32} p50 {:7.2} p99 {:7.2} max {:7.2} ms", at(500), at(990), at(1000));
        }
    }
    server.drain()
}

/// A task that runs.
async fn begin(server: &Orchestrator, words: &str) -> anyhow::Result<String> {
    let (task, start) = (server.submit(words).await?.id, Instant::now());
    while server.client().task(&task).await?.state != "running" {
        ensure!(start.elapsed() < START_MAX, "{words} does not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(task)
}

/// How late each line was, in microseconds.
async fn late(server: &Orchestrator, lines: usize) -> anyhow::Result<Vec<u64>> {
    let words = format!("ticks {LINE_BYTES} {PAUSE_US} {lines} {WAIT_MS}");
    let mut reader = server.events(&format!("{}/events", server.submit(&words).await?.id)).await?;
    let (mut line, mut late) = (Vec::new(), Vec::new());
    while late.len() < lines {
        line.clear();
        ensure!(reader.read_until(b'\n', &mut line).await? > 0, "{} of {lines} lines came", late.len());
        let Some(at) = memchr::memmem::find(&line, standin::TICK) else { continue };
        late.push(standin::now_ns().saturating_sub(standin::tick(&line[at..]).context("a time")?) / 1000);
    }
    Ok(late)
}
