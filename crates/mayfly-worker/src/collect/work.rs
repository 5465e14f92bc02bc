//! Makes the bundle: the agent's commits, and what it left uncommitted as one commit more. What it committed
//! elsewhere has refs of its own: see [`others`](super::others).
//!
//! ```text
//! base ──► the agent's commits ──► HEAD ─┬─► "Uncommitted work"     all of the files: what lands
//!                                        └─► "Staged"               those of the index, for whoever goes on with it
//!  └── not in the bundle ──┘└────────── in the bundle ────────┘
//! ```
//!
//! A git folder of our own borrows the objects of the base, and those of the agent's repository for as much
//! as they are whole. If its `HEAD` is of no use, all of the files still come out, as one commit on the base.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mayfly_core::causes;
use mayfly_wire::api::Collected;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::bundle::Bundle;
use super::contents::Contents;
use super::files::{Files, some_of};
use super::git::{Git, GitError, not_run, object_format};
use super::nested::allow;
use super::others::{Other, Search};
use super::packing::Packing;
use super::refs::{Tips, head, repository, tips};
use crate::reaper::Reaper;
use crate::setup::made::Made;

/// The message of the commit that has the files of the index.
const STAGED: &str = "Staged";
/// The longest index that is read.
const INDEX_BYTES_MAX: u64 = 256 << 20;

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
    /// What the set-up commands made.
    pub(crate) made: &'a Made,
}

impl Work<'_> {
    /// Makes it. `None`: nothing differs from the base. What is left out is told in `collected`.
    pub(crate) async fn bundle(
        &self,
        deadline: Instant,
        collected: &mut Collected,
    ) -> Result<Option<Bundle>, GitError> {
        let git = Git { reaper: self.reaper, folder: &self.scratch.join("git"), work_tree: self.workspace };
        // If it does not work, git will say so.
        let _ = allow(self.workspace, 0o755);
        self.init(&git, deadline).await?;
        let parent = self.parent(&git, deadline, collected).await;
        let dot_git = self.workspace.join(".git");
        collected.repository =
            spawn_blocking(move || repository(&dot_git)).await.expect("reading does not panic");
        let contents = Contents::new(self.workspace, self.base.unwrap_or_default(), self.scratch);
        let contents = Arc::new(contents.map_err(not_run("update-index"))?);
        let (read_by, by) = (part(deadline, 3), part(deadline, 2));
        let (contents_of, base, made) = (Some(&contents), self.base, self.made);
        let files = Files { git: &git, base, read_by, deadline: by, contents: contents_of, made };
        let head = match files.commit(parent.as_deref(), collected).await {
            Ok(head) => head,
            Err(error) => {
                collected.unsaved.push(format!("uncommitted work: {}", causes(&error)));
                parent.clone()
            }
        };
        let dot_git = self.workspace.join(".git");
        let tips = spawn_blocking(move || tips(&dot_git)).await.expect("reading does not panic");
        let others = self.others(&git, tips, head.as_deref(), part(deadline, 4), collected).await;
        let staged = match self.staged(&git, parent.as_deref(), part(deadline, 4), collected).await {
            Ok(staged) => staged,
            Err(error) => {
                collected.notes.push(format!("that changes were staged is not kept: {}", causes(&error)));
                None
            }
        };
        let pack =
            Packing { git: &git, contents: &contents, base: self.base, scratch: self.scratch, deadline };
        let bundle = pack.bundle([head, parent], others, staged, collected).await?;
        if let Some(Bundle { head, staged: Some(staged), .. }) = &bundle {
            let only = self.only_staged(&git, staged, head, deadline).await.unwrap_or_default();
            if !only.is_empty() {
                let names = some_of(&only);
                let note = format!(
                    "staged, but in no file: `mayfly resume` finds it, and it does not land: {names}"
                );
                collected.notes.push(note);
            }
        }
        if let (Some(bundle), Some(repository)) = (&bundle, &mut collected.repository) {
            repository.index.clone_from(&bundle.staged);
        }
        Ok(bundle)
    }

    /// The files of the index whose content the work does not have.
    async fn only_staged(
        &self,
        git: &Git<'_>,
        staged: &str,
        head: &str,
        deadline: Instant,
    ) -> Result<Vec<String>, GitError> {
        // Of what is not wanted, git looks through all files only so: it is no commit that the wanted one is built on.
        let list = ["rev-list", "--objects-edge-aggressive", "--filter=object:type=blob"];
        let not = ["--filter-provided-objects", staged, &format!("^{head}")];
        let listed = git.run(list.into_iter().chain(not), deadline).await?;
        Ok(listed.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect())
    }

    /// A commit with the files of the agent's index. `None`: they are those of its `HEAD`, or it has none.
    async fn staged(
        &self,
        git: &Git<'_>,
        parent: Option<&str>,
        deadline: Instant,
        collected: &Collected,
    ) -> Result<Option<String>, GitError> {
        let Some(repository) = &collected.repository else { return Ok(None) };
        let before = if let Some(commit) = &repository.commit {
            let tree = git.run(["rev-parse", "--verify", &format!("{commit}^{{tree}}")], deadline).await;
            // That it is not there has been told, and without it nobody goes on from it.
            let Ok(tree) = tree else { return Ok(None) };
            tree
        } else if repository.branch.is_some() {
            git.run(["read-tree", "--empty"], deadline).await?;
            git.run(["write-tree"], deadline).await?
        } else {
            // Such a `HEAD` names nothing, which has been told.
            return Ok(None);
        };
        // Ours is not needed any more.
        let (from, to) = (self.workspace.join(".git/index"), git.folder.join("index"));
        let copied = spawn_blocking(move || copy_index(&from, &to)).await.expect("copying does not panic");
        if !copied.map_err(not_run("write-tree"))? {
            return Ok(None);
        }
        let tree = git.run(["write-tree"], deadline).await?;
        if tree == before {
            return Ok(None);
        }
        let parent = parent.into_iter().flat_map(|parent| ["-p", parent]);
        let arguments = ["commit-tree", "-m", STAGED].into_iter().chain(parent).chain([&*tree]);
        git.run(arguments, deadline).await.map(Some)
    }

    /// The agent's commits, of those that it has named, that `head` does not hold.
    pub(crate) async fn others(
        &self,
        git: &Git<'_>,
        tips: Tips,
        head: Option<&str>,
        deadline: Instant,
        collected: &mut Collected,
    ) -> Vec<Other> {
        let known = head.into_iter().chain(self.base).map(str::to_owned).collect();
        Search { git, deadline, known, seen: HashSet::new() }.run(tips, collected).await
    }

    pub(crate) async fn init(&self, git: &Git<'_>, deadline: Instant) -> Result<(), GitError> {
        let format = object_format(self.base.unwrap_or_default());
        git.run(["init", "--quiet", "--template=", format], deadline).await?;
        self.borrow_objects(git)
    }

    /// Has the git folder read the objects that are there now.
    pub(crate) fn borrow_objects(&self, git: &Git<'_>) -> Result<(), GitError> {
        let agents = self.workspace.join(".git/objects");
        let owned = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let mut alternates = String::new();
        for objects in [self.base_objects, &agents].into_iter().filter(|path| owned(path)) {
            alternates.extend([&*objects.to_string_lossy(), "\n"]);
        }
        let written = fs::write(git.folder.join("objects/info/alternates"), alternates);
        written.map_err(not_run("init"))
    }

    /// The commit to build on: the agent's `HEAD` if it and all that it needs are there, else the base.
    pub(crate) async fn parent(
        &self,
        git: &Git<'_>,
        deadline: Instant,
        collected: &mut Collected,
    ) -> Option<String> {
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
}

/// Copies an index, which an agent may have made anything of. `false`: there is none.
fn copy_index(from: &Path, to: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match openat(CWD, from, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        opened => fs::File::from(opened?),
    };
    let is = file.metadata()?;
    if !is.is_file() || is.len() > INDEX_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "its index is no file, or too long"));
    }
    io::copy(&mut file, &mut fs::File::create(to)?)?;
    Ok(true)
}

/// The end of a part of the time that is left.
pub(super) fn part(deadline: Instant, of: u32) -> Instant {
    let now = Instant::now();
    now + (deadline - now) / of
}
