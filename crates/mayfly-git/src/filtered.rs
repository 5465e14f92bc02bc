//! Files that a filter of the user's git stands before, such as LFS.
//!
//! A filter is a program that the repository's configuration names, and none is run here: our git has taken such
//! a file as it is on the disk. For a file that is as old and as long as its index entry says, that is no change,
//! and the entry counts, as it does for the user's git. Any other is named to the user.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use crate::command::GitError;
use crate::snapshot::{Quarantine, Rules, paths};

/// Later than any file was written: no entry of an index of then is in doubt.
const LATER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// An entry of an index: mode and object, as git writes them, by path.
type Entries = HashMap<Vec<u8>, String>;

/// Puts the user's entries back for what is unchanged. Returns the files that were taken as they are.
pub(crate) async fn settle(quarantine: &Quarantine, rules: &Rules) -> Result<Vec<Vec<u8>>, GitError> {
    if rules.filters.is_empty() {
        return Ok(Vec::new());
    }
    let changed = filtered(quarantine, rules, added(quarantine).await?).await?;
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let users = users_entries(quarantine).await?;
    let unchanged = Unchanged::look(quarantine, rules).await?;
    let (mut back, mut taken) = (Vec::new(), Vec::new());
    for (path, entry) in changed {
        match users.get(&path) {
            // As the user has staged it.
            Some(users) if *users == entry => {}
            Some(users) if unchanged.has(&path) => {
                back.extend([users.as_bytes(), b" 0\t", path.as_slice(), b"\0"].concat());
            }
            _ => taken.push(path),
        }
    }
    let put = ["update-index", "-z", "--index-info"];
    quarantine.git().work_tree(&quarantine.repo.top).args(put).input(back).run().await?;
    taken.sort_unstable();
    Ok(taken)
}

/// What our index has that `HEAD` has not.
async fn added(quarantine: &Quarantine) -> Result<Entries, GitError> {
    let diff = ["diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", "--diff-filter=d"];
    let listed = quarantine.git().args(diff).args([&quarantine.repo.head]).run().await?;
    let listed = paths(&listed);
    let entry = |pair: &[Vec<u8>]| {
        // `:<old mode> <mode> <old object> <object> <status>`, then the path.
        let words = String::from_utf8_lossy(&pair[0]).into_owned();
        let words: Vec<&str> = words.split(' ').collect();
        Some((pair[1].clone(), format!("{} {}", words.get(1)?, words.get(3)?)))
    };
    Ok(listed.as_chunks::<2>().0.iter().filter_map(|pair| entry(pair)).collect())
}

/// Those of `entries` that the user's git would run a filter for.
async fn filtered(quarantine: &Quarantine, rules: &Rules, mut entries: Entries) -> Result<Entries, GitError> {
    let asked = entries.keys().flat_map(|path| [path.as_slice(), b"\0"].concat()).collect::<Vec<u8>>();
    let check = quarantine.at_work(rules).args(["check-attr", "-z", "--stdin", "filter"]).input(asked);
    let answers = paths(&check.run().await?);
    // Path, attribute and value.
    let mut has = HashSet::new();
    for [path, _, value] in answers.as_chunks::<3>().0 {
        if rules.filters.iter().any(|filter| filter.as_bytes() == value.as_slice()) {
            has.insert(path);
        }
    }
    entries.retain(|path, _| has.contains(path));
    Ok(entries)
}

async fn users_entries(quarantine: &Quarantine) -> Result<Entries, GitError> {
    let listing = quarantine.git().index(&quarantine.users_index()).args(["ls-files", "--stage", "-z"]);
    let listed = paths(&listing.run().await?);
    let entry = |line: &Vec<u8>| {
        let tab = line.iter().position(|&byte| byte == b'\t')?;
        let words = String::from_utf8_lossy(&line[..tab]).into_owned();
        // One that is in conflict is none.
        Some((line[tab + 1..].to_vec(), words.strip_suffix(" 0")?.to_owned()))
    };
    Ok(listed.iter().filter_map(entry).collect())
}

/// Which tracked files are as the user's index says, without a look into them.
struct Unchanged<'a> {
    quarantine: &'a Quarantine,
    /// Of another length or time.
    differ: HashSet<Vec<u8>>,
    /// When the index was written: a file that is as new may have changed since.
    written: SystemTime,
}

impl<'a> Unchanged<'a> {
    async fn look(quarantine: &'a Quarantine, rules: &Rules) -> Result<Self, GitError> {
        let index = quarantine.users_index();
        let error = || GitError::file(&index);
        let file = fs::File::options().append(true).open(&index).map_err(error())?;
        let written = file.metadata().and_then(|found| found.modified()).map_err(error())?;
        file.set_modified(SystemTime::now() + LATER).map_err(error())?;
        let git = quarantine.at_work(rules).index(&index);
        let git = git.config("core.checkStat", OsStr::new("minimal"));
        let git = git.config("core.trustCtime", OsStr::new("false"));
        let differ = paths(&git.args(["ls-files", "-z", "--modified"]).run().await?).into_iter().collect();
        Ok(Self { quarantine, differ, written })
    }

    fn has(&self, path: &[u8]) -> bool {
        let file = self.quarantine.repo.top.join(OsStr::from_bytes(path));
        let modified = fs::symlink_metadata(file).and_then(|found| found.modified());
        !self.differ.contains(path) && modified.is_ok_and(|modified| modified < self.written)
    }
}
