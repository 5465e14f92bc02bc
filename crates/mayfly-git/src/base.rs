//! Prepares the user's repository for work that comes home later: its branch, and what the work builds on.

use std::ffi::OsStr;
use std::path::Path;

use crate::command::{GitCommand, GitError};
use crate::repo::Repo;
use crate::snapshot::Quarantine;

/// Where a repository of ours holds the commit that a task started from: a bundle is taken only on top of what a
/// ref holds.
pub(crate) const BASE_REF: &str = "refs/heads/base";

impl Repo {
    /// A quarantine for work that started from this repository at some other time. `scratch` is an empty folder that
    /// must live as long.
    pub async fn quarantine(&self, scratch: &Path) -> Result<Quarantine, GitError> {
        Quarantine::create(self, scratch).await
    }

    /// Checks that `branch` can be made: its name is one, and nothing is in its way.
    pub async fn check_branch(&self, branch: &str) -> Result<(), GitError> {
        let ask = || self.git.within(&self.git_dir);
        let name = format!("refs/heads/{branch}");
        if branch.starts_with('-') || ask().args(["check-ref-format", &name]).run().await.is_err() {
            return Err(GitError::BadBranch(branch.to_owned()));
        }
        // A branch `a` rules out any `a/b`, and the other way round.
        let folders = branch.match_indices('/').map(|(at, _)| format!("refs/heads/{}", &branch[..at]));
        let mut heads = vec!["for-each-ref".to_owned(), "--format=%(refname)".to_owned(), name.clone()];
        heads.extend(folders.clone());
        let found = ask().args(&heads).run().await?;
        let found = String::from_utf8_lossy(&found);
        let inside = format!("{name}/");
        let in_the_way = |there: &&str| {
            **there == name || there.starts_with(&inside) || folders.clone().any(|f| f == **there)
        };
        match found.lines().find(in_the_way) {
            Some(there) if there == name => Err(GitError::Exists(branch.to_owned())),
            Some(there) => Err(GitError::Taken {
                there: there.trim_start_matches("refs/heads/").to_owned(),
                wanted: branch.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

impl Quarantine {
    /// Makes work on top of `base` welcome, if the user's repository has that commit. `false`: it must be
    /// [taken in](Self::start_from) first.
    pub async fn starts_from(&self, base: &str) -> Result<bool, GitError> {
        let there = self.git().args(["cat-file", "-e", &format!("{base}^{{commit}}")]).run().await.is_ok();
        if there {
            hold(self.git(), base).await?;
        }
        Ok(there)
    }

    /// Takes in the commit that work is on top of, out of the bundle that was handed over with the task. What shares
    /// no commit with the user's `HEAD` is the work of another repository, and is refused.
    pub async fn start_from(&self, bundle: &Path, base: &str) -> Result<(), GitError> {
        take_base(|| self.git(), bundle, base).await?;
        let related = self.git().args(["merge-base", base, &self.repo.head]).run().await;
        related.map(drop).map_err(|_| GitError::Unrelated(self.repo.top.clone()))
    }
}

/// Takes the commit `base` out of a bundle that the user handed over. Its objects enter as they are: the user's
/// history may have what `git fsck` does not like today.
pub(crate) async fn take_base(
    git: impl Fn() -> GitCommand,
    bundle: &Path,
    base: &str,
) -> Result<(), GitError> {
    let unbundle = ["bundle", "unbundle"].map(OsStr::new);
    git().args(unbundle).args([bundle.as_os_str()]).run().await?;
    hold(git(), base).await
}

async fn hold(git: GitCommand, base: &str) -> Result<(), GitError> {
    git.args(["update-ref", BASE_REF, base]).run().await.map(drop)
}
