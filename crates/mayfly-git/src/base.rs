//! Prepares the user's repository for work that comes home later: its branch, and what the work builds on.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mayfly_wire::worker::{CUT_REFS, CUTS_MAX, shallow};

use crate::command::{Git, GitCommand, GitError};
use crate::repo::Repo;
use crate::snapshot::{Quarantine, SHALLOW, init_bare, object_format};

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
    /// The commits that the user's work is on top of, the newest first: at most `most`.
    pub async fn history(&self, most: usize) -> Result<Vec<String>, GitError> {
        let list = ["rev-list".to_owned(), format!("--max-count={most}"), self.repo.head.clone()];
        let listed = self.git().args(list).run().await?;
        Ok(String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect())
    }

    /// Writes `commit` as a bundle, `to`: with its whole history, as far as it is here, or with what is on top of the commit
    /// `on`.
    pub async fn bundle(&self, commit: &str, on: Option<&str>, to: &Path) -> Result<(), GitError> {
        hold(self.git(), commit).await?;
        let mut names = Vec::new();
        for cut in self.cuts(commit).await? {
            let name = format!("{CUT_REFS}{cut}");
            self.git().args(["update-ref", &name, commit]).run().await?;
            names.push(name);
        }
        bundle(self.git(), &names, on, to).await
    }

    /// Whether a part of its history is not here, nor in the user's repository.
    pub async fn is_cut_off(&self, commit: &str) -> Result<bool, GitError> {
        Ok(!self.cuts(commit).await?.is_empty())
    }

    /// The commits of its history whose parents are not here.
    async fn cuts(&self, commit: &str) -> Result<Vec<String>, GitError> {
        let file = self.git_dir.join(SHALLOW);
        let cut = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(GitError::file(&file))?,
        };
        let cut: HashSet<&str> = cut.lines().collect();
        let first = self.git().args(["rev-list", "--max-parents=0", commit]).run().await?;
        let first = String::from_utf8_lossy(&first);
        let cuts: Vec<_> = first.lines().filter(|commit| cut.contains(commit)).map(str::to_owned).collect();
        if cuts.len() > CUTS_MAX { Err(GitError::TooManyCuts(cuts.len())) } else { Ok(cuts) }
    }

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
    pub async fn start_from(&self, bundle: &Path, commit: &str) -> Result<(), GitError> {
        let refs = unbundle(|| self.git(), Base { bundle, commit, on: None }).await?;
        // Where a history is cut off that goes on from there in the user's repository, or ends there as well.
        for cut in shallow(&refs).iter().flat_map(|cuts| cuts.lines()) {
            if !self.repo.has(cut).await {
                return Err(GitError::CutOff { repo: self.repo.top.clone(), commit: commit.to_owned() });
            }
        }
        hold(self.git(), commit).await?;
        let related = self.git().args(["merge-base", commit, &self.repo.head]).run().await;
        related.map(drop).map_err(|_| GitError::Unrelated(self.repo.top.clone()))
    }
}

/// What a task started from.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The bundle that was handed over.
    pub bundle: &'a Path,
    /// Its commit, in hex.
    pub commit: &'a str,
    /// The bundle that it is on top of; none is one that holds all.
    pub on: Option<&'a Path>,
}

/// Takes a commit out of a bundle that the user handed over, and tells git where its history is cut off.
pub(crate) async fn take_base(git: impl Fn() -> GitCommand, base: Base<'_>) -> Result<(), GitError> {
    let refs = unbundle(&git, base).await?;
    if let Some(cut) = shallow(&refs) {
        let file = git().args(["rev-parse", "--path-format=absolute", "--git-path", SHALLOW]).line().await?;
        let file = PathBuf::from(file);
        fs::write(&file, cut).map_err(GitError::file(&file))?;
    }
    hold(git(), base.commit).await
}

/// Takes the objects, as they are: the user's history may have what `git fsck` does not like today. Gives a line for each
/// ref.
async fn unbundle(git: impl Fn() -> GitCommand, base: Base<'_>) -> Result<String, GitError> {
    let unbundle = async |bundle: &Path| {
        let unbundle = ["bundle", "unbundle"].map(OsStr::new);
        git().args(unbundle).args([bundle.as_os_str()]).run().await
    };
    if let Some(on) = base.on {
        // A line with the commit and the name of each ref.
        let heads = unbundle(on).await?;
        let commit = heads.split(|&byte| byte == b' ').next().unwrap_or_default();
        hold(git(), &String::from_utf8_lossy(commit)).await?;
    }
    let refs = unbundle(base.bundle).await?;
    Ok(String::from_utf8_lossy(&refs).into_owned())
}

/// Writes all of what a task started from as one bundle, `to`. `scratch` is an empty folder.
pub async fn whole(git: &Git, scratch: &Path, base: Base<'_>, to: &Path) -> Result<(), GitError> {
    let git_dir = scratch.join("whole.git");
    let format = object_format(base.commit.len());
    init_bare(git, &git_dir, format).await?;
    take_base(|| git.within(&git_dir), base).await?;
    bundle(git.within(&git_dir), &[], None, to).await
}

/// Writes what [`BASE_REF`] holds as a bundle, with more names for it: all of it, or what is on top of a commit.
async fn bundle(git: GitCommand, names: &[String], on: Option<&str>, to: &Path) -> Result<(), GitError> {
    // By one thread, so that the same history makes the same bytes.
    let git = git.config("pack.threads", OsStr::new("1"));
    let create = ["bundle", "create", "--quiet"].map(OsStr::new);
    let git = git.args(create).args([to.as_os_str(), OsStr::new(BASE_REF)]).args(names);
    git.args(on.map(|on| format!("^{on}"))).run().await.map(drop)
}

async fn hold(git: GitCommand, base: &str) -> Result<(), GitError> {
    git.args(["update-ref", BASE_REF, base]).run().await.map(drop)
}
