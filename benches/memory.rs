//! The memory of running tasks: what each adds to the orchestrator, and what its worker and its holder take.
//!
//! The tasks say a line of 200 bytes ten times a second each, and are followed by nobody. All is the resident set, which
//! counts the pages of the binary anew in each process, although they are shared.
//!
//! Run: `cargo bench --bench memory -- [TASKS]`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/orchestrator.rs"]
mod orchestrator;
#[path = "support/process.rs"]
mod process;
#[path = "support/standin.rs"]
mod standin;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use orchestrator::Orchestrator;

const TASKS: usize = 50;
/// How long each task runs, at most.
const LINES: usize = 6000;
/// How many lines each has said when it is measured.
const SAID: u64 = 50;
const START_MAX: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let tasks = std::env::args().skip(1).find_map(|arg| arg.parse::<usize>().ok()).unwrap_or(TASKS);
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let server = Orchestrator::start(&dir.path().join("data"), tasks + 1).await?;
    // What the first one brings with it, all share.
    let mut ids = vec![run(&server, 1).await?.remove(0)];
    let before = server.memory()?;
    ids.extend(run(&server, tasks).await?);
    let grown = server.memory()?.saturating_sub(before);
    println!("{tasks} running tasks beside the first");
    println!("  orchestrator: {}, and {} a task", kib(before), kib(grown / tasks as u64));
    for verb in ["worker", "sandbox-holder"] {
        print(verb, &of(verb)?)?;
    }
    for id in ids {
        server.client().cancel(&id, true).await?;
    }
    server.drain()
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes / 1024)
}

/// Starts this many, and returns when each has said enough.
async fn run(server: &Orchestrator, tasks: usize) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for _ in 0..tasks {
        ids.push(server.submit(&format!("ticks 200 100000 {LINES}")).await?.id);
    }
    let start = Instant::now();
    for id in &ids {
        while server.client().task(id).await?.last_seq < SAID {
            ensure!(start.elapsed() < START_MAX, "task {id} does not say enough");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(ids)
}

/// The processes of the binary under test with this verb.
fn of(verb: &str) -> anyhow::Result<Vec<u32>> {
    let binary = fs::metadata(support::MAYFLY)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let Ok(program) = fs::metadata(entry.path().join("exe")) else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_one = words.split(|&byte| byte == 0).nth(1).is_some_and(|word| word == verb.as_bytes());
        if is_one && (program.dev(), program.ino()) == (binary.dev(), binary.ino()) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn print(verb: &str, pids: &[u32]) -> anyhow::Result<()> {
    let mut sizes = pids.iter().copied().map(process::memory).collect::<anyhow::Result<Vec<u64>>>()?;
    sizes.sort_unstable();
    let (median, most) = (sizes.get(sizes.len() / 2), sizes.last());
    let (median, most) = median.zip(most).with_context(|| format!("no process is a {verb}"))?;
    println!("  {} of `{verb}`: median {}, most {}", sizes.len(), kib(*median), kib(*most));
    Ok(())
}
