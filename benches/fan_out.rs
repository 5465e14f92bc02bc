//! One stream of lines to 1, 10, 100 and 1000 readers at once: what a delivered message costs, against nats-server.
//!
//! The CPU is that of the server's process alone, in user and in kernel mode: ours stores each line on the disk first
//! and sends it as NDJSON over HTTP, with the time and the number of its event around it; nats-server keeps nothing. The
//! lines come from the same program at the same pace, in a machine of ours or through a pipe to a publisher; readers are
//! the same code over loopback TCP. What a reader has it has in order, and all that have every line have the same bytes. One
//! that its server cut off before is said: what it had counts as delivered, and not among the delays.
//!
//! `DELIVERIES` bounds messages times readers in a second, since 1000 readers of 10,000 messages are more than the
//! system's loopback carries on two cores; with many readers the pace is lower then, and is printed.
//!
//! Run: `cargo bench --bench fan_out -- [SECONDS] [ROUNDS] [DELIVERIES] [READERS]`; the last for one number of readers.
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

use std::hash::Hasher as _;
use std::io::{BufRead, BufReader as BlockingReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use nats::{Nats, Publisher};
use orchestrator::Orchestrator;
use process::Peer;

const READERS: [usize; 4] = [1, 10, 100, 1000];
const MESSAGES_PER_SECOND: usize = 10_000;
const LINE_BYTES: usize = 200;
const SECONDS: usize = 2;
const ROUNDS: usize = 3;
const DELIVERIES: usize = 1_000_000;
/// How long any reader may take longer than another.
const READ_MAX: Duration = Duration::from_secs(60);
/// How long the program waits for all readers before it writes, and what each of them adds to that.
const WAIT_MS: usize = 1000;
const WAIT_EACH_MS: usize = 2;

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    process::raise_open_files()?;
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (seconds, rounds) = (numbers.next().unwrap_or(SECONDS), numbers.next().unwrap_or(ROUNDS));
    let deliveries = numbers.next().unwrap_or(DELIVERIES);
    let counts = numbers.next().map_or(READERS.to_vec(), |only| vec![only]);
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let ours = Orchestrator::start(&dir.path().join("data"), 1).await?;
    let theirs = Nats::start().await?.context("no nats-server: apt-get install nats-server")?;
    for readers in counts {
        let pace = MESSAGES_PER_SECOND.min(deliveries / readers).max(1);
        let load = Load { readers, pace, messages: pace * seconds };
        let (mut a, mut b, mut pairs) = (Delays::default(), Delays::default(), support::Pairs::default());
        for _ in 0..rounds {
            let mayfly = load.ours(&ours, &mut a).await?;
            pairs.push(mayfly, load.theirs(&theirs, &mut b).await?);
        }
        let what = format!(
            "CPU per 1000 delivered messages of {LINE_BYTES} bytes, {pace} a second to {readers} readers"
        );
        pairs.print(&what, "mayfly: durable log, NDJSON over HTTP", "nats-server: nothing kept");
        a.print("mayfly", load);
        b.print("nats-server", load);
        println!();
    }
    ours.drain()
}

/// What is sent to how many.
#[derive(Debug, Clone, Copy)]
struct Load {
    readers: usize,
    pace: usize,
    messages: usize,
}

impl Load {
    fn wait_ms(self) -> usize {
        WAIT_MS + WAIT_EACH_MS * self.readers
    }

    fn words(self) -> String {
        format!("ticks {LINE_BYTES} {} {} {}", 1_000_000 / self.pace, self.messages, self.wait_ms())
    }

    /// The CPU of an orchestrator per 1000 deliveries.
    async fn ours(self, server: &Orchestrator, delays: &mut Delays) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let task = server.submit(&self.words()).await?;
        let mut readers = Vec::new();
        for _ in 0..self.readers {
            readers.push(server.events(&format!("{}/events", task.id)).await?);
        }
        self.measure(server.pid(), start, readers, delays).await
    }

    /// The CPU of nats-server per 1000 deliveries.
    async fn theirs(self, server: &Nats, delays: &mut Delays) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("stand-in").args(self.words().split(' ')).stdout(Stdio::piped());
        let mut program = Peer(command.spawn()?);
        let publisher = server.publisher().await?;
        let lines = BlockingReader::new(program.0.stdout.take().context("a pipe")?);
        let publishing = std::thread::spawn(move || publish(lines, publisher));
        let mut readers = Vec::new();
        for _ in 0..self.readers {
            readers.push(server.subscribe().await?);
        }
        let cpu = self.measure(server.pid(), start, readers, delays).await?;
        publishing.join().expect("no panic")?;
        Ok(cpu)
    }

    async fn measure(
        self,
        server: u32,
        start: Instant,
        readers: Vec<BufReader<TcpStream>>,
        delays: &mut Delays,
    ) -> anyhow::Result<Duration> {
        let late = start.elapsed().as_millis() >= self.wait_ms() as u128;
        ensure!(!late, "{} readers took longer than {} ms to connect", self.readers, self.wait_ms());
        let before = process::cpu(server)?;
        let mut reading = JoinSet::new();
        for reader in readers {
            reading.spawn(read(reader, self.messages));
        }
        let (mut hash, mut delivered) = (None, 0);
        while let Some(heard) =
            timeout(READ_MAX, reading.join_next()).await.context("a reader lacks messages")?
        {
            let heard = heard??;
            delivered += heard.delays.len();
            if heard.delays.len() < self.messages {
                delays.cut_off += 1;
                continue;
            }
            ensure!(*hash.get_or_insert(heard.hash) == heard.hash, "two readers do not have the same");
            delays.micros.extend(heard.delays);
        }
        let used = process::cpu(server)?.saturating_sub(before);
        Ok(used * 1000 / u32::try_from(delivered)?)
    }
}

/// Publishes what the program writes, as much at once as is there.
fn publish(mut lines: impl BufRead, mut publisher: Publisher) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    loop {
        let there = lines.fill_buf()?;
        if there.is_empty() {
            return publisher.finish();
        }
        rest.extend_from_slice(there);
        let read = there.len();
        lines.consume(read);
        let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        publisher.publish(&rest[..whole])?;
        rest.drain(..whole);
    }
}

/// What one reader had.
struct Heard {
    hash: u64,
    delays: Vec<u32>,
}

/// Reads to the last message, or as far as the server goes.
async fn read(mut stream: BufReader<TcpStream>, messages: usize) -> anyhow::Result<Heard> {
    let (mut hash, mut delays) = (std::hash::DefaultHasher::new(), Vec::with_capacity(messages));
    let (mut line, mut last) = (Vec::new(), 0);
    while delays.len() < messages {
        line.clear();
        if !matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
            break;
        }
        let Some(at) = memchr::memmem::find(&line, standin::TICK) else { continue };
        let message = line.get(at..at + LINE_BYTES - 1).context("a message that is not whole")?;
        let then = standin::tick(message).context("a time")?;
        ensure!(then > last, "messages came in another order");
        last = then;
        hash.write(message);
        let delay = standin::now_ns().saturating_sub(then) / 1000;
        delays.push(u32::try_from(delay).unwrap_or(u32::MAX));
    }
    Ok(Heard { hash: hash.finish(), delays })
}

/// From the write of each message to each reader.
#[derive(Debug, Default)]
struct Delays {
    micros: Vec<u32>,
    cut_off: usize,
}

impl Delays {
    fn print(mut self, who: &str, load: Load) {
        let Self { cut_off, .. } = self;
        if cut_off > 0 {
            println!("  {who} cut off {cut_off} readers, which did not read {} a second", load.pace);
        }
        self.micros.sort_unstable();
        let n = self.micros.len();
        let at = |part: usize| f64::from(self.micros.get(n * part / 1000).copied().unwrap_or(0)) / 1e3;
        println!(
            "  {who:12} from write to reader, ms: p50 {:8.2}  p99 {:8.2}  p99.9 {:8.2}",
            at(500),
            at(990),
            at(999)
        );
    }
}
