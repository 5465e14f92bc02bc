//! The one owner of waiting for processes.
//!
//! The worker is PID 1 of its machine: every orphan becomes its child, and whoever waits for "any child"
//! takes the ends of all others too. So nobody else waits: [`Reaper::spawn`] starts a program and gives a
//! [`Child`] whose end comes through a channel; what ends and was not started here was an orphan, and is let
//! go. Where the worker is not PID 1 (in tests) only its own children are waited for.
//!
//! The lock is held from before a start until its process is registered, so that no end can be missed, and
//! while ends are taken, so that a process id is never signalled after it has been given back.

use std::collections::HashMap;
use std::fs::{self, DirEntry};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, setpriority_process, wait, waitpid,
};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::shortage::Place;

/// The priority of a program that gives way, as `nice` has it.
const LOW_PRIORITY: i32 = 10;

/// Which processes are the worker's to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Realm {
    /// The worker is PID 1: every process of the machine.
    Machine,
    /// Those that it started.
    Children,
}

type Ends = HashMap<Pid, oneshot::Sender<ExitStatus>>;

/// Starts programs, and hears of their ends.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    realm: Realm,
    waited_for: Arc<Mutex<Ends>>,
    place: Option<Arc<Place>>,
    /// Whether what it starts gives way to other programs.
    gently: bool,
}

/// A program that was started. Its pipes are there if its command asked for them.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: Option<pipe::Receiver>,
    pub(crate) stderr: Option<pipe::Receiver>,
    pub(crate) handle: Handle,
    pub(crate) end: oneshot::Receiver<ExitStatus>,
}

/// Signals a program and its process group as long as it has not been waited for.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pid: Pid,
    reaper: Reaper,
}

impl Reaper {
    /// Begins to reap, on the current runtime and until it ends.
    pub(crate) fn start(realm: Realm) -> io::Result<Self> {
        let reaper = Self { realm, waited_for: Arc::default(), place: None, gently: false };
        let mut ended = signal(SignalKind::child())?;
        let reaping = reaper.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                reaping.reap();
            }
        });
        Ok(reaper)
    }

    /// From now on what is started is killed for memory before the worker at `place`.
    pub(crate) fn at(self, place: Option<Place>) -> Self {
        Self { place: place.map(Arc::new), ..self }
    }

    /// The same, whose programs give way to others.
    pub(crate) fn gentle(&self) -> Self {
        Self { gently: true, ..self.clone() }
    }

    /// Starts a program.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut waited_for = self.lock();
        let mut child = match &self.place {
            Some(place) => place.before_us(|| command.spawn())?,
            None => command.spawn()?,
        };
        let pid = Pid::from_child(&child);
        if self.gently {
            // If it is over already, it has been in nobody's way.
            let _ = setpriority_process(Some(pid), LOW_PRIORITY);
        }
        let (ended, end) = oneshot::channel();
        waited_for.insert(pid, ended);
        drop(waited_for);
        let receiver = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd);
        Ok(Child {
            stdin: child.stdin.take().map(|fd| pipe::Sender::from_owned_fd(fd.into())).transpose()?,
            stdout: child.stdout.take().map(|fd| receiver(fd.into())).transpose()?,
            stderr: child.stderr.take().map(|fd| receiver(fd.into())).transpose()?,
            handle: Handle { pid, reaper: self.clone() },
            end,
        })
    }

    /// Runs a program to its end on the input that the command has, and gives what it printed, shortened to
    /// `bytes_max` of each stream. Dropped before its end, it kills the program.
    pub(crate) async fn output(&self, command: &mut Command, bytes_max: usize) -> io::Result<Output> {
        command.stdout(Stdio::piped());
        self.finish(command, bytes_max).await
    }

    /// The same, where what it prints goes to wherever the command says.
    pub(crate) async fn finish(&self, command: &mut Command, bytes_max: usize) -> io::Result<Output> {
        command.stderr(Stdio::piped());
        let child = self.spawn(command)?;
        let _killed_on_drop = KillOnDrop(child.handle);
        let (stdout, stderr) = tokio::join!(drain(child.stdout, bytes_max), drain(child.stderr, bytes_max));
        let status = child.end.await.map_err(|_| io::Error::other("its end was not heard"))?;
        Ok(Output { status, stdout: stdout?, stderr: stderr? })
    }

    /// Kills every process of the machine but the worker. Where it is not PID 1, it does nothing.
    pub(crate) fn kill_all_others(&self) {
        if self.realm == Realm::Machine {
            // For the kernel "the group of PID 1", negated, is "all but the caller"; there may be none.
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
        }
    }

    /// Whether there are more processes in the machine than the worker and one other. Where it is not PID 1, there are none.
    pub(crate) fn others_live(&self) -> bool {
        let is_process =
            |entry: &DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let processes =
            || fs::read_dir("/proc").map(|entries| entries.flatten().filter(is_process).take(3).count());
        self.realm == Realm::Machine && processes().is_ok_and(|processes| processes > 2)
    }

    fn reap(&self) {
        let mut waited_for = self.lock();
        let ended: Vec<_> = match self.realm {
            Realm::Machine => std::iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten()).collect(),
            Realm::Children => waited_for
                .keys()
                .filter_map(|&pid| waitpid(Some(pid), WaitOptions::NOHANG).ok().flatten())
                .collect(),
        };
        for (pid, status) in ended {
            if let Some(waiting) = waited_for.remove(&pid) {
                // Nobody may want to know it any more.
                let _ = waiting.send(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        // A panic elsewhere leaves the map whole: each change of it is one call.
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Signals the program itself.
    pub(crate) fn signal(&self, signal: Signal) {
        self.if_alive(|pid| {
            // It may be a zombie that is not waited for yet.
            let _ = kill_process(pid, signal);
        });
    }

    /// Kills the program and its process group.
    pub(crate) fn kill(&self) {
        self.if_alive(|pid| {
            let _ = kill_process(pid, Signal::KILL);
            let _ = kill_process_group(pid, Signal::KILL);
        });
    }

    fn if_alive(&self, act: impl FnOnce(Pid)) {
        let waited_for = self.reaper.lock();
        if waited_for.contains_key(&self.pid) {
            act(self.pid);
        }
    }
}

/// Kills the program and its process group when it is let go, if it is still alive.
#[derive(Debug)]
pub(crate) struct KillOnDrop(pub(crate) Handle);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Reads to the end, and keeps the first `bytes_max`.
async fn drain(pipe: Option<pipe::Receiver>, bytes_max: usize) -> io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let (Some(mut pipe), mut kept) = (pipe, Vec::new()) else { return Ok(Vec::new()) };
    let mut chunk = vec![0; 8192];
    loop {
        let read = pipe.read(&mut chunk).await?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&chunk[..read.min(bytes_max - kept.len())]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn each_program_is_heard_with_its_own_end() {
        let reaper = Reaper::start(Realm::Children).unwrap();
        let ends = (0..20).map(|code| {
            let reaper = reaper.clone();
            async move { (code, reaper.output(&mut shell(&format!("echo {code}; exit {code}")), 100).await) }
        });
        for (code, output) in futures_util::future::join_all(ends).await {
            let output = output.unwrap();
            assert_eq!(output.status.code(), Some(code));
            assert_eq!(output.stdout, format!("{code}\n").into_bytes());
        }
        assert!(reaper.lock().is_empty());
    }

    #[tokio::test]
    async fn a_program_that_was_given_up_is_killed() {
        let reaper = Reaper::start(Realm::Children).unwrap();
        let mut command = shell("echo up; exec cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = reaper.spawn(&mut command).unwrap();
        drop(KillOnDrop(child.handle));
        let end = timeout(Duration::from_secs(20), child.end).await.expect("it is still alive");
        assert_eq!(end.unwrap().signal(), Some(Signal::KILL.as_raw()));
    }

    #[tokio::test]
    async fn a_program_that_cannot_start_is_an_error_at_once() {
        let reaper = Reaper::start(Realm::Children).unwrap();
        assert!(reaper.spawn(&mut Command::new("/no/such/program")).is_err());
    }
}
