//! How much of the disk the machine's own files take, and the moment from which it is too much.
//!
//! ```text
//! each LOOK_EVERY: free bytes of the file system ── a SHARE of the limit less than at the last count ──► count
//! ```
//!
//! The one thing here that is looked at by the clock: the kernel tells nobody that a file has grown. To ask for the
//! free bytes costs one call; only when many are gone the files are gone through, on a thread beside. Whoever else
//! writes to the file system makes the count come more often, or later if he deletes; he is never counted.
//!
//! A folder that cannot be looked into, such as one nested too deep, may hold all that the file system has lost
//! since the start, and is taken to. Not seen are files that are open and have no name any more, and those that are
//! moved about during the count.
//!
//! Bounds: [`FOLDERS_MAX`] folders that wait to be looked into; a count ends once it is over the limit.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use mayfly_wire::boot::DiskLimit;
use rustix::fs::statvfs;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

/// How often the free bytes are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The files are counted when this part of the limit is gone.
const SHARE: u64 = 16;
/// The most folders that wait to be looked into.
const FOLDERS_MAX: usize = 1 << 20;
/// The unit of the kernel's count of a file's blocks.
const BLOCK_BYTES: u64 = 512;

/// Returns once the files take more than the limit, with that in words. Without a limit it never returns.
pub(crate) async fn over(limit: Option<DiskLimit>) -> String {
    let Some(limit) = limit else { std::future::pending().await };
    let folder = limit.folders.first().cloned().unwrap_or_default();
    over_by(limit, || statvfs(&folder).map(|disk| disk.f_bfree * disk.f_frsize).ok()).await
}

/// The same, with the free bytes from elsewhere; none if they cannot be told now.
async fn over_by(limit: DiskLimit, free: impl Fn() -> Option<u64>) -> String {
    let start = free().unwrap_or_default();
    let mut last = start;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(now) = free() else { continue };
        last = last.max(now);
        if last - now <= limit.max / SHARE {
            continue;
        }
        last = now;
        let (folders, max) = (limit.folders.clone(), limit.max);
        let count = spawn_blocking(move || count(folders, max)).await.expect("counting does not panic");
        let taken = if count.whole { count.bytes } else { count.bytes.max(start.saturating_sub(now)) };
        if taken > max {
            return format!("its files take {taken} bytes, and {max} are the most");
        }
    }
}

/// What the files take, as far as it was seen.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    bytes: u64,
    whole: bool,
}

/// Goes through `folders` until they are over `max`. Each of a file's names has its part of it.
fn count(mut folders: Vec<PathBuf>, max: u64) -> Count {
    let mut count = Count { bytes: 0, whole: true };
    while let Some(folder) = folders.pop().filter(|_| count.bytes <= max) {
        if let Err(error) = count.look_into(&folder, &mut folders) {
            // What is gone takes nothing.
            count.whole &= error.kind() == io::ErrorKind::NotFound;
        }
    }
    count
}

impl Count {
    fn look_into(&mut self, folder: &PathBuf, folders: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                is => is?,
            };
            let names = if is.is_dir() { 1 } else { is.nlink().max(1) };
            self.bytes = self.bytes.saturating_add(is.blocks() * BLOCK_BYTES / names);
            if is.is_dir() && folders.len() < FOLDERS_MAX {
                folders.push(entry.path());
            } else {
                self.whole &= !is.is_dir();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use tokio::time::Instant;

    use super::*;

    const MEGABYTE: u64 = 1 << 20;

    fn fill(file: &Path, megabytes: u64) {
        fs::write(file, vec![1; usize::try_from(megabytes * MEGABYTE).unwrap()]).unwrap();
    }

    fn limit(folder: &Path, megabytes: u64) -> DiskLimit {
        DiskLimit { max: megabytes * MEGABYTE, folders: vec![folder.to_owned()] }
    }

    fn all(folder: &Path) -> Count {
        count(vec![folder.to_owned()], u64::MAX)
    }

    #[test]
    fn what_is_on_the_disk_is_counted_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, elsewhere) = (dir.path().join("inner"), tempfile::tempdir().unwrap());
        fs::create_dir(&inner).unwrap();
        fill(&elsewhere.path().join("other"), 8);
        std::os::unix::fs::symlink(elsewhere.path(), inner.join("link")).unwrap();
        fill(&inner.join("a"), 2);
        fs::hard_link(inner.join("a"), dir.path().join("b")).unwrap();
        fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        let Count { bytes, whole } = all(dir.path());
        assert!(whole && (2 * MEGABYTE..3 * MEGABYTE).contains(&bytes), "{bytes}");
    }

    /// S11: a tree that no path reaches.
    #[test]
    fn what_cannot_be_looked_into_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut at =
            rustix::fs::open(dir.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        for _ in 0..25 {
            rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                .unwrap();
        }
        assert!(!all(dir.path()).whole);
        assert_eq!(all(&dir.path().join("none")), Count { bytes: 0, whole: true });
    }

    /// S51, by a clock and a file system that the test holds.
    #[tokio::test(start_paused = true)]
    async fn the_files_are_counted_only_when_a_share_of_the_limit_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (free, begun) = (Cell::new(100 * MEGABYTE), Instant::now());
        let over = over_by(limit(dir.path(), 16), || Some(free.get()));
        let fill_up = async {
            // Others fill the disk, and empty it again.
            for gigabytes in [0, 50, 100] {
                free.set(gigabytes * 1024 * MEGABYTE);
                tokio::time::sleep(LOOK_EVERY * 2).await;
            }
            fill(&dir.path().join("big"), 20);
            for megabytes in [1, 2] {
                free.set(100 * 1024 * MEGABYTE - megabytes * MEGABYTE);
                tokio::time::sleep(LOOK_EVERY * 10).await;
            }
            panic!("it must have been seen");
        };
        let words = tokio::select! { words = over => words, () = fill_up => unreachable!() };
        assert!(words.ends_with("bytes, and 16777216 are the most"), "{words}");
        // 6 s of others, then 10 s in which no more than a share was gone.
        let seconds = begun.elapsed().as_secs();
        assert!((16..=17).contains(&seconds), "{seconds}");
    }

    /// Fail closed: hidden bytes are bytes.
    #[tokio::test(start_paused = true)]
    async fn what_is_hidden_is_taken_for_all_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (free, file) = (Cell::new(100 * MEGABYTE), dir.path().join("no-folder"));
        fill(&file, 0);
        let over = over_by(limit(&file, 16), || Some(free.replace(free.get() - 9 * MEGABYTE)));
        assert_eq!(over.await, format!("its files take {} bytes, and 16777216 are the most", 18 * MEGABYTE));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_is_looked_at() {
        assert!(tokio::time::timeout(Duration::from_secs(1000), over(None)).await.is_err());
    }
}
