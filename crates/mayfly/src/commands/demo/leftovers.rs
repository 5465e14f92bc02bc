//! Removes the data of demos that were killed: nobody comes back for it.
//!
//! A live orchestrator holds the lock of its data, and makes the database under it. So whoever can take the lock of
//! a folder with a database is alone with it. Machines end soon after their orchestrator; as long as one lives, its
//! folder is left to a later demo.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::OFlags;

use crate::machines;

/// What the folders of data are called.
pub(super) const DATA: &str = "mayfly-data-";

/// Removes what is nobody's in `folder`. What cannot be removed is left.
pub(super) async fn remove(folder: &Path) {
    for data in fs::read_dir(folder).into_iter().flatten().flatten() {
        let named = data.file_name().as_encoded_bytes().starts_with(DATA.as_bytes());
        let Some(_lock) = named.then(|| take(&data.path())).flatten() else { continue };
        match unmake(&data.path()).await {
            Ok(removed) => tracing::debug!(data = %data.path().display(), removed, "data of a killed demo"),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), data = %data.path().display(), "cannot remove a demo's data");
            }
        }
    }
}

/// The lock of a folder of ours that no orchestrator holds.
fn take(data: &Path) -> Option<File> {
    let own = |path: &Path| {
        let found = fs::symlink_metadata(path).ok()?;
        (found.uid() == rustix::process::geteuid().as_raw()).then_some(found)
    };
    own(data).filter(fs::Metadata::is_dir)?;
    let path = data.join("lock");
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let lock = OpenOptions::new().read(true).write(true).custom_flags(nofollow).open(&path).ok()?;
    lock.try_lock().ok()?;
    own(&data.join("mayfly.db")).map(|_| lock)
}

/// Removes a folder, unless one of its machines lives.
async fn unmake(data: &Path) -> anyhow::Result<bool> {
    for provider in machines::left_here(data)? {
        let machines = provider.list().await.context("its machines cannot be listed")?;
        if machines.iter().any(|machine| machine.alive) {
            return Ok(false);
        }
        for machine in machines {
            provider.destroy(machine.attempt).await.context("its machines cannot be removed")?;
        }
    }
    fs::remove_dir_all(data).context("its files cannot be removed")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use mayfly_core::{Attempt, TaskId};
    use uuid::Uuid;

    use super::*;

    /// The data of a demo, as its orchestrator made it.
    fn data(beside: &Path, name: &str) -> PathBuf {
        let data = beside.join(name);
        fs::create_dir_all(data.join("machines")).expect("made");
        for file in ["lock", "mayfly.db", "key"] {
            fs::write(data.join(file), "").expect("written");
        }
        data
    }

    fn locked(path: &Path) -> File {
        let file = File::create(path).expect("made");
        file.try_lock().expect("free");
        file
    }

    #[tokio::test]
    async fn only_data_of_this_user_that_nobody_uses_is_removed() {
        let beside = tempfile::tempdir().expect("a folder");
        let at = |name: &str| beside.path().join(name);
        let killed = data(beside.path(), "mayfly-data-killed");
        let live = data(beside.path(), "mayfly-data-live");
        let lock = locked(&live.join("lock"));
        let other = data(beside.path(), "other");
        // Its orchestrator is about to take its lock.
        let starting = data(beside.path(), "mayfly-data-starting");
        fs::remove_file(starting.join("mayfly.db")).expect("removed");
        std::os::unix::fs::symlink(&other, at("mayfly-data-link")).expect("made");
        let mut stay = vec![live.clone(), other, starting, at("mayfly-data-link")];
        if rustix::process::geteuid().is_root() {
            let somebodys = data(beside.path(), "mayfly-data-somebodys");
            std::os::unix::fs::chown(&somebodys, Some(54_321), None).expect("given away");
            stay.push(somebodys);
        }
        remove(beside.path()).await;
        assert!(!killed.exists());
        for path in stay {
            assert!(path.exists(), "{}", path.display());
        }
        drop(lock);
        remove(beside.path()).await;
        assert!(!live.exists());
    }

    #[tokio::test]
    async fn as_long_as_a_machine_lives_its_data_stays() {
        let beside = tempfile::tempdir().expect("a folder");
        let killed = data(beside.path(), "mayfly-data-killed");
        let attempt = TaskId::new(Uuid::now_v7()).attempt(Attempt(1));
        let machine = killed.join("machines").join(attempt.to_string());
        fs::create_dir(&machine).expect("made");
        let life = locked(&machine.join("lock"));
        remove(beside.path()).await;
        assert!(machine.join("lock").exists());
        drop(life);
        remove(beside.path()).await;
        assert!(!killed.exists());
    }
}
