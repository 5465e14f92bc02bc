//! What is old goes: the log and the result of a task that was over long ago, and code that no other task names, and what of
//! the library none does.
//!
//! Looked for from time to time, and taken away in steps between which everybody else has their turn. The task itself
//! stays, and says what is gone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use mayfly_core::{TaskId, causes};
use mayfly_store::StoreError;
use tracing::{info, warn};

use crate::clock::{after, before};
use crate::engine::Engine;

mod library;

/// The pause between two looks.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);
/// The most tasks of one look.
const TASKS_MAX: u32 = 10_000;

/// Why something was not taken away yet.
#[derive(Debug, thiserror::Error)]
enum PruneError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("files could not be removed")]
    Files(#[from] io::Error),
}

impl Engine {
    /// Begins to look for what is old.
    pub(crate) fn prune(&self) {
        let engine = self.clone();
        self.spawn(async move {
            loop {
                let now = engine.0.clock.now();
                let cutoff = before(now, engine.0.config.rules.keep_finished);
                if let Err(error) = engine.prune_once(cutoff).await {
                    warn!(error = causes(&error), "what is old was not looked for");
                }
                engine.0.clock.sleep_until(after(now, PRUNE_EVERY)).await;
            }
        });
    }

    async fn prune_once(&self, cutoff: Timestamp) -> Result<(), PruneError> {
        for task in self.0.store.expired(cutoff, TASKS_MAX).await? {
            match self.prune_task(task).await {
                Ok(()) => info!(%task, "log and result taken away"),
                Err(error) => warn!(%task, error = causes(&error), "log and result not taken away yet"),
            }
        }
        let named: HashSet<String> = self.0.store.workspaces().await?.into_iter().collect();
        let (kept, folder) = (self.0.kept.clone(), self.0.config.workspaces.clone());
        // What has another name is no bundle.
        // A part of one that is still to come, and what a set-up made, is named by nobody.
        let is_named = move |name: &str| {
            let id = [".bundle", ".part", crate::setup::END].iter().find_map(|end| name.strip_suffix(end));
            id.is_none_or(|id| named.contains(id))
        };
        blocking(move || kept.remove_unused(&folder, is_named, cutoff)).await?;
        self.prune_library(cutoff).await
    }

    async fn prune_task(&self, task: TaskId) -> Result<(), PruneError> {
        if !self.0.store.begin_to_prune(task).await? {
            // Another has just begun to go on with it.
            return Ok(());
        }
        let folder = self.0.config.results.join(task.to_string());
        blocking(move || absent_is_fine(fs::remove_dir_all(folder))).await?;
        while self.0.store.prune_step(task).await? {}
        Ok(())
    }
}

pub(crate) async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What is kept by its content: bundles of code, archives of resources, trees of tools. When one was last asked for is its
/// own time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<()>>);

impl Kept {
    /// Notes that the one at `path` is asked for now: it is not taken away before long. Whether it is there.
    pub(crate) fn ask_for(&self, path: &Path, now: Timestamp) -> bool {
        let _held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        File::open(path).and_then(|file| file.set_modified(SystemTime::from(now))).is_ok()
    }

    /// Removes from `folder` what nobody names, and nobody asked for since `cutoff`; what is half made, too.
    fn remove_unused(
        &self,
        folder: &Path,
        is_named: impl Fn(&str) -> bool,
        cutoff: Timestamp,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| !is_named(name)) {
                // What others take away meanwhile, such as what was half made, is no reason to stop.
                absent_is_fine(self.remove_if_old(&path, cutoff))?;
            }
        }
        Ok(())
    }

    /// Removes of the files in `folder` whose names end so the ones that were not asked for longest, until the others have
    /// no more bytes than that.
    pub(crate) fn keep_within(&self, folder: &Path, end: &str, bytes_max: u64) -> io::Result<()> {
        let _held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(end)) {
                let metadata = entry.metadata()?;
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut left: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if left <= bytes_max {
                break;
            }
            info!(path = %path.display(), "what there is no room for taken away");
            fs::remove_file(path)?;
            left -= bytes;
        }
        Ok(())
    }

    /// Nobody can ask for it between the look at its time and its end.
    fn remove_if_old(&self, path: &Path, cutoff: Timestamp) -> io::Result<()> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = fs::symlink_metadata(path)?;
        if metadata.modified()? >= SystemTime::from(cutoff) {
            return Ok(());
        }
        info!(path = %path.display(), "what no task names taken away");
        if !metadata.is_dir() {
            return fs::remove_file(path);
        }
        // A tree takes long: what is left of it if this ends half-way has no name that anybody looks for.
        let going = path.with_file_name(format!(".going-{}", path.file_name().unwrap_or_default().display()));
        fs::rename(path, &going)?;
        drop(held);
        fs::remove_dir_all(going)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_goes_and_what_was_used_last_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (kept, at) = (Kept::default(), |second| Timestamp::from_second(second).expect("a time"));
        for (name, used) in [("a.setup", 3), ("b.setup", 1), ("c.setup", 2), ("d.bundle", 0)] {
            let path = folder.path().join(name);
            File::create(&path).and_then(|file| file.set_len(10 << 30)).expect("a file");
            assert!(kept.ask_for(&path, at(used)));
        }
        let there = || {
            let entries = fs::read_dir(folder.path()).expect("a folder");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("one").file_name()).collect();
            names.sort();
            names
        };
        kept.keep_within(folder.path(), ".setup", 30 << 30).expect("looked at");
        assert_eq!(there().len(), 4);
        kept.keep_within(folder.path(), ".setup", 20 << 30).expect("looked at");
        assert_eq!(there(), ["a.setup", "c.setup", "d.bundle"]);
        kept.keep_within(folder.path(), ".setup", 1).expect("looked at");
        assert_eq!(there(), ["d.bundle"]);
    }

    /// One that others take away between two looks ends nothing.
    #[test]
    fn what_goes_meanwhile_is_no_reason_to_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a", "b", "c"] {
            File::create(folder.path().join(name)).expect("a file");
        }
        let goes = |name: &str| {
            fs::remove_file(folder.path().join(name)).expect("removed");
            false
        };
        Kept::default().remove_unused(folder.path(), goes, Timestamp::now()).expect("all were looked at");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
