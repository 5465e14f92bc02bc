//! Tells whether a submodule is as it was handed over, so that nothing of it is lost with its machine.
//!
//! Its repository is the agent's making: it is read by hand, and its objects by a git folder of our own. Whatever cannot be
//! found out is a change. Bound: the caller's time.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::files::Tracked;
use super::git::{Git, GitError, not_run, object_format};
use super::refs::{Tip, Tips, head, text, tips};

/// A submodule of the workspace.
#[derive(Debug)]
pub(crate) struct Submodule<'a> {
    /// Its folder.
    pub(crate) path: &'a Path,
    /// The commit that the workspace's own names.
    pub(crate) commit: &'a str,
}

impl Submodule<'_> {
    /// Whether it is the same as in `base`: at its commit, with its files, and with no commit besides those that it was fetched
    /// with. `git` knows the workspace.
    pub(crate) async fn is_unchanged(&self, git: &Git<'_>, base: &str, deadline: Instant) -> bool {
        self.differs(git, base, deadline).await.is_ok_and(|differs| !differs)
    }

    async fn differs(&self, git: &Git<'_>, base: &str, deadline: Instant) -> Result<bool, GitError> {
        let mut in_base = OsString::from(format!("{base}:"));
        in_base.push(self.path);
        let asked = [OsString::from("rev-parse"), OsString::from("--verify"), in_base];
        let top = git.work_tree.join(self.path);
        let (handed_over, dot_git) = (git.run(asked, deadline).await?, git_folder(&top));
        let Some(dot_git) = dot_git.filter(|_| handed_over == self.commit) else { return Ok(true) };
        let read = move || (head(&dot_git), tips(&dot_git), dot_git.join("objects"));
        let (head, tips, objects) = spawn_blocking(read).await.expect("reading does not panic");
        if head.as_deref() != Some(self.commit) {
            return Ok(true);
        }
        let scratch = tempfile::tempdir_in(git.folder).map_err(not_run("init"))?;
        let own = Git { reaper: git.reaper, folder: &scratch.path().join("git"), work_tree: &top };
        own.run(["init", "--quiet", "--template=", object_format(self.commit)], deadline).await?;
        let borrowed = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
        fs::write(own.folder.join("objects/info/alternates"), borrowed).map_err(not_run("init"))?;
        Ok(self.has_commits(&own, tips, deadline).await? || self.has_changes(&own, deadline).await?)
    }

    /// Whether commits are named that came from nowhere else.
    async fn has_commits(&self, own: &Git<'_>, tips: Tips, deadline: Instant) -> Result<bool, GitError> {
        let fetched = |tip: &Tip| tip.name.starts_with("remotes/") || tip.name.starts_with("tags/");
        let (fetched, made): (Vec<_>, Vec<_>) = tips.named.into_iter().partition(fetched);
        let made = made.into_iter().map(|tip| tip.commit).chain(tips.left);
        let fetched = fetched.into_iter().map(|tip| tip.commit).chain([self.commit.to_owned()]);
        let list = ["rev-list", "--max-count=1"].map(str::to_owned).into_iter().chain(made);
        let not = fetched.map(|commit| format!("^{commit}"));
        Ok(!tips.lost.is_empty() || !own.run(list.chain(not), deadline).await?.is_empty())
    }

    /// Whether its files are others than those of its commit.
    async fn has_changes(&self, own: &Git<'_>, deadline: Instant) -> Result<bool, GitError> {
        own.run(["read-tree", self.commit], deadline).await?;
        let list = ["ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard"];
        let listed = own.list(&list, deadline).await?;
        Ok(!listed.whole || !listed.entries.is_empty() || self.has_inner(own, deadline).await?)
    }

    /// Whether there may be work in a submodule of its own, into which git does not look.
    async fn has_inner(&self, own: &Git<'_>, deadline: Instant) -> Result<bool, GitError> {
        let listed = own.list(&["ls-files", "-z", "--stage"], deadline).await?;
        let mut inner =
            listed.entries.iter().filter_map(|entry| Tracked::parse(entry)).filter(Tracked::is_submodule);
        let is_empty =
            |folder: PathBuf| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        Ok(!listed.whole || inner.any(|entry| !is_empty(own.work_tree.join(entry.path))))
    }
}

/// The git folder of a work tree: that in it, or the one that a file there names.
fn git_folder(top: &Path) -> Option<PathBuf> {
    let dot_git = top.join(".git");
    if dot_git.symlink_metadata().ok()?.is_dir() {
        return Some(dot_git);
    }
    Some(top.join(text(&dot_git)?.trim_end().strip_prefix("gitdir: ")?))
}
