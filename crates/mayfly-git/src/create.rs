//! Makes a repository of files that are already there.

use std::path::Path;

use crate::command::{Git, GitError};
use crate::snapshot::init_bare;

/// Makes a git repository of `folder`, with all files in it as the one commit of its branch `main`.
pub async fn create(git: &Git, folder: &Path, message: &str) -> Result<(), GitError> {
    let git_dir = folder.join(".git");
    init_bare(git, &git_dir, "sha1").await?;
    let inside = || git.within(&git_dir);
    inside().args(["symbolic-ref", "HEAD", "refs/heads/main"]).run().await?;
    inside().args(["config", "core.bare", "false"]).run().await?;
    inside().work_tree(folder).args(["add", "--all", "--", "."]).run().await?;
    inside().work_tree(folder).args(["commit", "--quiet", "-m", message]).run().await.map(drop)
}
