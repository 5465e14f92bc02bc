//! Processes that are measured: what one has used, and an end for it.
#![allow(dead_code, reason = "no benchmark takes all of it")]

use std::fs;
use std::process::Child;
use std::time::Duration;

use anyhow::Context as _;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ends a process of ours.
#[derive(Debug)]
pub(crate) struct Peer(pub(crate) Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The CPU time that a process has used, in user and in kernel mode.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    const USER: usize = 11;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("a name in brackets")?;
    let ticks: u64 = rest.split(' ').skip(USER).take(2).filter_map(|part| part.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / clock_ticks_per_second()))
}

/// The memory that a process has, as the system counts it, in bytes.
pub(crate) fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a size")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// Lets this process and its children have as many files open as they may at all, and says how many that is.
pub(crate) fn raise_open_files() -> anyhow::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX)))
}
