//! Finds the user's repository without asking its configuration where it is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Git, GitError};

/// A repository of the user's that has files and at least one commit.
#[derive(Debug, Clone)]
pub struct Repo {
    /// Its top folder.
    pub top: PathBuf,
    /// A plain name for it: the top folder's, with anything but `A-Z a-z 0-9 . _ -` replaced.
    pub name: String,
    /// The commit to start from, in hex: what `HEAD` names, unless another was asked for.
    pub head: String,
    /// Whether that is all, and what is not committed does not count.
    pub(crate) at_commit: bool,
    /// The git directory of this work tree.
    pub(crate) git_dir: PathBuf,
    /// The git directory with the objects; another one for a linked work tree.
    pub(crate) common_dir: PathBuf,
    pub(crate) git: Git,
}

impl Repo {
    /// The repository that holds `path`.
    pub async fn discover(git: &Git, path: &Path) -> Result<Self, GitError> {
        let path = fs::canonicalize(path).map_err(GitError::file(path))?;
        let top = find_top(&path)?;
        // Named outright: `core.worktree` of the repository has no say.
        let dot_git = top.join(".git");
        let ask = |args: &[&str]| git.within(&dot_git).work_tree(&top).args(args).line();
        let git_dir = ask(&["rev-parse", "--absolute-git-dir"]).await?;
        let common_dir = ask(&["rev-parse", "--path-format=absolute", "--git-common-dir"]).await?;
        let head = match ask(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await {
            Err(GitError::Failed { .. }) => return Err(GitError::NoCommit(top)),
            head => head?,
        };
        let name = plain_name(&top);
        let (git_dir, common_dir) = (git_dir.into(), common_dir.into());
        Ok(Self { top, name, head, at_commit: false, git_dir, common_dir, git: git.clone() })
    }

    /// The same at another commit: a branch, a tag, or whatever else git takes for one. What is not committed does not
    /// count then.
    pub async fn at(self, revision: &str) -> Result<Self, GitError> {
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
        let git = self.git.within(&self.git_dir).args(args);
        match git.args([format!("{revision}^{{commit}}")]).line().await {
            Ok(head) => Ok(Self { head, at_commit: true, ..self }),
            Err(GitError::Failed { .. }) => Err(GitError::NoRevision {
                place: self.top.display().to_string(),
                revision: revision.to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Whether the commit to start from is all, and what is not committed does not count.
    pub fn is_at_commit(&self) -> bool {
        self.at_commit
    }

    /// Whether it has that commit.
    pub async fn has(&self, commit: &str) -> bool {
        let git = self.git.within(&self.git_dir);
        git.args(["cat-file", "-e", &format!("{commit}^{{commit}}")]).run().await.is_ok()
    }
}

/// The nearest folder above that has a `.git`; a bare repository on the way is named as such.
fn find_top(path: &Path) -> Result<PathBuf, GitError> {
    for folder in path.ancestors() {
        if folder.join(".git").exists() {
            return Ok(folder.to_owned());
        }
        if folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir() {
            return Err(GitError::Bare(folder.to_owned()));
        }
    }
    Err(GitError::NoRepository(path.to_owned()))
}

/// A folder's name as it may stand under `/workspace`.
pub(crate) fn plain_name(top: &Path) -> String {
    let name = top.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).take(100).collect();
    match name.trim_start_matches(['.', '-']) {
        "" => "repository".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gets_a_plain_name() {
        for (top, name) in
            [("/x/mayfly", "mayfly"), ("/x/.dots", "dots"), ("/", "repository"), ("/x/ä b$(c)", "b--c-")]
        {
            assert_eq!(plain_name(Path::new(top)), name);
        }
    }
}
