//! What is fetched by a program of this system: in a folder for it alone, and with an end.
//!
//! The program is in a process group of its own. So a Ctrl-C is for us alone, and what the program started ends with it.
//! A folder that one who was killed left behind goes when the next one has its turn.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::progress;

/// How often it is looked whether something is done.
const LOOK: Duration = Duration::from_millis(50);
/// What the names of the folders begin with.
const UNFINISHED: &str = "fetch-";

/// Tells the thread that fetches, when it is dropped, that nobody waits for it any more.
#[derive(Debug, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// What is true once nobody waits.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder for one fetch, which goes when this is dropped. Nobody else has one beside it meanwhile.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    /// Released after the folder is gone, and by the kernel if we die.
    _turn: File,
}

impl Scratch {
    /// Waits for its turn in `top`, which is there; `what` is fetched. `None`: it was given up.
    pub(crate) fn below(top: &Path, what: &str, given_up: &AtomicBool) -> io::Result<Option<Self>> {
        let turn = File::open(top)?;
        if turn.try_lock().is_err() {
            progress::say(&format!("another mayfly is fetching {what}; waiting for it"));
            while turn.try_lock().is_err() {
                if given_up.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                thread::sleep(LOOK);
            }
        }
        remove_unfinished(top)?;
        let folder = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(top)?;
        Ok(Some(Self { folder, _turn: turn }))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn remove_unfinished(top: &Path) -> io::Result<()> {
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Itself(ExitStatus),
    /// It took longer than it may, and was killed.
    TooLate,
    /// Nobody waits for it any more, and it was killed.
    GivenUp,
}

/// Runs a program to its end; `look` is called now and then meanwhile.
pub(crate) fn run(
    command: &mut Command,
    most: Duration,
    given_up: &AtomicBool,
    mut look: impl FnMut(),
) -> io::Result<Ended> {
    let mut child = command.process_group(0).spawn()?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Itself(status));
        }
        let ended = match () {
            () if given_up.load(Ordering::Relaxed) => Ended::GivenUp,
            () if began.elapsed() > most => Ended::TooLate,
            () => {
                look();
                thread::sleep(LOOK);
                continue;
            }
        };
        // Before it is waited for: until then the number of its group is no other's.
        kill_process_group(Pid::from_child(&child), Signal::KILL)?;
        child.wait()?;
        return Ok(ended);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// A program that hears no signal which can be ignored, and starts another such one. Both hold the pipe `alive`.
    fn deaf(alive: &Path) -> Command {
        let mkfifo = Command::new("mkfifo").arg(alive).status().expect("mkfifo");
        assert!(mkfifo.success());
        let deaf = format!(
            "trap '' HUP INT TERM; exec >'{}'; tail -f /dev/null & echo begun; exec tail -f /dev/null",
            alive.display()
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &deaf]);
        command
    }

    #[test]
    fn a_program_that_is_given_up_ends_with_all_that_it_started() {
        let place = tempfile::tempdir().expect("a folder");
        let alive = place.path().join("alive");
        let mut deaf = deaf(&alive);
        let given_up = GivenUp::default();
        let flag = given_up.flag();
        let long = Duration::from_secs(3600);
        thread::scope(|scope| {
            let run = scope.spawn(|| run(&mut deaf, long, &flag, || ()).expect("it runs"));
            let mut alive = File::open(&alive).expect("a pipe");
            let mut begun = [0; 6];
            alive.read_exact(&mut begun).expect("it has begun");
            drop(given_up);
            assert_eq!(run.join().expect("no panic"), Ended::GivenUp);
            // The pipe ends with the last one who could write to it.
            assert_eq!(alive.read_to_end(&mut Vec::new()).expect("read"), 0);
        });
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let never = AtomicBool::new(false);
        let mut waits = Command::new("tail");
        waits.args(["-f", "/dev/null"]);
        assert_eq!(run(&mut waits, Duration::ZERO, &never, || ()).expect("it runs"), Ended::TooLate);
        let ended = run(&mut Command::new("true"), Duration::MAX, &never, || ()).expect("it runs");
        assert!(matches!(ended, Ended::Itself(status) if status.success()), "{ended:?}");
    }

    #[test]
    fn one_fetch_has_its_turn_after_the_other_and_removes_what_was_left() {
        let top = tempfile::tempdir().expect("a folder");
        let below = |flag: &AtomicBool| Scratch::below(top.path(), "it", flag).expect("a folder");
        fs::create_dir_all(top.path().join("fetch-left/more")).expect("made");
        fs::create_dir(top.path().join("kept")).expect("made");
        let wanted = AtomicBool::new(false);
        let first = below(&wanted).expect("its turn");
        assert!(!top.path().join("fetch-left").exists() && top.path().join("kept").exists());
        assert!(below(&AtomicBool::new(true)).is_none(), "one that waits can be given up");
        let at = first.path().to_owned();
        thread::scope(|scope| {
            let second = scope.spawn(|| below(&wanted).is_some());
            drop(first);
            assert!(second.join().expect("no panic"));
        });
        assert!(!at.exists());
    }
}
