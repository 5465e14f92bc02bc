//! Which bases there are, who uses them, and which of them go.
//!
//! ```text
//! bases/<base>.lock    held by a machine's maker and then its holder, with others, as long as it may be mounted;
//!                      held alone by who makes or removes the base. Its time of change is that of the last use
//! ```
//!
//! The lock is beside the base and not on it: an agent sees the base, and could hold that one.
//!
//! Bound: `BASES_MAX` bases, of which a new one drives out those that were not used for the longest time; those
//! that a machine uses stay, so there are more where more machines live than that.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::remove::remove_tree;
use mayfly_holder::{Failure, Lock, Step};

/// How many bases are kept for tasks to come.
const BASES_MAX: usize = 32;

/// The lock of `base`.
pub(crate) fn lock_of(base: &Path) -> PathBuf {
    base.with_extension("lock")
}

/// Where `base` is made, and where it is removed: what is here is no base.
pub(crate) fn making_of(base: &Path) -> PathBuf {
    base.with_extension("making")
}

/// What git says while `base` is made.
pub(crate) fn words_of(base: &Path) -> PathBuf {
    base.with_extension("words")
}

/// Keeps `base` from being removed for as long as the lock lives; `None` if there is no such base.
pub(crate) fn hold(base: &Path) -> Result<Option<Lock>, Failure> {
    let held = Lock::acquire_with_others(&lock_of(base)).and_then(|lock| {
        lock.touch()?;
        Ok(base.is_dir().then_some(lock))
    });
    held.step(format!("hold the workspace's base {}", base.display()))
}

/// The same for a base that was there a moment ago.
pub(crate) fn hold_again(base: &Path) -> Result<Lock, Failure> {
    hold(base)?.ok_or_else(|| Failure {
        may_pass: true,
        ..Failure::new(format!("the workspace's base {} was removed before it was used", base.display()))
    })
}

/// Removes bases until one more is within the bound. Whoever holds the lock of `new` calls it.
pub(crate) fn make_room(new: &Path) -> Result<(), Failure> {
    let bases = new.parent().expect("a base is in the folder of bases");
    let known = by_last_use(bases, new).step(format!("list the bases in {}", bases.display()))?;
    let mut left = known.len();
    for base in known {
        if left < BASES_MAX {
            break;
        }
        match remove_if_unused(&base) {
            Ok(true) => left -= 1,
            Ok(false) => {}
            // The task can run all the same.
            Err(error) => {
                tracing::warn!(base = %base.display(), %error, "a base that nobody uses was not removed");
            }
        }
    }
    Ok(())
}

/// All but `new`, half-made ones too; the one whose last use is longest ago comes first.
fn by_last_use(bases: &Path, new: &Path) -> io::Result<Vec<PathBuf>> {
    let mut known = BTreeMap::new();
    for entry in fs::read_dir(bases)? {
        let base = entry?.path().with_extension("");
        let name = base.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if base != new && crate::bases::is_name(name) {
            let used = fs::metadata(lock_of(&base)).and_then(|lock| lock.modified());
            known.insert(base, used.unwrap_or(SystemTime::UNIX_EPOCH));
        }
    }
    let mut known: Vec<_> = known.into_iter().collect();
    known.sort_by_key(|(_, used)| *used);
    Ok(known.into_iter().map(|(base, _)| base).collect())
}

/// Whether it is gone.
fn remove_if_unused(base: &Path) -> io::Result<bool> {
    let Some(lock) = Lock::acquire_if_free(&lock_of(base))? else { return Ok(false) };
    let making = making_of(base);
    remove_tree(&making)?;
    // Away first: half of a base must not be taken for a whole one.
    if_there(fs::rename(base, &making))?;
    remove_tree(&making)?;
    if_there(fs::remove_file(words_of(base)))?;
    lock.remove()?;
    Ok(true)
}

fn if_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Makes one that was last used `at` seconds after the epoch.
    fn base(bases: &Path, at: u64) -> PathBuf {
        let base = bases.join(format!("{at:064x}-{at:040x}"));
        fs::create_dir_all(base.join("src")).expect("made");
        drop(hold(&base).expect("free").expect("there"));
        let lock = fs::File::options().write(true).open(lock_of(&base)).expect("there");
        lock.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at)).expect("set");
        base
    }

    fn count(bases: &Path) -> usize {
        let entries = fs::read_dir(bases).expect("a folder").map(|entry| entry.expect("an entry"));
        entries.filter(|entry| entry.file_type().expect("a type").is_dir()).count()
    }

    #[test]
    fn a_new_base_drives_out_the_one_whose_last_use_is_longest_ago() {
        let dir = tempfile::tempdir().expect("a folder");
        let bases: Vec<_> = (0..BASES_MAX as u64).map(|at| base(dir.path(), 100 - at)).collect();
        make_room(&dir.path().join("new")).expect("room");
        let (oldest, others) = bases.split_last().expect("some");
        assert!(!oldest.exists() && !lock_of(oldest).exists() && !making_of(oldest).exists());
        assert!(others.iter().all(|base| base.join("src").is_dir()));
        make_room(&dir.path().join("new")).expect("room");
        assert_eq!(count(dir.path()), BASES_MAX - 1, "there was room already");
    }

    #[test]
    fn a_base_in_use_stays_and_the_next_one_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let bases: Vec<_> = (0..=BASES_MAX as u64).map(|at| base(dir.path(), at)).collect();
        let used = Lock::acquire_with_others(&lock_of(&bases[0])).expect("free");
        make_room(&dir.path().join("new")).expect("room");
        assert_eq!([0, 1, 2, 3].map(|at| bases[at].exists()), [true, false, false, true]);
        drop(used);
        base(dir.path(), 1000);
        make_room(&dir.path().join("new")).expect("room");
        assert!(!bases[0].exists(), "nobody uses it any more");
    }

    #[test]
    fn using_a_base_makes_it_the_last_to_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let bases: Vec<_> = (0..BASES_MAX as u64).map(|at| base(dir.path(), at)).collect();
        drop(hold_again(&bases[0]).expect("there"));
        make_room(&dir.path().join("new")).expect("room");
        assert_eq!([0, 1, 2].map(|at| bases[at].exists()), [true, false, true]);
    }

    #[test]
    fn what_is_no_base_is_left_alone_and_what_was_half_made_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        for at in 1..BASES_MAX as u64 {
            base(dir.path(), at);
        }
        let half = making_of(&base(dir.path(), 0));
        fs::rename(half.with_extension(""), &half).expect("moved");
        fs::write(words_of(&half), "fatal").expect("written");
        fs::create_dir(dir.path().join("notes")).expect("made");
        make_room(&dir.path().join("new")).expect("room");
        assert!(!half.exists() && !words_of(&half).exists() && dir.path().join("notes").exists());
        assert!(hold(&half.with_extension("")).expect("free").is_none(), "half of one is none");
    }
}
