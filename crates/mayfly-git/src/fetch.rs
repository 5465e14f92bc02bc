//! Brings one commit of a repository elsewhere into a folder of files: what the user asked for, and nothing that it runs.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::command::{Git, GitCommand, GitError};
use crate::snapshot::init_bare;

/// How a repository may be reached, besides as a file.
const WAYS: [&str; 2] = ["https", "ssh"];

/// Lets git go these ways.
pub(crate) fn allow_ways(command: GitCommand) -> GitCommand {
    WAYS.iter()
        .fold(command, |command, way| command.config(&format!("protocol.{way}.allow"), OsStr::new("always")))
}

/// Fetches what `HEAD` of `url` is now, without its history, into a bare repository `git_dir`, and lays its files out
/// in `top`. Neither is there yet. git gets the variables `ways` besides its own, by which the user reaches others.
///
/// Its hooks, filters and submodules have no part in it, and links in it stay links.
pub async fn fetch<'a>(
    git: &Git,
    url: &str,
    git_dir: &Path,
    top: &Path,
    ways: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
) -> Result<(), GitError> {
    init_bare(git, git_dir, "sha1").await?;
    fs::create_dir(top).map_err(GitError::file(top))?;
    let fetching =
        git.within(git_dir).bounded().passing(ways).config("transfer.fsckObjects", OsStr::new("true"));
    let args = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", url, "HEAD"];
    allow_ways(fetching).args(args).run().await?;
    let files = git.within(git_dir).bounded().work_tree(top);
    files.args(["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"]).run().await.map(drop)
}
