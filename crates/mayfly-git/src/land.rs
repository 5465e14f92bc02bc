//! Takes back what a machine made: checked in quarantine, then one new branch, and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use mayfly_wire::worker::WORK_REF;

use crate::command::{Git, GitCommand, GitError};
use crate::snapshot::{Quarantine, init_bare};

impl Quarantine {
    /// Makes `branch` in the user's repository point to `head`, which the bundle holds. Every object is checked
    /// before the user's repository sees it. The branch must not exist; no tree and no other ref changes.
    pub async fn land(&self, bundle: &Path, head: &str, branch: &str) -> Result<(), GitError> {
        let landed = format!("refs/landed/{head}");
        fetch(self.git(), bundle, head, &landed).await?;
        // What the user has already need not travel; what is checked here enters as one pack.
        let wanted = format!("{head}\n^{}\n", self.repo.head);
        let pack = self.git_dir.join("landing.pack");
        let packing = self.git().args(["pack-objects", "--quiet", "--revs", "--stdout"]).input(wanted);
        packing.output_to(&pack)?.run().await?;
        let user = || self.repo.git.within(&self.repo.git_dir);
        let index = user().args(["index-pack", "--stdin", "--strict"]).input_from(&pack)?;
        index.run().await.map_err(refusal)?;
        let branch = format!("refs/heads/{branch}");
        let reason = ["update-ref", "-m", "mayfly: the work of a task"];
        let absent = "0".repeat(head.len());
        user().args(reason).args([&branch, head, &absent]).run().await.map(drop)
    }
}

/// Makes a new repository at `folder`, which must not exist, with the work of a bundle on `branch`. It is there
/// whole or not at all, also if this is given up half-way.
pub async fn unbundle(
    git: &Git,
    bundle: &Path,
    head: &str,
    folder: &Path,
    branch: &str,
) -> Result<(), GitError> {
    if fs::symlink_metadata(folder).is_ok() {
        return Err(GitError::file(folder)(io::ErrorKind::AlreadyExists.into()));
    }
    let beside = folder.parent().unwrap_or(Path::new("."));
    let unfinished = tempfile::Builder::new().prefix(".mayfly-").tempdir_in(beside);
    let unfinished = unfinished.map_err(GitError::file(beside))?;
    // One level down, so that its mode is the user's usual one.
    let made = unfinished.path().join("made");
    fs::create_dir(&made).map_err(GitError::file(&made))?;
    let git_dir = made.join(".git");
    let format = if head.len() == 64 { "sha256" } else { "sha1" };
    init_bare(git, &git_dir, format).await?;
    let inside = || git.within(&git_dir);
    let branch = format!("refs/heads/{branch}");
    fetch(inside(), bundle, head, &branch).await?;
    inside().args(["symbolic-ref", "HEAD", &branch]).run().await?;
    inside().args(["config", "core.bare", "false"]).run().await?;
    inside().work_tree(&made).args(["reset", "--quiet", "--hard"]).run().await?;
    fs::rename(&made, folder).map_err(GitError::file(folder))
}

/// Takes the bundle's work as `into`, with every object checked, and only if it is the announced commit.
pub(crate) async fn fetch(git: GitCommand, bundle: &Path, head: &str, into: &str) -> Result<(), GitError> {
    let found = bundle_head(bundle)?;
    if found != head {
        return Err(GitError::WrongHead { found, announced: head.to_owned() });
    }
    let refspec = format!("{WORK_REF}:{into}");
    let fetch =
        ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options"].map(OsStr::new);
    let git = git.config("fetch.fsckObjects", OsStr::new("true"));
    let git = git.args(fetch).args([bundle.as_os_str(), OsStr::new(&refspec)]);
    git.run().await.map(drop).map_err(refusal)
}

/// Tells a failed check of objects from what else can go wrong.
fn refusal(error: GitError) -> GitError {
    match error {
        GitError::Failed { said, .. } if said.contains("fsck error") => GitError::BadObject(said),
        other => other,
    }
}

/// What the bundle's header says of [`WORK_REF`]; the header is text and ends with an empty line.
fn bundle_head(bundle: &Path) -> Result<String, GitError> {
    use std::io::{BufRead as _, BufReader, Read as _};
    const HEADER_BYTES_MAX: u64 = 64 * 1024;
    let file = fs::File::open(bundle).map_err(GitError::file(bundle))?;
    let mut lines = BufReader::new(file.take(HEADER_BYTES_MAX)).split(b'\n');
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() {
            break;
        }
        let line = String::from_utf8_lossy(&line);
        if let Some((commit, WORK_REF)) = line.split_once(' ') {
            return Ok(commit.chars().filter(char::is_ascii_hexdigit).take(64).collect());
        }
    }
    Ok("nothing".to_owned())
}
