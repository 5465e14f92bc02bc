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

use mayfly_wire::worker::{OTHER_REFS, OTHERS_MAX, WORK_REF, is_other_name};

use crate::base::{Base, take_base};
use crate::command::{Git, GitCommand, GitError};
use crate::contents::CONTENTS_BYTES_MAX;
use crate::land::refusal;
use crate::snapshot::init_bare;

/// A pack in a file, after other things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The file.
    pub file: PathBuf,
    /// Where in it the pack begins.
    pub begins_at: u64,
}

/// What a bundle says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The commit of its work.
    pub head: String,
    /// The commits beside it, by their names.
    pub others: BTreeMap<String, String>,
}

/// The most that a bundle may say of what it holds.
const HEADS_BYTES_MAX: usize = 64 * 1024;

/// Gives all that a pack holds to `each`, in pieces, until that has enough. Whether all was read. `digits` are those of a
/// commit's name in its repository, and `scratch` is an empty folder.
pub async fn read_pack(
    git: &Git,
    scratch: &Path,
    digits: usize,
    pack: &Pack,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<bool, GitError> {
    let git_dir = scratch.join("pack.git");
    init_bare(git, &git_dir, format(digits)).await?;
    take(git.within(&git_dir), pack).await?;
    let mut left = CONTENTS_BYTES_MAX;
    let all = ["cat-file", "--batch-all-objects", "--unordered", "--buffer", "--batch=%(objecttype)"];
    git.within(&git_dir)
        .bounded()
        .args(all)
        .read(|piece| match left.checked_sub(piece.len() as u64) {
            Some(less) => {
                left = less;
                each(piece)
            }
            None => ControlFlow::Break(()),
        })
        .await
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
    init_bare(git, &git_dir, format(digits)).await?;
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

/// The commits that a bundle says it holds: its work, and what is beside it. None of its objects is looked at. `scratch` is
/// an empty folder.
pub async fn announced(git: &Git, scratch: &Path, bundle: &Path) -> Result<Announced, GitError> {
    let git_dir = scratch.join("announced.git");
    init_bare(git, &git_dir, "sha1").await?;
    let mut said = Vec::new();
    let list = git.within(&git_dir).bounded().args(["bundle", "list-heads"]).args([bundle]);
    let whole = list.read(|piece| {
        said.extend_from_slice(piece);
        if said.len() > HEADS_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if !whole.await? {
        return Err(GitError::BadName("more than its work".to_owned()));
    }
    let said = String::from_utf8_lossy(&said);
    let heads: BTreeMap<_, _> =
        said.lines().filter_map(|line| line.split_once(' ')).map(|(c, n)| (n, c)).collect();
    let head = heads.get(WORK_REF).ok_or_else(|| GitError::BadName("no work".to_owned()))?;
    let others = heads.iter().filter_map(|(name, commit)| Some((name.strip_prefix(OTHER_REFS)?, *commit)));
    let others: BTreeMap<_, _> = others.map(|(name, commit)| (name.to_owned(), commit.to_owned())).collect();
    match others.keys().find(|name| !is_other_name(name)) {
        Some(_) => Err(GitError::BadName("a name that is none".to_owned())),
        None if others.len() > OTHERS_MAX => Err(GitError::BadName("too many names".to_owned())),
        None => Ok(Announced { head: (*head).to_owned(), others }),
    }
}

async fn take(git: GitCommand, pack: &Pack) -> Result<(), GitError> {
    let index = git.bounded().args(["index-pack", "--stdin", "--fsck-objects"]);
    index.input_from_within(&pack.file, pack.begins_at)?.run().await.map(drop).map_err(refusal)
}

fn format(digits: usize) -> &'static str {
    if digits == 64 { "sha256" } else { "sha1" }
}
