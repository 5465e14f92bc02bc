//! The file behind the outbox: what finds no room in memory waits here for its turn.
//!
//! It has no name from its first moment, before `claude` is started, so that no path leads to it; and what the
//! worker has open, no other process of the machine may look at. It is a ring: positions only grow, and a place is
//! used again once what was there has been read. Once it is empty, the disk has its room back.
//!
//! It is not among the files that [`disk`](crate::disk) counts: the machine may take this much beside its limit.
//! Whatever keeps it from being written, a full disk as a rule, makes it as good as full.
//!
//! Bound: the outbox's, [`Bounds::spool`](crate::outbox::Bounds).

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn, spawn_blocking};

use crate::outbox::{Done, Job};

/// A file that only the worker can reach, if there is one.
#[derive(Debug)]
pub(crate) struct Spool {
    file: Option<Arc<File>>,
    size: u64,
    /// Who does a job: a thread that may wait for the disk, but in a simulation.
    by: fn(Work) -> JoinHandle<io::Result<Done>>,
}

type Work = Box<dyn FnOnce() -> io::Result<Done> + Send>;

impl Spool {
    /// A spool of `size` bytes on the disk that `folder` is on. Where none can be made, nothing is taken.
    pub(crate) fn on_disk_of(folder: &Path, size: u64) -> Self {
        let file = unnamed(folder);
        if let Err(error) = &file {
            tracing::warn!(%error, "no spool: what finds no room in memory makes claude wait");
        }
        Self { file: file.ok().map(Arc::new), size, by: |work| spawn_blocking(work) }
    }

    /// Without a thread of its own.
    pub(crate) fn in_place(self) -> Self {
        Self { by: |work| spawn(async { work() }), ..self }
    }

    /// Begins to do a job. An error: what was written cannot be read.
    pub(crate) fn start(&self, job: Job) -> JoinHandle<io::Result<Done>> {
        let (file, size) = (self.file.clone(), self.size);
        (self.by)(Box::new(move || match file {
            Some(file) => perform(&file, size, job),
            None => Ok(Done::Unwritten),
        }))
    }
}

fn unnamed(folder: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn perform(file: &File, size: u64, job: Job) -> io::Result<Done> {
    match job {
        Job::Write { at, chunk } => {
            let (first, rest) = chunk.split_at(before_end(size, at, chunk.len()));
            let written = file.write_all_at(first, at % size).and_then(|()| file.write_all_at(rest, 0));
            Ok(written.map_or(Done::Unwritten, |()| Done::Written))
        }
        Job::Read { at, bytes, is_last } => {
            let mut chunk = vec![0; bytes];
            let (first, rest) = chunk.split_at_mut(before_end(size, at, bytes));
            file.read_exact_at(first, at % size)?;
            file.read_exact_at(rest, 0)?;
            if is_last {
                // If not, it is only used again.
                let _ = file.set_len(0);
            }
            Ok(Done::Read(chunk.into()))
        }
    }
}

/// How many of `bytes` from `at` on are before the end of the ring; the others are at its start.
fn before_end(size: u64, at: u64, bytes: usize) -> usize {
    usize::try_from(size - at % size).map_or(bytes, |left| left.min(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use bytes::Bytes;

    use super::*;

    async fn done(spool: &Spool, job: Job) -> Done {
        spool.start(job).await.unwrap().unwrap()
    }

    /// Covers S32 for what waits in a machine.
    #[tokio::test]
    async fn what_was_written_is_read_around_the_end_of_the_ring_and_the_file_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::on_disk_of(dir.path(), 100);
        for at in [0, 60, 120, 180] {
            let chunk = Bytes::from(vec![u8::try_from(at).unwrap(); 60]);
            assert!(matches!(done(&spool, Job::Write { at, chunk: chunk.clone() }).await, Done::Written));
            let read = done(&spool, Job::Read { at, bytes: 60, is_last: at > 100 }).await;
            assert!(matches!(read, Done::Read(bytes) if bytes == chunk), "at {at}");
        }
        let is = spool.file.as_ref().unwrap().metadata().unwrap();
        assert_eq!((is.nlink(), is.mode() & 0o777, is.len()), (0, 0o600, 0));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn without_a_place_for_it_nothing_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::on_disk_of(&dir.path().join("none"), 100);
        let job = Job::Write { at: 0, chunk: Bytes::from_static(b"x") };
        assert!(matches!(done(&spool, job).await, Done::Unwritten));
    }

    /// A full disk, as the kernel plays it.
    #[test]
    fn what_the_disk_does_not_take_is_not_written() {
        let full = File::options().read(true).write(true).open("/dev/full").unwrap();
        let job = Job::Write { at: 0, chunk: Bytes::from_static(b"x") };
        assert!(matches!(perform(&full, 100, job), Ok(Done::Unwritten)));
    }
}
