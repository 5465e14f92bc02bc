//! What is fetched by a program of this system: in a folder for it alone, and with an end.
//!
//! A folder that one who was killed left behind goes when the next one has its turn.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use mayfly_image::program;
pub(crate) use mayfly_image::program::{Ended, Flag, GivenUp};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::progress;

/// How often it is looked whether another one's turn is over: the kernel tells nobody who can be given up meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// What the names of the folders begin with.
const UNFINISHED: &str = "fetch-";

/// A folder for one fetch, which goes when this is dropped. Nobody else has one beside it meanwhile.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    /// Released after the folder is gone, and by the kernel if we die.
    _turn: File,
}

impl Scratch {
    /// Waits for its turn in `top`, which is there; `what` is fetched. `None`: it was given up.
    pub(crate) fn below(top: &Path, what: &str, given_up: &Flag) -> io::Result<Option<Self>> {
        let turn = File::open(top)?;
        if turn.try_lock().is_err() {
            progress::say(&format!("another mayfly is fetching {what}; waiting for it"));
            while turn.try_lock().is_err() {
                if given_up.is_given_up() {
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

/// Runs a program to its end, or ends it with all that it started; `tell` is called now and then meanwhile.
pub(crate) fn run(
    command: &mut Command,
    most: Duration,
    given_up: &Flag,
    tell: impl FnMut(),
) -> io::Result<Ended> {
    program::run(command, Signal::KILL, most, given_up, tell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fetch_has_its_turn_after_the_other_and_removes_what_was_left() {
        let top = tempfile::tempdir().expect("a folder");
        let below = |flag: &Flag| Scratch::below(top.path(), "it", flag).expect("a folder");
        fs::create_dir_all(top.path().join("fetch-left/more")).expect("made");
        fs::create_dir(top.path().join("kept")).expect("made");
        let wanted = Flag::default();
        let first = below(&wanted).expect("its turn");
        assert!(!top.path().join("fetch-left").exists() && top.path().join("kept").exists());
        let given_up = GivenUp::default().flag();
        assert!(below(&given_up).is_none(), "one that waits can be given up");
        let at = first.path().to_owned();
        thread::scope(|scope| {
            let second = scope.spawn(|| below(&wanted).is_some());
            drop(first);
            assert!(second.join().expect("no panic"));
        });
        assert!(!at.exists());
    }
}
