//! What a task changed, file by file.
//!
//! Bound: [`FILES_MAX`] files are named; of the others it is told how many there are, and whether any of them would run.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use crate::command::{Git, GitCommand, GitError};
use crate::entries::Entries;
use crate::flags::flag;
use crate::hooks::Hooks;
use crate::land::{Other, heads};

/// The most files that are named, and as many more of those that would run, of the work and of each commit beside it.
pub const FILES_MAX: usize = 1000;
/// The longest path that is taken for one.
const PATH_BYTES_MAX: usize = 64 * 1024;

/// What was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the order of their paths.
    pub files: Vec<Change>,
    /// How many there are.
    pub count: usize,
    /// Those that would run later by themselves, also of those that are not named above.
    pub flagged: Vec<Flagged>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Below the top folder: any bytes, shown as text.
    pub path: String,
    /// The lines that were added and removed; none for what has no lines.
    pub lines: Option<(u64, u64)>,
}

/// A file that would run later, by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flagged {
    /// The name of the commit beside the work that has it; none is the work.
    pub beside: Option<String>,
    /// Its path.
    pub path: String,
    /// What it is.
    pub words: &'static str,
}

/// What `head` has other than `from`, which is a commit; none is an empty folder. Of the commits beside it in `bundle` it
/// is told what would run later. `git_dir` is a repository of ours that has taken the bundle, and has no hooks.
pub async fn changes(
    git: &Git,
    git_dir: &Path,
    from: Option<&str>,
    head: &str,
    bundle: &Path,
) -> Result<Changes, GitError> {
    let inside = || git.within(git_dir);
    let from = match from {
        Some(from) => from.to_owned(),
        None => inside().args(["hash-object", "-t", "tree", "--stdin"]).line().await?,
    };
    with_others(inside, &from, head, &heads(bundle)?.others, &Hooks::default()).await
}

/// What `head` has other than `from`, and what of the others would run later that is not in `head` just so.
pub(crate) async fn with_others(
    inside: impl Fn() -> GitCommand,
    from: &str,
    head: &str,
    others: &[Other],
    hooks: &Hooks,
) -> Result<Changes, GitError> {
    let mut changes = between(inside(), from, head, hooks).await?;
    for Other { name, commit } in others {
        let mut flagged = between(inside(), from, commit, hooks).await?.flagged;
        if !flagged.is_empty() {
            let other = between(inside(), head, commit, hooks).await?.flagged;
            let other_paths: HashSet<&str> = other.iter().map(|file| &*file.path).collect();
            // Of more than are named it is not known which.
            flagged.retain(|file| other.len() == FILES_MAX || other_paths.contains(&*file.path));
        }
        let beside = |of| Flagged { beside: Some(name.clone()), ..of };
        changes.flagged.extend(flagged.into_iter().map(beside));
    }
    Ok(changes)
}

async fn between(git: GitCommand, from: &str, head: &str, hooks: &Hooks) -> Result<Changes, GitError> {
    let mut changes = Changes::default();
    differences(git, "--numstat", [from, head], |entry| changes.take(entry, hooks)).await?;
    Ok(changes)
}

/// The paths of the submodules of which `head` names another commit than `from`, or which one of them has alone; at most
/// [`FILES_MAX`].
pub(crate) async fn submodules(git: GitCommand, from: &str, head: &str) -> Result<Vec<String>, GitError> {
    let (mut paths, mut is_one) = (Vec::new(), false);
    // `:<mode> <mode> <object> <object> <status>`, and then the path.
    differences(git, "--raw", [from, head], |entry| match entry.strip_prefix(b":") {
        Some(modes) => is_one = modes.split(|&byte| byte == b' ').take(2).any(|mode| mode == b"160000"),
        None if is_one && paths.len() < FILES_MAX => {
            paths.push(String::from_utf8_lossy(entry).into_owned());
        }
        None => {}
    })
    .await?;
    Ok(paths)
}

/// Gives `each` the entries in which git tells what two commits differ in.
async fn differences(
    git: GitCommand,
    how: &str,
    of: [&str; 2],
    mut each: impl FnMut(&[u8]),
) -> Result<(), GitError> {
    let plain = ["diff", how, "-z", "--no-renames", "--no-ext-diff", "--no-textconv"];
    let mut entries = Entries::default();
    let read = git.bounded().args(plain).args(of).args(["--"]).read(|piece| {
        let under_way = entries.take(piece, &mut each);
        if under_way > PATH_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match read.await? {
        true => Ok(()),
        false => Err(GitError::Failed { what: "diff".to_owned(), said: "a path is too long".to_owned() }),
    }
}

impl Changes {
    /// Takes `<added>\t<removed>\t<path>`.
    fn take(&mut self, entry: &[u8], hooks: &Hooks) {
        let mut fields = entry.splitn(3, |&byte| byte == b'\t');
        let (Some(added), Some(removed), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            return;
        };
        let shown = || String::from_utf8_lossy(path).into_owned();
        self.count += 1;
        if self.files.len() < FILES_MAX {
            self.files.push(Change { path: shown(), lines: number(added).zip(number(removed)) });
        }
        if let Some(words) = flag(path, hooks).filter(|_| self.flagged.len() < FILES_MAX) {
            self.flagged.push(Flagged { beside: None, path: shown(), words });
        }
    }
}

/// A number of lines, or `-`.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
