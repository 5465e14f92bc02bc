//! What a machine handed over while it worked, in parts: each a pack of the objects that those before it have not.
//!
//! ```text
//! what the task began with ─┐
//! pack 1 ─ pack 2 ─ pack 3 ─┴─► a repository of ours, every object checked ──► one bundle, as a machine makes it
//! ```
//!
//! Each pack is whole by itself, so that it can be looked through without the others.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::base::{Base, take_base};
use crate::command::{Git, GitCommand, GitError};
use crate::contents::bounded;
use crate::land::refusal;
use crate::snapshot::{init_bare, object_format};

/// A pack in a file, after other things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The file.
    pub file: PathBuf,
    /// Where in it the pack begins.
    pub begins_at: u64,
}

/// Gives all that a pack holds to `each`, in pieces, until that has enough. Whether all was read. `digits` are those of a
/// commit's name in its repository, and `scratch` is an empty folder.
pub async fn read_pack(
    git: &Git,
    scratch: &Path,
    digits: usize,
    pack: &Pack,
    each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<bool, GitError> {
    let git_dir = scratch.join("pack.git");
    init_bare(git, &git_dir, object_format(digits)).await?;
    take_to_read(git.within(&git_dir), pack).await?;
    read_all(git.within(&git_dir), each).await
}

/// Gives all that a repository of ours holds to `each`, until that has enough. Whether all was read.
pub(crate) async fn read_all(
    git: GitCommand,
    each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<bool, GitError> {
    let all = ["cat-file", "--batch-all-objects", "--unordered", "--buffer", "--batch=%(objecttype)"];
    git.bounded().args(all).read(bounded(each)).await
}

/// Makes one bundle of packs, with these refs, on top of what the task began with. Every object is checked, and that all
/// are there which the refs need. `scratch` is an empty folder.
pub async fn join(
    git: &Git,
    scratch: &Path,
    base: Option<Base<'_>>,
    packs: &[Pack],
    refs: &BTreeMap<String, String>,
    bundle: &Path,
) -> Result<(), GitError> {
    let git_dir = scratch.join("join.git");
    let digits = refs.values().next().map_or(0, String::len);
    init_bare(git, &git_dir, object_format(digits)).await?;
    let inside = || git.within(&git_dir);
    if let Some(base) = base {
        take_base(inside, base).await?;
    }
    for pack in packs {
        take(inside(), pack).await?;
    }
    for (name, commit) in refs {
        inside().bounded().args(["update-ref", name, commit]).run().await?;
    }
    let create = inside().bounded().args(["bundle", "create", "--quiet"]).args([bundle]).args(refs.keys());
    create.args(base.map(|base| format!("^{}", base.commit))).run().await?;
    fs::remove_dir_all(&git_dir).map_err(GitError::file(&git_dir))
}

/// Takes a pack into a repository of ours, every object checked. What it is on top of is to be there: git wants the content
/// of every `.gitattributes` and `.gitmodules` that a tree names.
async fn take(git: GitCommand, pack: &Pack) -> Result<(), GitError> {
    index(git, pack, &["--fsck-objects"]).await.map_err(refusal)
}

/// Takes one in to be read alone, without what it is on top of; nobody takes an object from there.
pub(crate) async fn take_to_read(git: GitCommand, pack: &Pack) -> Result<(), GitError> {
    index(git, pack, &[]).await
}

async fn index(git: GitCommand, pack: &Pack, checks: &[&str]) -> Result<(), GitError> {
    let index = git.bounded().args(["index-pack", "--stdin"]).args(checks);
    index.input_from_within(&pack.file, pack.begins_at)?.run().await.map(drop)
}
