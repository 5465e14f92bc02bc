//! A haproxy before one server on loopback, behind a unix socket.

#![allow(dead_code, reason = "no benchmark takes all of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::net::UnixStream;

use crate::process::Peer;

const START_MAX: Duration = Duration::from_secs(5);

/// A haproxy that listens. It ends with this.
#[derive(Debug)]
pub(crate) struct Haproxy {
    peer: Peer,
    /// Where it listens.
    pub(crate) socket: PathBuf,
}

impl Haproxy {
    /// Starts one in `dir` that passes what comes on to `server`, by these words of its configuration besides. `None`: it
    /// is not installed.
    pub(crate) async fn start(dir: &Path, server: SocketAddr, words: &str) -> anyhow::Result<Option<Self>> {
        if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let (file, socket) = (dir.join("haproxy.cfg"), dir.join("haproxy.sock"));
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend f\n  bind unix@{}\n  default_backend b\nbackend b\n{words}  server s {server}\n",
            socket.display()
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Self { peer: Peer(command.spawn()?), socket };
        let start = Instant::now();
        while let Err(error) = UnixStream::connect(&started.socket).await {
            ensure!(start.elapsed() < START_MAX, "haproxy cannot be reached: {error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Some(started))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.peer.0.id()
    }
}
