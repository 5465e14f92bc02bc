//! An orchestrator in the background gives way to a `mayfly serve` that is started by hand: it ends at once, machines go
//! on, and the new one takes them over.
//!
//! ```text
//! serve ── start.lock ── the folder is had by one in the background? ─ no ──► start
//!                              └ yes ─ asked to go ─ gone ──────────────────► start
//! ```
//!
//! The lock of starts is held meanwhile, so that nobody who misses the old one starts another. It is known for one in
//! the background by how it was started: one by hand, or a process that got an old number, is never asked.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::anyhow;
use mayfly_server::{holder_of, wait_until_had_by_none};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;

use crate::exit::Stop;
use crate::server_process::{BACKGROUND, Starting};

/// The signal by which it is asked.
pub(crate) const GO: i32 = Signal::USR1.as_raw();

/// Waits until it is our turn to start an orchestrator in a data folder, and until one in the background is gone.
pub(crate) async fn turn(data: &Path) -> Result<Starting, Stop> {
    let starting = Starting::begin(data).await?;
    let Some(pid) = in_background(data) else { return Ok(starting) };
    tracing::info!(pid = pid.as_raw_nonzero(), "taking over from the orchestrator in the background");
    // One that is gone by now has gone.
    let _ = kill_process(pid, Signal::USR1);
    let folder = data.to_owned();
    match spawn_blocking(move || wait_until_had_by_none(&folder)).await? {
        true => Ok(starting),
        false => Err(anyhow!(
            "the orchestrator in the background, process {pid}, was asked to go and did not: end it with `kill -9 {pid}`; \
             its machines go on, and are taken over"
        )
        .into()),
    }
}

/// The process in the background that has the folder.
fn in_background(data: &Path) -> Option<Pid> {
    let pid = holder_of(data)?;
    let started = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    was_started_so(&started, data).then(|| Pid::from_raw(pid))?
}

/// Whether these are the words, each with a NUL behind it, by which we start one in the background on this folder.
fn was_started_so(words: &[u8], data: &Path) -> bool {
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).skip(1).collect();
    let folder = words.iter().skip_while(|word| **word != b"--data").nth(1);
    words.starts_with(&BACKGROUND.map(str::as_bytes))
        && folder.is_some_and(|folder| *folder == data.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_in_the_background_and_on_this_folder_is_asked_to_go() {
        let is = |words: &str| was_started_so(words.replace(' ', "\0").as_bytes(), Path::new("/d"));
        assert!(is("/usr/bin/mayfly serve --background --config /c --data /d --claude /x "));
        for other in [
            "/usr/bin/mayfly serve --data /d ",
            "/usr/bin/mayfly serve --background --data /other ",
            "sh -c serve --background --data /d ",
            "",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
