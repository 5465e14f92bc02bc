//! A nats-server, and as much of its protocol as it takes to read and write one subject.
#![allow(dead_code, reason = "no benchmark takes all of it")]

use std::io::{BufRead as _, BufReader as BlockingReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::process::Peer;

/// What a reader reads at once.
const READ_BYTES: usize = 64 * 1024;
const START_MAX: Duration = Duration::from_secs(5);
/// The subject of all messages.
const SUBJECT: &str = "b";

/// A server that keeps nothing.
#[derive(Debug)]
pub(crate) struct Nats {
    peer: Peer,
    port: u16,
}

impl Nats {
    /// `None`: it is not installed.
    pub(crate) async fn start() -> anyhow::Result<Option<Self>> {
        if Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let nats = Self { peer: Peer(child), port };
        let start = Instant::now();
        while let Err(error) = TcpStream::connect(("127.0.0.1", port)).await {
            ensure!(start.elapsed() < START_MAX, "nats-server cannot be reached: {error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Some(nats))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.peer.0.id()
    }

    /// A reader that the server knows.
    pub(crate) async fn subscribe(&self) -> anyhow::Result<BufReader<TcpStream>> {
        let mut stream = self.join(&format!("SUB {SUBJECT} 1\r\nPING\r\n")).await?;
        let mut line = String::new();
        while line != "PONG\r\n" {
            line.clear();
            ensure!(stream.read_line(&mut line).await? > 0, "nats-server hung up");
        }
        Ok(stream)
    }

    async fn join(&self, and: &str) -> anyhow::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut stream = BufReader::with_capacity(READ_BYTES, stream);
        let mut info = String::new();
        stream.read_line(&mut info).await?;
        ensure!(info.starts_with("INFO "), "nats-server said `{info}`");
        stream.write_all(format!("CONNECT {{\"verbose\":false}}\r\n{and}").as_bytes()).await?;
        Ok(stream)
    }

    /// Where messages are published.
    pub(crate) async fn publisher(&self) -> anyhow::Result<Publisher> {
        let stream = self.join("").await?.into_inner().into_std()?;
        stream.set_nonblocking(false)?;
        Ok(Publisher { stream, out: Vec::new() })
    }
}

/// Publishes lines.
#[derive(Debug)]
pub(crate) struct Publisher {
    stream: std::net::TcpStream,
    out: Vec<u8>,
}

impl Publisher {
    /// Publishes each of these whole lines as a message.
    pub(crate) fn publish(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        self.out.clear();
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\n").context("a whole line")?;
            write!(self.out, "PUB {SUBJECT} {}\r\n", line.len())?;
            self.out.extend_from_slice(line);
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(self.stream.write_all(&self.out)?)
    }

    /// Returns once the server has taken all of it. Were the connection closed before, with something of the server's unread,
    /// the system would drop what the server has not read yet.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.stream.write_all(b"PING\r\n")?;
        let mut lines = BlockingReader::new(self.stream).lines();
        while lines.next().context("nats-server hung up")?? != "PONG" {}
        Ok(())
    }
}
