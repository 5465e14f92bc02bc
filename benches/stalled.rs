//! What it costs an agent, and who follows it, that others of a thousand readers take nothing.
//!
//! Two loads, each without such readers and with some, in turn. At a pace: a line of 200 bytes at a time, for longer than
//! a reader that takes nothing is waited for; what is told is how late the others have each line, how long the agent took,
//! and by how much the orchestrator's memory grew. As fast as it can, with a tenth of the readers: how soon one of the
//! others has all of it, which is durable then.
//!
//! The readers are of this process, over loopback TCP. Those that take nothing have the smallest buffer that the system
//! gives, so that what waits for them waits at the orchestrator.
//!
//! Run: `cargo bench --bench stalled -- [READERS] [STALLED] [SECONDS] [ROUNDS] [MEGABYTES]`
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
use mayfly_wire::event::{Event, EventSource};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use orchestrator::Orchestrator;

const READERS: usize = 1000;
const STALLED: usize = 100;
/// A reader that takes nothing is cut off after 30 s.
const SECONDS: usize = 40;
const ROUNDS: usize = 2;
const MEGABYTES: usize = 64;
/// How many fewer readers there are where the agent writes as fast as it can.
const FEWER: usize = 10;
const PACE: usize = 200;
const LINE_BYTES: usize = 200;
/// What the system holds at this end for a reader that takes nothing: it gives no less than some.
const HELD_BYTES: u32 = 2048;
/// How long the program waits for all readers before it writes.
const WAIT_MS: usize = 6000;

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    process::raise_open_files()?;
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (readers, stalled) = (numbers.next().unwrap_or(READERS), numbers.next().unwrap_or(STALLED));
    let (seconds, rounds) = (numbers.next().unwrap_or(SECONDS), numbers.next().unwrap_or(ROUNDS));
    let megabytes = numbers.next().unwrap_or(MEGABYTES);
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let server = Orchestrator::start(&dir.path().join("data"), 1).await?;
    println!("{PACE} lines of {LINE_BYTES} bytes a second for {seconds} s, {readers} readers");
    for _ in 0..rounds {
        for stalled in [0, stalled] {
            paced(&server, readers, stalled, PACE * seconds).await?.print(stalled);
        }
    }
    println!("{megabytes} MB as fast as the agent can write, {} readers", readers / FEWER);
    for _ in 0..rounds {
        for stalled in [0, stalled / FEWER] {
            let took = at_full_speed(&server, readers / FEWER, stalled, megabytes << 20).await?;
            #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
            let rate = (megabytes << 20) as f64 / 1e6 / took.as_secs_f64();
            println!("  {stalled:4} take nothing: the first of the others had {rate:6.2} MB/s");
        }
    }
    server.drain()
}

/// Who follows a task.
struct Audience {
    readers: Vec<BufReader<TcpStream>>,
    stalled: Vec<BufReader<TcpStream>>,
    task: String,
}

impl Audience {
    /// All are there before the agent begins.
    async fn of(server: &Orchestrator, words: &str, readers: usize, stalled: usize) -> anyhow::Result<Self> {
        let task = server.submit(words).await?.id;
        let log = format!("{task}/events");
        let mut audience = Self { readers: Vec::new(), stalled: Vec::new(), task };
        for _ in stalled..readers {
            audience.readers.push(server.events(&log).await?);
        }
        for _ in 0..stalled {
            audience.stalled.push(server.events_held(&log, HELD_BYTES).await?);
        }
        Ok(audience)
    }
}

/// What came of a load at a pace.
struct Paced {
    late_us: Vec<u32>,
    grown: u64,
    span: Duration,
}

impl Paced {
    fn print(mut self, stalled: usize) {
        self.late_us.sort_unstable();
        let n = self.late_us.len();
        let at = |part: usize| f64::from(self.late_us[(n - 1) * part / 1000]) / 1e3;
        println!(
            "  {stalled:4} take nothing: from write to reader p50 {:7.2} p99 {:7.2} p99.9 {:7.2} ms; the agent took {:.2} s; memory grew by {} KiB",
            at(500),
            at(990),
            at(999),
            self.span.as_secs_f64(),
            self.grown / 1024
        );
    }
}

async fn paced(server: &Orchestrator, readers: usize, stalled: usize, lines: usize) -> anyhow::Result<Paced> {
    let words = format!("ticks {LINE_BYTES} {} {lines} {WAIT_MS}", 1_000_000 / PACE);
    let Audience { readers, stalled, task } = Audience::of(server, &words, readers, stalled).await?;
    let before = server.memory()?;
    let mut reading: JoinSet<_> = readers.into_iter().map(|reader| late(reader, lines)).collect();
    let mut late_us = Vec::new();
    while let Some(heard) = reading.join_next().await {
        late_us.extend(heard??);
    }
    let grown = server.memory()?.saturating_sub(before);
    drop(stalled);
    Ok(Paced { late_us, grown, span: written_in(server, &task).await? })
}

/// How late each line came, of all.
async fn late(mut stream: BufReader<TcpStream>, lines: usize) -> anyhow::Result<Vec<u32>> {
    let (mut line, mut late, mut last) = (Vec::new(), Vec::with_capacity(lines), 0);
    while late.len() < lines {
        line.clear();
        ensure!(stream.read_until(b'\n', &mut line).await? > 0, "{} of {lines} lines came", late.len());
        let Some(at) = memchr::memmem::find(&line, standin::TICK) else { continue };
        let then = standin::tick(&line[at..]).context("a time")?;
        ensure!(then > last, "lines came in another order");
        last = then;
        late.push(u32::try_from(standin::now_ns().saturating_sub(then) / 1000).unwrap_or(u32::MAX));
    }
    Ok(late)
}

async fn at_full_speed(
    server: &Orchestrator,
    readers: usize,
    stalled: usize,
    bytes: usize,
) -> anyhow::Result<Duration> {
    // It has the machine until all are there.
    let before = server.submit(&format!("ticks {LINE_BYTES} 1000000 {}", WAIT_MS / 1000)).await?;
    let words = format!("stream {LINE_BYTES} {bytes}");
    let Audience { readers, stalled, .. } = Audience::of(server, &words, readers, stalled).await?;
    ensure!(server.client().task(&before.id).await?.outcome.is_none(), "the readers came too late");
    let mut reading: JoinSet<_> = readers.into_iter().map(all).collect();
    let mut heard = Vec::new();
    while let Some(one) = reading.join_next().await {
        heard.push(one??);
    }
    drop(stalled);
    let most = heard[0].0;
    ensure!(heard.iter().all(|(bytes, _)| *bytes == most), "two readers do not have the same");
    heard.into_iter().map(|(_, took)| took).min().context("nobody read")
}

/// How many bytes came, to the end, and in which time after the agent's first.
async fn all(mut stream: BufReader<TcpStream>) -> anyhow::Result<(usize, Duration)> {
    let (mut bytes, mut began) = (0, None);
    loop {
        let there = stream.fill_buf().await?;
        let read = there.len();
        if began.is_none() && memchr::memmem::find(there, br#""source":"claude""#).is_some() {
            began = Some(Instant::now());
        }
        if read == 0 {
            return Ok((bytes, began.context("the agent wrote nothing")?.elapsed()));
        }
        bytes += read;
        stream.consume(read);
    }
}

/// From the first line of the agent's to the last.
async fn written_in(server: &Orchestrator, task: &str) -> anyhow::Result<Duration> {
    let (mut events, mut span) = (server.client().events(task, 0), None);
    while let Some(line) = events.next().await? {
        let Event { source, at, .. } = Event::parse(&line)?;
        if source == EventSource::Claude {
            let (first, _) = span.unwrap_or((at, at));
            span = Some((first, at));
        }
    }
    let (first, last) = span.context("the agent wrote nothing")?;
    Ok(last.duration_since(first).try_into()?)
}
