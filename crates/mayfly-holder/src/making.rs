//! Starts a holder, hands it the spec, and waits for its word.
//!
//! ```text
//! stdin   ◄── the spec, the ticket in it: never in an argument, an environment or a file
//! stdout  ──► one line, the `Answer`; closed when holder and machine are done with the making
//! stderr      the lock of the making, shared until the machine is up
//! ```
//!
//! Bound: [`Making::up_max`] for the answer, `END_MAX` for a holder that failed to be gone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;

use crate::failure::{Failure, Step};
use crate::lock::Lock;
use crate::process::wait_readable;
use crate::streams::Answer;

/// From a failure to the end of all processes.
const END_MAX: Duration = Duration::from_secs(20);
/// An answer is a few sentences.
const ANSWER_BYTES_MAX: usize = 1 << 16;

/// What makes a machine.
#[derive(Debug)]
pub struct Making<'a> {
    /// Our own binary.
    pub program: &'a Path,
    /// What has it become the holder.
    pub verb: &'a str,
    /// Of this machine.
    pub lock: &'a Lock,
    /// From the holder's start to its word.
    pub up_max: Duration,
}

impl Making<'_> {
    /// Has a holder make what `spec` says. It returns when the machine is up, with what its owner should know, or when
    /// nothing of it runs any more. `started` is called in between.
    pub fn make(&self, spec: &impl Serialize, started: impl FnOnce()) -> Result<Vec<String>, Failure> {
        let holder = Holder::start(self)?;
        started();
        holder.make(spec, self.up_max)
    }
}

/// A holder that was started, seen from its maker.
struct Holder {
    child: tokio::process::Child,
    spec: File,
    answer: File,
}

impl Holder {
    fn start(making: &Making<'_>) -> Result<Self, Failure> {
        let step = "start the machine's holder";
        let (spec_read, spec) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
        let (answer, answer_write) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
        let mut command = tokio::process::Command::new(making.program);
        command.arg(making.verb).env_clear().current_dir("/");
        command
            .stdin(Stdio::from(spec_read))
            .stdout(Stdio::from(answer_write))
            .stderr(making.lock.share().step(step)?);
        let child = command.spawn().step(step)?;
        Ok(Self { child, spec: spec.into(), answer: answer.into() })
    }

    /// Returns when the machine is up, or when nothing of it runs any more.
    fn make(mut self, spec: &impl Serialize, up_max: Duration) -> Result<Vec<String>, Failure> {
        let text = serde_json::to_vec(spec).step("write the machine's spec")?;
        // A holder that cannot read it says why, or its end does.
        let _ = self.spec.write_all(&text);
        drop(self.spec);
        let made = read_answer(&mut self.answer, Instant::now() + up_max);
        if made.is_err() {
            // It may be gone already. Its init has the pipe too, and ends with it.
            let _ = self.child.start_kill();
            read_to_end(&mut self.answer).step("see the end of a machine that failed")?;
        }
        // The holder lives on without us; as long as we live, somebody must wait for it.
        tokio::spawn(async move { self.child.wait().await });
        made
    }
}

fn read_answer(answer: &mut File, until: Instant) -> Result<Vec<String>, Failure> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while !text.ends_with(b"\n") && text.len() < ANSWER_BYTES_MAX {
        wait_readable(&*answer, until).step("make the machine in time")?;
        match answer.read(&mut chunk).step("hear the machine's holder")? {
            0 => break,
            read => text.extend_from_slice(&chunk[..read]),
        }
    }
    match serde_json::from_slice(&text) {
        Ok(Answer::Up { notes }) => Ok(notes),
        Ok(Answer::Failed(failure)) => Err(failure),
        Err(_) => Err(Failure::new("the machine's holder ended without a word: its binary may not be ours")),
    }
}

fn read_to_end(answer: &mut File) -> io::Result<()> {
    let until = Instant::now() + END_MAX;
    let mut chunk = [0; 4096];
    loop {
        wait_readable(&*answer, until)?;
        if answer.read(&mut chunk)? == 0 {
            return Ok(());
        }
    }
}
