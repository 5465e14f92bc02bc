//! Puts the work of an earlier task back: its files, and a repository that says of them what the earlier one said.
//!
//! ```text
//! base ──► commits ──► HEAD, on its branch          as `git log` shows it again
//!                        └──► "Uncommitted work"    its files lie there, and are uncommitted again
//! ```
//!
//! The files are those of the last commit, and only those that differ from the base are written. The index is as it was;
//! where that did not come out, it is that of `HEAD`, so what was staged is a change that is not, and a new file is
//! untracked again. Git works in the agent's own repository, which is still as it was handed over, with our flags and no
//! hook.

use std::collections::HashSet;
use std::path::Path;

use mayfly_core::causes;
use mayfly_wire::api::{Ref, Repository};
use mayfly_wire::worker::{OTHER_REFS, REFS_MAX, is_other_name};
use tokio::time::Instant;

use crate::collect::git::{Git, GitError, object_format};
use crate::reaper::Reaper;

/// Where commits are kept that no branch, tag or stash of the earlier repository held.
const KEPT: &str = "refs/mayfly/";
/// The branch of a repository that was just handed over.
const FIRST_BRANCH: &str = "refs/heads/main";

/// What a task left.
#[derive(Debug)]
pub(crate) struct Left<'a> {
    pub(crate) reaper: &'a Reaper,
    pub(crate) workspace: &'a Path,
    /// The commit that the workspace is at; none is an empty folder.
    pub(crate) base: Option<&'a str>,
    /// The commit whose files are to be there.
    pub(crate) head: &'a str,
    /// How the repository was left; none is none, where there is no base.
    pub(crate) repository: Option<&'a Repository>,
    pub(crate) bundle: &'a Path,
    /// A folder of our own.
    pub(crate) scratch: &'a Path,
    pub(crate) deadline: Instant,
}

impl Left<'_> {
    /// Puts it back; gives what could not be, a line each.
    pub(crate) async fn put_back(&self) -> Result<Vec<String>, GitError> {
        let own = self.workspace.join(".git");
        let is_repository = self.base.is_some() || self.repository.is_some();
        let folder = if is_repository { own } else { self.scratch.join("git") };
        let git = Git { reaper: self.reaper, folder: &folder, work_tree: self.workspace };
        if self.base.is_none() {
            let format = object_format(self.head);
            self.run(&git, &["init", "--quiet", "--template=", "--initial-branch=main", format]).await?;
        }
        self.run(&git, &["bundle", "unbundle", &self.bundle.to_string_lossy()]).await?;
        // Where that was all there was, it was in no file.
        let is_staged = |repository: &Repository| repository.index.as_deref() == Some(self.head);
        match self.base {
            _ if self.repository.is_some_and(is_staged) => {}
            Some(base) => drop(self.run(&git, &["read-tree", "-m", "-u", base, self.head]).await?),
            None => drop(self.run(&git, &["read-tree", "--reset", "-u", self.head]).await?),
        }
        if !is_repository {
            return Ok(Vec::new());
        }
        let mut lost = Vec::new();
        self.head(&git, &mut lost).await?;
        self.refs(&git, &mut lost).await?;
        Ok(lost)
    }

    /// Puts `HEAD` and the index where they were. Of an earlier worker nothing is known but the last commit.
    async fn head(&self, git: &Git<'_>, lost: &mut Vec<String>) -> Result<(), GitError> {
        let known = Repository {
            commit: Some(self.head.to_owned()),
            branch: Some("main".to_owned()),
            ..Repository::default()
        };
        let Repository { commit, branch, .. } = self.repository.unwrap_or(&known);
        let commit = match commit {
            Some(commit) if self.is_there(git, commit).await => Some(commit.as_str()),
            Some(commit) => {
                lost.push(format!(
                    "the commit `{commit}`, which HEAD was at, did not come out of its machine"
                ));
                self.base
            }
            None => None,
        };
        let branch = match branch {
            Some(branch) => self.branch(git, branch, lost).await,
            None => None,
        };
        match (&branch, commit) {
            (Some(branch), commit) => {
                if let Some(commit) = commit {
                    self.run(git, &["update-ref", branch, commit]).await?;
                }
                self.run(git, &["symbolic-ref", "HEAD", branch]).await?;
            }
            (None, Some(commit)) => drop(self.run(git, &["update-ref", "--no-deref", "HEAD", commit]).await?),
            (None, None) => {}
        }
        match commit {
            Some(commit) => self.run(git, &["read-tree", "--reset", commit]).await?,
            None => self.run(git, &["read-tree", "--empty"]).await?,
        };
        if let Some(index) = self.repository.and_then(|repository| repository.index.as_ref())
            && let Err(why) = if_commit(index, self.run(git, &["read-tree", "--reset", index])).await
        {
            lost.push(format!("that changes were staged: {why}"));
        }
        let main_was_there = self.repository.is_none_or(|repository| {
            repository.refs.len() == REFS_MAX
                || repository.refs.iter().any(|named| named.name == "heads/main")
        });
        if !main_was_there && branch.as_deref() != Some(FIRST_BRANCH) {
            self.run(git, &["update-ref", "-d", FIRST_BRANCH]).await?;
        }
        Ok(())
    }

    /// The ref of a branch, if it can be one.
    async fn branch(&self, git: &Git<'_>, name: &str, lost: &mut Vec<String>) -> Option<String> {
        let branch = format!("refs/heads/{name}");
        if self.run(git, &["check-ref-format", &branch]).await.is_ok() {
            return Some(branch);
        }
        lost.push(format!("the branch that HEAD was on: `{name}` is no name for one"));
        None
    }

    /// Gives the other commits their names again.
    async fn refs(&self, git: &Git<'_>, lost: &mut Vec<String>) -> Result<(), GitError> {
        let none = Repository::default();
        let Repository { refs, stash, .. } = self.repository.unwrap_or(&none);
        let mut named = HashSet::new();
        for Ref { name, commit } in refs.iter().take(REFS_MAX) {
            let whole = format!("refs/{name}");
            match if_commit(commit, self.run(git, &["update-ref", &whole, commit])).await {
                Ok(_) => drop(named.insert(commit.as_str())),
                Err(why) => lost.push(format!("`{name}`: {why}")),
            }
        }
        for commit in stash.iter().take(REFS_MAX).rev() {
            match if_commit(commit, self.stash(git, commit)).await {
                Ok(()) => drop(named.insert(commit)),
                Err(why) => lost.push(format!("the stashed `{commit}`: {why}")),
            }
        }
        let heads = self.run(git, &["bundle", "list-heads", &self.bundle.to_string_lossy()]).await?;
        for (commit, name) in heads.lines().filter_map(|line| line.split_once(' ')) {
            let Some(name) = name.strip_prefix(OTHER_REFS).filter(|name| is_other_name(name)) else {
                continue;
            };
            if named.insert(commit) {
                self.run(git, &["update-ref", &format!("{KEPT}{name}"), commit]).await?;
            }
        }
        Ok(())
    }

    async fn stash(&self, git: &Git<'_>, commit: &str) -> Result<(), GitError> {
        let subject = self.run(git, &["show", "--no-patch", "--format=%s", commit]).await?;
        self.run(git, &["stash", "store", "--message", &subject, commit]).await.map(drop)
    }

    async fn is_there(&self, git: &Git<'_>, commit: &str) -> bool {
        let name = format!("{commit}^{{commit}}");
        if_commit(commit, self.run(git, &["cat-file", "-e", &name])).await.is_ok()
    }

    async fn run(&self, git: &Git<'_>, arguments: &[&str]) -> Result<String, GitError> {
        git.run(arguments, self.deadline).await
    }
}

/// Does something with a commit, if its name is one: all else could be read as an option.
async fn if_commit<T>(name: &str, work: impl Future<Output = Result<T, GitError>>) -> Result<T, String> {
    if !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("it is no commit".to_owned());
    }
    work.await.map_err(|error| causes(&error))
}
