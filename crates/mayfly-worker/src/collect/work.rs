//! Makes the bundle: the agent's commits, and what it left uncommitted as one commit more.
//!
//! ```text
//! base ──► the agent's commits ──► HEAD ──► "Uncommitted work"
//!  └── not in the bundle ──┘└────────── in the bundle ───────┘
//! ```
//!
//! A git folder of our own borrows the objects of the base, and those of the agent's repository for as much
//! as they are whole. If its `HEAD` is of no use, all of the files still come out, as one commit on the base.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use mayfly_core::causes;
use mayfly_wire::api::Collected;
use mayfly_wire::worker::WORK_REF;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::git::{Git, GitError};
use super::nested::{Found, dissolve, look_through};
use crate::reaper::Reaper;

/// The message of the last commit.
const MESSAGE: &str = "Uncommitted work";
/// What is read of a file that names a commit.
const REF_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What there is to bundle.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) reaper: &'a Reaper,
    pub(crate) workspace: &'a Path,
    /// The commit that the agent began with; none is an empty folder.
    pub(crate) base: Option<&'a str>,
    /// The objects of the base, out of the agent's reach.
    pub(crate) base_objects: &'a Path,
    /// An empty folder of our own.
    pub(crate) scratch: &'a Path,
}

/// A bundle that was made.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) head: String,
    pub(crate) file: PathBuf,
}

impl Work<'_> {
    /// Makes it. `None`: nothing differs from the base. What is left out is told in `collected`.
    pub(crate) async fn bundle(
        &self,
        deadline: Instant,
        collected: &mut Collected,
    ) -> Result<Option<Bundle>, GitError> {
        let git = Git { reaper: self.reaper, folder: &self.scratch.join("git"), work_tree: self.workspace };
        self.init(&git, deadline).await?;
        let parent = self.parent(&git, deadline, collected).await;
        // Half of the time for the files; if they cannot be had, the commits still can.
        let files_by = Instant::now() + (deadline - Instant::now()) / 2;
        let head = match self.commit(&git, parent.as_deref(), files_by, collected).await {
            Ok(head) => head,
            Err(error) => {
                collected.unsaved.push(format!("uncommitted work: {}", causes(&error)));
                parent
            }
        };
        let Some(head) = head.filter(|head| Some(head.as_str()) != self.base) else { return Ok(None) };
        git.run(["update-ref", WORK_REF, &head], deadline).await?;
        let file = self.scratch.join("bundle");
        let without = self.base.map(|base| format!("^{base}"));
        let named = [Some(file.to_string_lossy().into_owned()), Some(WORK_REF.to_owned()), without];
        let arguments = ["bundle", "create", "--quiet"].map(|word| Some(word.to_owned()));
        git.run(arguments.into_iter().chain(named).flatten(), deadline).await?;
        Ok(Some(Bundle { head, file }))
    }

    async fn init(&self, git: &Git<'_>, deadline: Instant) -> Result<(), GitError> {
        // A SHA-256 repository names its commits with 64 digits.
        let sha256 = self.base.is_some_and(|base| base.len() == 64);
        let format = if sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
        git.run(["init", "--quiet", "--template=", format], deadline).await?;
        let agents = self.workspace.join(".git/objects");
        let owned = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let mut alternates = String::new();
        for objects in [self.base_objects, &agents].into_iter().filter(|path| owned(path)) {
            alternates.extend([&*objects.to_string_lossy(), "\n"]);
        }
        let written = fs::write(git.folder.join("objects/info/alternates"), alternates);
        written.map_err(|source| GitError::NotRun { verb: "init".to_owned(), source })
    }

    /// The commit to build on: the agent's `HEAD` if it and all that it needs are there, else the base.
    async fn parent(&self, git: &Git<'_>, deadline: Instant, collected: &mut Collected) -> Option<String> {
        let base = self.base.map(str::to_owned);
        let Some(head) = head(&self.workspace.join(".git")) else {
            if base.is_some() {
                collected.unsaved.push(
                    "the agent's commits, if it made any: HEAD of the workspace names no commit".to_owned(),
                );
            }
            return base;
        };
        let range = [Some(head.clone()), base.as_ref().map(|base| format!("^{base}"))];
        let walk = ["rev-list", "--objects", "--count"].map(|word| Some(word.to_owned()));
        match git.run(walk.into_iter().chain(range).flatten(), deadline).await {
            // Nothing of it is new: it is the base or before it, and what differs is in the files.
            Ok(count) if count == "0" => base,
            Ok(_) => Some(head),
            Err(error) => {
                collected.unsaved.push(format!("the agent's commits: {}", causes(&error)));
                base
            }
        }
    }

    /// Commits what the files have more than `parent`, and gives the last commit.
    async fn commit(
        &self,
        git: &Git<'_>,
        parent: Option<&str>,
        deadline: Instant,
        collected: &mut Collected,
    ) -> Result<Option<String>, GitError> {
        if let Some(parent) = parent {
            git.run(["read-tree", parent], deadline).await?;
        }
        let before = git.run(["write-tree"], deadline).await?;
        self.open_up(git, deadline, collected).await?;
        let added = git.run(["add", "--all", "--ignore-errors", "--", "."], deadline).await;
        match added {
            // It has added all it could, and says of what it could not.
            Err(GitError::Failed { complaint, .. }) => {
                collected.unsaved.push(format!("some files: {complaint}"));
            }
            added => drop(added?),
        }
        let tree = git.run(["write-tree"], deadline).await?;
        if tree == before {
            return Ok(parent.map(str::to_owned));
        }
        let mut arguments = vec!["commit-tree", "-m", MESSAGE];
        arguments.extend(parent.into_iter().flat_map(|parent| ["-p", parent]));
        arguments.push(&tree);
        git.run(arguments, deadline).await.map(Some)
    }

    /// Sees to it that git finds all files, and tells of what it cannot keep.
    async fn open_up(
        &self,
        git: &Git<'_>,
        deadline: Instant,
        collected: &mut Collected,
    ) -> Result<(), GitError> {
        let workspace = self.workspace.to_owned();
        let looked = timeout_at(deadline, spawn_blocking(move || look_through(&workspace))).await;
        let looked = looked.map_err(|_| GitError::Late { verb: "add".to_owned() })?;
        let Found { inner, lost } = looked.expect("looking does not panic");
        collected.unsaved.extend(lost);
        if !inner.is_empty() {
            let submodules = self.submodules(git, &inner, deadline).await?;
            dissolve(self.workspace, &inner, &submodules, collected);
        }
        Ok(())
    }

    /// Which of these folders are submodules of the commit to build on.
    async fn submodules(
        &self,
        git: &Git<'_>,
        folders: &[PathBuf],
        deadline: Instant,
    ) -> Result<HashSet<PathBuf>, GitError> {
        let fixed = ["ls-files", "--stage", "-z", "--"].map(OsStr::new);
        let arguments = fixed.into_iter().chain(folders.iter().map(|folder| folder.as_os_str()));
        let entries = git.run(arguments, deadline).await?;
        let submodules = entries.split('\0').filter(|entry| entry.starts_with("160000 "));
        Ok(submodules.filter_map(|entry| entry.split_once('\t').map(|(_, path)| path.into())).collect())
    }
}

/// The commit that `HEAD` names, read by hand, since git would read the repository's configuration too.
fn head(git: &Path) -> Option<String> {
    let head = text(&git.join("HEAD"))?;
    match head.trim_end().strip_prefix("ref: ") {
        None => commit(head.trim_end()),
        Some(name) => {
            let plain =
                name.starts_with("refs/") && !name.split('/').any(|part| part.is_empty() || part == "..");
            let loose = || text(&git.join(name)).and_then(|hex| commit(hex.trim_end()));
            plain.then(|| loose().or_else(|| packed(git, name)))?
        }
    }
}

fn packed(git: &Path, name: &str) -> Option<String> {
    let refs = text(&git.join("packed-refs"))?;
    let mut pairs = refs.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(_, named)| *named == name).and_then(|(hex, _)| commit(hex))
}

fn commit(hex: &str) -> Option<String> {
    let hexadecimal = [40, 64].contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| hex.to_owned())
}

/// A plain file's text, within its bound.
fn text(path: &Path) -> Option<String> {
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    fs::File::open(path).ok()?.take(REF_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}
