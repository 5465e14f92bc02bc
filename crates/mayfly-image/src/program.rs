//! A program of this system that is waited for until it ends, takes too long, or nobody wants it any more.
//!
//! ```text
//! its end ───────────┐
//! it was given up ───┤► one wait ─► its end, and that of all that it started
//! its time is over ──┘
//! ```
//!
//! Nothing is asked again and again: a thread waits for the end, and [`GivenUp`] tells that it is over by itself. The program is
//! in a process group of its own. So a Ctrl-C is for us alone, and what the program started ends with it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How often whoever tells of it may do so.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Tells the thread that waits for a program, when it is dropped, that nobody waits for it any more.
#[derive(Debug, Default)]
pub struct GivenUp(Flag);

impl GivenUp {
    /// What knows whether it was dropped.
    pub fn flag(&self) -> Flag {
        self.0.clone()
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        let mut known = self.0.known();
        known.is_given_up = true;
        for hearer in known.hearers.drain(..) {
            // Who has ended meanwhile need not know.
            let _ = hearer.send(Event::GivenUp);
        }
    }
}

/// Whether something was given up.
#[derive(Debug, Clone, Default)]
pub struct Flag(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    is_given_up: bool,
    hearers: Vec<Sender<Event>>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Ended,
    GivenUp,
}

impl Flag {
    /// Whether it was, by now.
    pub fn is_given_up(&self) -> bool {
        self.known().is_given_up
    }

    fn tells(&self, hearer: Sender<Event>) {
        let mut known = self.known();
        if known.is_given_up {
            // It listens, since it has asked.
            let _ = hearer.send(Event::GivenUp);
        } else {
            known.hearers.push(hearer);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Itself(ExitStatus),
    /// It took longer than it may, and was ended.
    TooLate,
    /// Nobody waits for it any more, and it was ended.
    GivenUp,
}

/// Runs a program to its end; `tell` is called now and then meanwhile. One that is to end before that is sent `end`, with all
/// that it started.
///
/// # Errors
/// It cannot be started, or sent a signal.
pub fn run(
    command: &mut Command,
    end: Signal,
    most: Duration,
    given_up: &Flag,
    mut tell: impl FnMut(),
) -> io::Result<Ended> {
    let mut child = command.process_group(0).spawn()?;
    let (pid, began) = (Pid::from_child(&child), Instant::now());
    let (hearer, events) = mpsc::channel();
    let ended = hearer.clone();
    // It is left to be waited for: until then the number of its group is no other's.
    thread::spawn(move || {
        let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        while matches!(wait(), Err(Errno::INTR)) {}
        ended.send(Event::Ended)
    });
    given_up.tells(hearer);
    let why = loop {
        let left = most.saturating_sub(began.elapsed());
        match events.recv_timeout(left.min(TELL_EVERY)) {
            Ok(Event::Ended) => return Ok(Ended::Itself(child.wait()?)),
            Ok(Event::GivenUp) => break Ended::GivenUp,
            Err(RecvTimeoutError::Timeout) if left > TELL_EVERY => tell(),
            Err(_) => break Ended::TooLate,
        }
    };
    kill_process_group(pid, end)?;
    child.wait()?;
    Ok(why)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::path::Path;

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
            let run = scope.spawn(|| run(&mut deaf, Signal::KILL, long, &flag, || ()).expect("it runs"));
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
        let never = Flag::default();
        let waits = || {
            let mut waits = Command::new("tail");
            waits.args(["-f", "/dev/null"]);
            waits
        };
        let run = |command: &mut Command, most, flag| {
            run(command, Signal::TERM, most, flag, || ()).expect("it runs")
        };
        assert_eq!(run(&mut waits(), Duration::ZERO, &never), Ended::TooLate);
        let ended = run(&mut Command::new("true"), Duration::MAX, &never);
        assert!(matches!(ended, Ended::Itself(status) if status.success()), "{ended:?}");
        let before = GivenUp::default().flag();
        assert_eq!(run(&mut waits(), Duration::MAX, &before), Ended::GivenUp);
    }
}
