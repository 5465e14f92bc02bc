//! A loss of power: of each file there is what was made durable last, and nothing that was written since.
//!
//! The functions below have the names of the C library's, whose place they take in this program: SQLite calls them too.
//! What a file holds once it has been made durable is copied, and the copies are what is left.

#![expect(unsafe_code, reason = "the C library's functions are replaced")]

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use mayfly_core::{Attempt, Event};
use mayfly_store::Store;
use mayfly_wire::worker::{End, Record, Source};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::{AT, change, id, log, policy, rules, submit};

/// The folder that loses its power, and where its durable files are.
static POWER: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
/// Held while one is copied.
static COPYING: Mutex<()> = Mutex::new(());

fn keep(file: i32) {
    let Some((from, to)) = POWER.get() else { return };
    let path = fs::read_link(format!("/proc/self/fd/{file}")).unwrap();
    if path.parent() == Some(from) {
        let _copying = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn answer(file: i32, done: Result<(), Errno>) -> i32 {
    done.unwrap();
    keep(file);
    0
}

/// `fsync(2)`
#[unsafe(no_mangle)]
extern "C" fn fsync(file: i32) -> i32 {
    // SAFETY: the caller's descriptor, which lives as long as the call.
    answer(file, rustix::fs::fsync(unsafe { BorrowedFd::borrow_raw(file) }))
}

/// `fdatasync(2)`
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: i32) -> i32 {
    // SAFETY: the caller's descriptor, which lives as long as the call.
    answer(file, rustix::fs::fdatasync(unsafe { BorrowedFd::borrow_raw(file) }))
}

/// What is left if the power goes now. A file that was removed is not there any more.
fn lose_power() -> TempDir {
    let ((from, to), left) = (POWER.get().unwrap(), tempfile::tempdir().unwrap());
    let _copying = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
    for name in fs::read_dir(to).unwrap().map(|entry| entry.unwrap().file_name()) {
        if from.join(&name).exists() {
            fs::copy(to.join(&name), left.path().join(&name)).unwrap();
        }
    }
    left
}

fn open(dir: &Path) -> Store {
    Store::open(&dir.join("db")).unwrap()
}

/// G1, G4, R18: after each answer the power goes, and what was answered is there.
#[tokio::test]
async fn what_was_answered_outlives_a_loss_of_power() {
    const ROUNDS: u32 = 60;
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    POWER.set((dir.path().canonicalize().unwrap(), kept.path().to_owned())).unwrap();
    let store = open(dir.path());
    let attempt = id(1).attempt(Attempt(1));
    submit(&store, 1).await;
    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    store.apply(id(1), change(Event::Joined(Attempt(1)))).await.unwrap().unwrap();
    for round in 1..=ROUNDS {
        submit(&store, 1 + round).await;
        // Enough for the log to be moved into the file a few times.
        let bytes = vec![b'x'; 200_000].into();
        let record =
            Record { number: round.into(), at_ms: 0, source: Source::Claude, end: End::Newline, bytes };
        let stored = store.ingest(attempt, vec![record], AT, rules(), |_| ()).await.unwrap().stored;
        let lines = store.task(id(1)).await.unwrap().unwrap().last_seq;

        let left = lose_power();
        let there = open(left.path());
        assert!(there.task(id(1 + round)).await.unwrap().is_some(), "the task of round {round}");
        assert_eq!(there.attempt(attempt).await.unwrap().unwrap().stored, stored, "round {round}");
        assert_eq!(log(&there, id(1), 0).await.len() as u64, lines, "round {round}");
    }
}
