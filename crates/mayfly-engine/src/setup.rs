//! Set-up commands: what they may say, and where what they made is kept.
//!
//! It is kept beside the bundles of code, for one repository and one set of commands, by a key of the worker's; and goes
//! as they do, once nobody has asked for it for long. A machine takes it and hands it over before `claude` is started in
//! it, and not after, and by one key: what runs in it is the repository's, and may ask for anything.
//!
//! Bound: [`KEPT_BYTES_MAX`] for all of it; what was used last is the last to go.

use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use mayfly_core::{AttemptId, Phase, TaskId, TaskState};
use mayfly_library::tree::is_plain;
use mayfly_store::{StoreError, TaskRow};
use mayfly_wire::api::{REPOSITORY_BYTES_MAX, SETUP_PARTS_MAX, Setup, TIMEOUT_MS_MAX};
use sha2::{Digest as _, Sha256};

use crate::engine::Engine;
use crate::prune::blocking;
use crate::submit::{SubmitError, require};

/// The longest command.
const COMMAND_BYTES_MAX: usize = 16 * 1024;
/// The most that is kept of all set-ups.
const KEPT_BYTES_MAX: u64 = 20 << 30;
/// How the name of what is kept ends.
pub(crate) const END: &str = ".setup";

impl Engine {
    /// Where what the set-up of an attempt's task made is kept under `key`. `None`: it has no set-up that keeps anything,
    /// that is no key, or not the one that the attempt has asked for before, or `claude` has been started.
    pub async fn kept_setup(&self, attempt: AttemptId, key: &str) -> Result<Option<PathBuf>, StoreError> {
        let task = self.0.store.task(attempt.task).await?;
        Ok(task.and_then(|task| self.setup_of(&task, attempt, key)))
    }

    /// The same, to keep it. `None` also for a task that goes on with another's files: what is made of those is for nobody
    /// else.
    pub async fn setup_to_keep(&self, attempt: AttemptId, key: &str) -> Result<Option<PathBuf>, StoreError> {
        let task = self.0.store.task(attempt.task).await?.filter(|task| task.resumes.is_none());
        Ok(task.and_then(|task| self.setup_of(&task, attempt, key)))
    }

    /// Counts what was put at `place` just now as used now, and removes what there is no room for beside it.
    pub async fn setup_is_kept(&self, place: &Path) -> io::Result<()> {
        let (kept, folder) = (self.0.kept.clone(), self.0.config.workspaces.clone());
        kept.ask_for(place, self.0.clock.now());
        blocking(move || kept.keep_within(&folder, END, KEPT_BYTES_MAX)).await
    }

    fn setup_of(&self, task: &TaskRow, attempt: AttemptId, key: &str) -> Option<PathBuf> {
        let (Some(setup), Some(workspace)) = (&task.spec.setup, &task.spec.workspace) else { return None };
        let repository = setup.repository.as_deref()?;
        let is_seeding = task.state == TaskState::Running(attempt.attempt, Phase::Seeding);
        let keeps = is_seeding && !setup.keep.is_empty() && mayfly_library::pack::is_sha256(key);
        if !keeps || !self.is_only_key(attempt, key) {
            return None;
        }
        let place = place(&self.0.config.workspaces, [repository, &workspace.name], setup, key);
        self.0.kept.ask_for(&place, self.0.clock.now());
        Some(place)
    }

    fn is_only_key(&self, attempt: AttemptId, key: &str) -> bool {
        let mut keys = self.0.setup_keys.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.entry(attempt) {
            Entry::Vacant(none) => *none.insert(key.to_owned()) == key,
            Entry::Occupied(first) => first.get() == key,
        }
    }

    /// Forgets by which key a task's attempts asked.
    pub(crate) fn forget_setup_keys(&self, task: TaskId) {
        let mut keys = self.0.setup_keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|attempt, _| attempt.task != task);
    }
}

/// Nobody else's key leads there.
fn place(folder: &Path, whose: [&str; 2], setup: &Setup, key: &str) -> PathBuf {
    let mut digest = Sha256::new();
    let lists = [&setup.commands, &setup.lock_files, &setup.keep].map(|list| list.iter().map(String::as_str));
    let lists = lists.into_iter().flat_map(|list| std::iter::once("list").chain(list));
    for part in whose.into_iter().chain([key]).chain(lists) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    folder.join(format!("{}{END}", hex::encode(digest.finalize())))
}

/// Checks that a set-up which keeps something says for which repository.
///
/// # Errors
/// It does not.
pub fn check_kept(setup: &Setup) -> Result<(), SubmitError> {
    let words =
        "is missing: what is in `keep` is for one repository, so say which, such as by its URL or its path";
    require(setup.keep.is_empty() || setup.repository.is_some(), "setup.repository", words)
}

/// Checks what a set-up says.
///
/// # Errors
/// The first field that is not as it must be.
pub fn check_setup(setup: &Setup) -> Result<(), SubmitError> {
    let Setup { commands, lock_files, keep, repository, timeout_ms } = setup;
    for (field, list) in
        [("setup.commands", commands), ("setup.lock_files", lock_files), ("setup.keep", keep)]
    {
        let words = format!("has {} parts, and {SETUP_PARTS_MAX} are the most", list.len());
        require(list.len() <= SETUP_PARTS_MAX, field, &words)?;
    }
    require(!commands.is_empty(), "setup.commands", "names no command: leave the set-up out")?;
    let good = |command: &String| !command.trim().is_empty() && !command.contains('\0');
    require(
        commands.iter().all(good),
        "setup.commands",
        "has a command that is empty, or has a NUL byte in it",
    )?;
    let words =
        format!("has a command of more than {COMMAND_BYTES_MAX} bytes: put it into a file of the repository");
    let short = |command: &String| command.len() <= COMMAND_BYTES_MAX;
    require(commands.iter().all(short), "setup.commands", &words)?;
    let plain = |path: &String| is_plain(path) && path.split('/').all(|part| part != ".git");
    for (field, list) in [("setup.lock_files", lock_files), ("setup.keep", keep)] {
        require(
            list.iter().all(plain),
            field,
            "has what is no plain path in the repository, such as web/node_modules",
        )?;
    }
    let lengths = 1..=REPOSITORY_BYTES_MAX;
    let words = format!("must have 1 to {REPOSITORY_BYTES_MAX} bytes");
    let named = repository.as_ref().is_none_or(|named| lengths.contains(&named.len()));
    require(named, "setup.repository", &words)?;
    let times = 1..=TIMEOUT_MS_MAX;
    let words = format!("must be from 1 to {TIMEOUT_MS_MAX}, which is 168h");
    require(times.contains(timeout_ms), "setup.timeout_ms", &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> Setup {
        Setup {
            commands: vec!["npm ci".to_owned()],
            lock_files: vec!["package-lock.json".to_owned()],
            keep: vec!["web/node_modules".to_owned()],
            repository: Some("/home/me/app".to_owned()),
            timeout_ms: 1000,
        }
    }

    #[test]
    fn a_set_up_that_leads_out_of_the_repository_or_says_nothing_is_refused() {
        check_setup(&setup()).expect("good");
        let refused = |change: fn(&mut Setup)| {
            let mut setup = setup();
            change(&mut setup);
            check_setup(&setup).expect_err("refused").to_string()
        };
        for said in [
            refused(|setup| setup.keep = vec!["../x".to_owned()]),
            refused(|setup| setup.keep = vec!["/etc".to_owned()]),
            refused(|setup| setup.keep = vec![".git/hooks".to_owned()]),
            refused(|setup| setup.keep = vec!["a/.git".to_owned()]),
        ] {
            assert!(said.contains("setup.keep"), "{said}");
        }
        assert!(refused(|setup| setup.lock_files = vec!["a\nb".to_owned()]).contains("setup.lock_files"));
        assert!(refused(|setup| setup.commands = Vec::new()).contains("setup.commands"));
        assert!(refused(|setup| setup.commands = vec![" ".to_owned()]).contains("setup.commands"));
        assert!(refused(|setup| setup.commands = vec!["x".repeat(COMMAND_BYTES_MAX + 1)]).contains("16384"));
        assert!(refused(|setup| setup.commands = vec!["x".to_owned(); 33]).contains("33"));
        assert!(refused(|setup| setup.timeout_ms = 0).contains("setup.timeout_ms"));
        assert!(refused(|setup| setup.repository = Some(String::new())).contains("setup.repository"));
        check_kept(&setup()).expect("said");
        let unsaid = Setup { repository: None, ..setup() };
        assert!(check_kept(&unsaid).expect_err("refused").to_string().contains("setup.repository"));
        check_kept(&Setup { keep: Vec::new(), ..unsaid }).expect("nothing is kept");
    }

    /// I6: what one repository's commands made is nothing to another's, or to other commands.
    #[test]
    fn each_repository_and_set_of_commands_has_a_place_of_its_own() {
        let (folder, key) = (Path::new("/w"), "a".repeat(64));
        let mut others = vec![setup(); 4];
        others[1].commands.push("true".to_owned());
        others[2].keep = vec!["package-lock.json".to_owned(), "web/node_modules".to_owned()];
        others[2].lock_files = Vec::new();
        others[3].keep.clear();
        let mut places: Vec<_> = others.iter().map(|setup| place(folder, ["a", "x"], setup, &key)).collect();
        for (whose, key) in [(["b", "x"], &key), (["a", "y"], &key), (["a", "x"], &"b".repeat(64))] {
            places.push(place(folder, whose, &setup(), key));
        }
        let all = places.len();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), all);
    }
}
