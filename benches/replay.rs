//! A log that is there, read from its beginning over loopback TCP, against `cat` of the same bytes into a socket.
//!
//! The log is written by a program in a machine, and its lines are checked by their hash as they are first read, into a
//! file: that file is what `cat` sends. Then the two run in turn, and each must send all of it. Everything is in the
//! system's cache for both.
//!
//! Run: `cargo bench --bench replay -- [MEGABYTES] [ROUNDS] [LINE_BYTES]`; 1000 MB for the figures that are published.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "support/orchestrator.rs"]
mod orchestrator;
#[path = "support/process.rs"]
mod process;
#[path = "support/standin.rs"]
mod standin;
mod support;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpListener;

use orchestrator::Orchestrator;
use process::Peer;

const MEGABYTES: u64 = 200;
const ROUNDS: usize = 5;
const LINE_BYTES: usize = 4096;
/// What a reader reads at once.
const READ_BYTES: usize = 256 * 1024;

fn main() -> anyhow::Result<()> {
    if standin::is_one() {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let total = numbers.next().unwrap_or(MEGABYTES) * 1_000_000;
    let rounds = numbers.next().map_or(Ok(ROUNDS), usize::try_from)?;
    let line_bytes = numbers.next().map_or(Ok(LINE_BYTES), usize::try_from)?;
    let dir = tempfile::Builder::new().prefix("mayfly-bench").tempdir_in(support::scratch())?;
    let (data, copy) = (dir.path().join("data"), dir.path().join("log"));
    let server = Orchestrator::start(&data, 1).await?;
    let task = server.submit(&format!("stream {line_bytes} {total}")).await?;
    let hash = save(&data, &task.id, &copy).await?;
    ensure!(hash == standin::hash(line_bytes, total), "the log is not what was written");
    let bytes = copy.metadata()?.len();
    let mut pairs = support::Pairs::default();
    for _ in 0..rounds {
        let ours = replay(&server, &task.id, bytes).await?;
        pairs.push(ours, cat(&copy, bytes).await?);
    }
    let what = format!("{} MB of log in lines of {line_bytes} bytes, from 0 to its end", bytes / 1_000_000);
    pairs.print(&what, "mayfly: HTTP over loopback TCP", "cat into a socket over loopback TCP");
    println!("  (a ratio of times: 3.33 is 0.3 times as fast as cat)");
    server.drain()
}

/// Follows a log to its end, into a file. Gives the hash of what the program wrote.
async fn save(data: &Path, task: &str, to: &Path) -> anyhow::Result<[u8; 32]> {
    let http = reqwest::Client::builder().unix_socket(data.join("api.sock")).no_proxy().build()?;
    let url = format!("http://mayfly/v1/tasks/{task}/events");
    let mut body = http.get(url).send().await?.error_for_status()?.bytes_stream();
    let (mut file, mut hash, mut rest) = (BufWriter::new(File::create(to)?), Sha256::new(), Vec::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        file.write_all(&chunk)?;
        rest.extend_from_slice(&chunk);
        let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for event in rest[..whole].split_inclusive(|&byte| byte == b'\n') {
            take(event, &mut hash);
        }
        rest.drain(..whole);
    }
    file.flush()?;
    Ok(hash.finalize().into())
}

/// What the program wrote, of an event that carries it.
fn take(event: &[u8], hash: &mut Sha256) {
    const MARK: &[u8] = br#""source":"claude","line":"#;
    if let Some(at) = memchr::memmem::find(&event[..event.len().min(300)], MARK) {
        hash.update(&event[at + MARK.len()..event.len() - 2]);
        hash.update(b"\n");
    }
}

async fn replay(server: &Orchestrator, task: &str, bytes: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let log = server.events(&format!("{task}/events?follow=false")).await?;
    let read = drain(log).await?;
    // Around each piece of the body is its length.
    ensure!(read >= bytes, "{read} of {bytes} bytes came");
    Ok(start.elapsed())
}

async fn cat(file: &Path, bytes: u64) -> anyhow::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let start = Instant::now();
    let out = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (near, _) = listener.accept().await?;
    let mut command = Command::new("cat");
    let mut cat = Peer(command.arg(file).stdout(Stdio::from(OwnedFd::from(out))).spawn()?);
    // It holds the other end as well.
    drop(command);
    let read = drain(near).await?;
    ensure!(cat.0.wait()?.success() && read == bytes, "{read} of {bytes} bytes came");
    Ok(start.elapsed())
}

async fn drain(mut stream: impl AsyncRead + Unpin) -> anyhow::Result<u64> {
    let (mut buffer, mut read) = (vec![0; READ_BYTES], 0);
    loop {
        match stream.read(&mut buffer).await.context("it broke off")? {
            0 => return Ok(read),
            more => read += more as u64,
        }
    }
}
