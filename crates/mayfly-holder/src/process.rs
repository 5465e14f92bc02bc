//! Processes of this host: named so that no other can be meant, waited for with a bound.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process by its number and its start, in ticks since the boot named beside it: a number alone is somebody
/// else's before long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pid: i32,
    started: u64,
    boot: String,
}

impl ProcessId {
    /// Names the process that has the number `pid` now.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let pid = pid.as_raw_nonzero().get();
        Ok(Self { pid, started: started(pid)?, boot: boot()? })
    }

    /// Kills it and returns once it has ended, or with an error after `within`. One that has ended is a success.
    pub fn kill(&self, within: Duration) -> io::Result<()> {
        let Some(fd) = self.open()? else { return Ok(()) };
        match pidfd_send_signal(&fd, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            sent => sent?,
        }
        wait_readable(&fd, Instant::now() + within)
    }

    /// Returns once it has ended, or with an error after `within`.
    pub fn wait(&self, within: Duration) -> io::Result<()> {
        self.open()?.map_or(Ok(()), |fd| wait_readable(&fd, Instant::now() + within))
    }

    /// Opened first and compared second: if the number still means this process then, it did so all along.
    fn open(&self) -> io::Result<Option<rustix::fd::OwnedFd>> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::InvalidData)?;
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        let same = boot()? == self.boot && started(self.pid).is_ok_and(|started| started == self.started);
        Ok(same.then_some(fd))
    }
}

/// Field 22 of `/proc/<pid>/stat`; the name before it may hold anything.
fn started(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    after_name
        .and_then(|rest| rest.split_whitespace().nth(19))
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Waits until `fd` can be read or its other end is gone.
pub fn wait_readable(fd: impl AsFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs a program to its end, or kills it after `within`.
pub fn run(command: &mut Command, within: Duration) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let waited = pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|fd| wait_readable(&fd, Instant::now() + within));
    if let Err(error) = waited {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_start_is_never_meant() {
        let mut child = Command::new("sleep").arg("100").spawn().expect("started");
        let named = ProcessId::of(Pid::from_child(&child)).expect("alive");
        let other = ProcessId { started: named.started + 1, ..named.clone() };
        other.kill(Duration::ZERO).expect("an ended one is a success");
        let earlier_boot = ProcessId { boot: "another".to_owned(), ..named.clone() };
        earlier_boot.kill(Duration::ZERO).expect("an ended one is a success");
        assert!(child.try_wait().expect("a child").is_none(), "still running");
        named.kill(Duration::from_secs(10)).expect("ended");
        assert!(!child.wait().expect("a child").success());
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let error = run(Command::new("sleep").arg("100"), Duration::from_millis(1)).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(run(&mut Command::new("true"), Duration::from_secs(60)).expect("short").success());
    }
}
