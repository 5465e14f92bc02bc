//! What is in a bundle, read through: the contents, names and messages that a task added.
//!
//! Bound: [`CONTENTS_BYTES_MAX`], since a small bundle can hold much.

use std::ops::ControlFlow;
use std::path::Path;

use crate::base::{Base, take_base};
use crate::checkpoint::{Pack, read_all, take_to_read};
use crate::command::{Git, GitError};
use crate::land::{Heads, fetch, fetch_staged, heads};
use crate::snapshot::{init_bare, object_format};

/// The most that is read.
pub const CONTENTS_BYTES_MAX: u64 = 2 << 30;

/// Gives the names in a bundle, and all that it adds to what its task started from, to `each`, in pieces, until that has
/// enough. Whether all was read. `scratch` is an empty folder.
pub async fn read_through(
    git: &Git,
    scratch: &Path,
    base: Option<Base<'_>>,
    bundle: &Path,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<bool, GitError> {
    let (git_dir, list) = (scratch.join("contents.git"), scratch.join("contents"));
    let Heads { work: head, names, has_staged, .. } = heads(bundle)?;
    if each(&names).is_break() {
        return Ok(false);
    }
    let format = object_format(head.len());
    init_bare(git, &git_dir, format).await?;
    let inside = || git.within(&git_dir);
    // As a rule it is whole by itself: then what it is on top of, which may be much, need not be taken in.
    let pack = Pack { file: bundle.to_owned(), begins_at: names.len() as u64 + 1 };
    match (take_to_read(inside(), &pack).await, base) {
        (Ok(()), _) => return read_all(inside(), each).await,
        (Err(error), None) => return Err(error),
        (Err(error), Some(_)) if error.is_refusal() => return Err(error),
        (Err(_), Some(base)) => take_base(inside, base).await?,
    }
    fetch(inside(), bundle, &head, "refs/landed/work").await?;
    if has_staged {
        fetch_staged(inside(), bundle, "refs/landed/staged").await?;
    }
    let added = ["rev-list", "--objects", "--glob=refs/landed/*"].map(str::to_owned);
    let not = base.map(|base| format!("^{}", base.commit));
    inside().bounded().args(added.into_iter().chain(not)).output_to(&list)?.run().await?;
    let contents = inside().bounded().args(["cat-file", "--batch=%(rest)", "--buffer"]).input_from(&list)?;
    contents.read(bounded(each)).await
}

/// Takes no more than [`CONTENTS_BYTES_MAX`].
pub(crate) fn bounded(
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> impl FnMut(&[u8]) -> ControlFlow<()> {
    let mut left = CONTENTS_BYTES_MAX;
    move |piece| match left.checked_sub(piece.len() as u64) {
        Some(less) => {
            left = less;
            each(piece)
        }
        None => ControlFlow::Break(()),
    }
}
