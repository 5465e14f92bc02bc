//! A holder's end of its making: what it is told, and what it says.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Holder to maker: one line.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The machine is up.
    Up {
        /// What its owner should know about it, a sentence each.
        notes: Vec<String>,
    },
    /// Nothing runs.
    Failed(Failure),
}

impl Answer {
    /// Says it, and hangs up. A maker that is gone does not matter: the next one reads the state.
    pub fn send(&self, mut to: File) {
        let mut line = serde_json::to_vec(self).expect("an answer is plain data");
        line.push(b'\n');
        let _ = to.write_all(&line);
    }
}

/// What the maker put in the place of the standard streams.
#[derive(Debug)]
pub struct Streams<S> {
    /// What is to be made.
    pub spec: S,
    /// Where the [`Answer`] goes.
    pub answer: File,
    /// The lock of the making, shared with the maker: to be dropped when the machine is up.
    pub making: OwnedFd,
}

impl<S: DeserializeOwned> Streams<S> {
    /// Reads the spec, and makes this process one that no terminal and no orchestrator takes along, and that leaves no
    /// memory on the disk. Nothing that it starts has the streams: `/dev/null` is in their place.
    pub fn take() -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let away = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let mut spec: File = away(rustix::stdio::stdin())?.into();
        let (answer, making) = (away(rustix::stdio::stdout())?.into(), away(rustix::stdio::stderr())?);
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        let _ = rustix::process::setsid();
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        let mut text = Vec::new();
        spec.read_to_end(&mut text)?;
        Ok(Self { spec: serde_json::from_slice(&text)?, answer, making })
    }
}
