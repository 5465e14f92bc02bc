//! What a task made, to be looked at or put onto files: in a bare repository of our own, which needs none of the
//! user's.
//!
//! The configuration in force is ours also where files of the user's are written: no filter, no hook and no other
//! program of a repository is started. Git itself refuses paths that lead out of the tree, through a symbolic link,
//! or into a `.git`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use mayfly_wire::worker::{UNCOMMITTED, is_commit};

use crate::base::{Base, take_base};
use crate::changes::{Changes, submodules, with_others};
use crate::command::{Git, GitCommand, GitError, PATCH_BYTES_MAX};
use crate::hooks::Hooks;
use crate::land::{Other, fetch};
use crate::repo::Repo;
use crate::snapshot::{init_bare, object_format};

/// The work of one task.
#[derive(Debug)]
pub struct Work {
    git: Git,
    git_dir: PathBuf,
    /// The commit that it started from, or the empty tree.
    from: String,
    head: String,
    /// What is in the bundle beside it.
    others: Vec<Other>,
}

impl Work {
    /// Takes the work out of its bundle, with every object checked, on top of what it started from; without a `base`
    /// it started from nothing. `scratch` is an empty folder that must live as long.
    pub async fn open(
        git: &Git,
        scratch: &Path,
        base: Option<Base<'_>>,
        bundle: &Path,
        head: &str,
    ) -> Result<Self, GitError> {
        let git_dir = scratch.join("work.git");
        let format = object_format(head.len());
        init_bare(git, &git_dir, format).await?;
        let inside = || git.within(&git_dir);
        let from = match base {
            Some(base) => {
                take_base(inside, base).await?;
                base.commit.to_owned()
            }
            None => inside().args(["hash-object", "-t", "tree", "--stdin"]).line().await?,
        };
        let others = fetch(inside(), bundle, head, &format!("refs/landed/{head}")).await?;
        Ok(Self { git: git.clone(), git_dir, from, head: head.to_owned(), others })
    }

    /// The same in a repository of ours that borrows what the user's has. `None`: that does not have the commit `base`.
    pub async fn open_on(
        repo: &Repo,
        scratch: &Path,
        base: &str,
        bundle: &Path,
        head: &str,
    ) -> Result<Option<Self>, GitError> {
        let quarantine = repo.quarantine(scratch).await?;
        if !quarantine.starts_from(base).await? {
            return Ok(None);
        }
        let others = fetch(quarantine.git(), bundle, head, &format!("refs/landed/{head}")).await?;
        let (git, git_dir) = (repo.git.clone(), quarantine.git_dir);
        Ok(Some(Self { git, git_dir, from: base.to_owned(), head: head.to_owned(), others }))
    }

    /// The commit that the agent itself was at: that of the work, or the one below where that has what was not committed.
    pub async fn committed(&self) -> Result<String, GitError> {
        let shown = self.inside().args(["log", "-1", "--format=%P %s", &self.head]).line().await?;
        let below = shown.strip_suffix(UNCOMMITTED).map(str::trim_end).filter(|below| is_commit(below));
        Ok(below.unwrap_or(&self.head).to_owned())
    }

    /// What was changed, file by file, and what of the commits beside it would run later. `hooks` are those of the repository
    /// that it is for.
    pub async fn changes(&self, hooks: &Hooks) -> Result<Changes, GitError> {
        with_others(|| self.inside(), &self.from, &self.head, &self.others, hooks).await
    }

    /// The names of the commits beside it, which neither a diff nor a patch has.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(|other| &*other.name)
    }

    /// The paths of the submodules whose commit was changed. No file holds that, and [`apply`](Self::apply) passes them over.
    pub async fn submodules(&self) -> Result<Vec<String>, GitError> {
        submodules(self.inside(), &self.from, &self.head).await
    }

    /// Writes what was changed to `to`, for reading.
    pub async fn diff(&self, to: &Path) -> Result<(), GitError> {
        self.write(&[], to).await
    }

    /// Writes what was changed to `to` as `git apply` takes it: whole, the content of binary files too.
    pub async fn patch(&self, to: &Path) -> Result<(), GitError> {
        self.write(&["--binary", "--full-index"], to).await
    }

    /// A small bundle can hold changes of any length.
    async fn write(&self, how: &[&str], to: &Path) -> Result<(), GitError> {
        match self.compare(how).write_at_most(to, PATCH_BYTES_MAX).await? {
            true => Ok(()),
            false => Err(GitError::TooMuchText),
        }
    }

    /// Puts a [patch](Self::patch) onto the files of `repo`, wholly or not at all: git looks at every file before it touches
    /// the first. Killed after that, it leaves some as they were, some new, one perhaps cut off, and those missing that it was
    /// about to write: it takes all old ones away before it writes the first new one. Neither its index nor any ref changes.
    /// The ends of lines are those that the user's git gives them.
    pub async fn apply(&self, patch: &Path, repo: &Repo) -> Result<(), GitError> {
        let apply = ["apply", "--whitespace=nowarn"].map(OsStr::new);
        let (settings, _) = repo.settings().await?;
        let onto = self.inside().bounded().work_tree(&repo.top);
        let onto = settings.iter().fold(onto, |git, (key, value)| git.config(key, OsStr::new(value)));
        onto.args(apply).args([patch.as_os_str()]).run().await.map(drop).map_err(|error| match error {
            GitError::Failed { said, .. } => GitError::NoFit { top: repo.top.clone(), said },
            other => other,
        })
    }

    fn compare(&self, how: &[&str]) -> GitCommand {
        let plain = ["diff", "--no-ext-diff", "--no-textconv", "--no-color"];
        self.inside().bounded().args(plain).args(how).args([&self.from, &self.head]).args(["--"])
    }

    fn inside(&self) -> GitCommand {
        self.git.within(&self.git_dir)
    }
}
