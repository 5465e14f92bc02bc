//! What of the library no task names any more: locks, archives of resources, and trees that servers run.
//!
//! ```text
//! locks                        no kept task names it, and what it names was not asked for lately
//! <data>/resources, tools      no lock names it                                     ┐ and nobody asked for it lately
//! <library>/.tools             no resource of the library names it                  ┘
//! ```
//!
//! Whoever asks for a lock asks for each of its archives: it is as old as the oldest of them. One without any has no age, is
//! a line, and stays.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use mayfly_library::{Kind, Library, Lock, pack, tool};
use mayfly_store::Named;
use tracing::{info, warn};

use super::{PruneError, blocking};
use crate::engine::Engine;
use crate::library::{LibraryConfig, archive_at};

/// The most locks of one look.
const LOCKS_MAX: u32 = 1000;
/// What the names of trees begin with that are being fetched, or taken away.
const HALF: [&str; 2] = ["fetch-", ".going-"];

impl Engine {
    pub(super) async fn prune_library(&self, cutoff: Timestamp) -> Result<(), PruneError> {
        for (sha256, json) in self.0.store.unnamed_locks(LOCKS_MAX).await? {
            if is_old(&self.0.config.library.archives, &json, cutoff) {
                info!(lock = %sha256, "a lock that no task names taken away");
                self.0.store.forget_lock(sha256).await?;
            }
        }
        let Named { resources, tools } = self.0.store.named_by_locks().await?;
        let (kept, config) = (self.0.kept.clone(), self.0.config.library.clone());
        let removing = move || {
            let is_resource =
                |name: &str| name.strip_suffix(".tar").is_some_and(|sha256| resources.contains(sha256));
            kept.remove_unused(&config.archives, is_resource, cutoff)?;
            kept.remove_unused(&config.tools, |name| tools.contains(name), cutoff)?;
            let Some(named) = named_in(&config) else { return Ok(()) };
            let stays = |name: &str| !is_of_tools(name) || named.contains(name);
            kept.remove_unused(&config.folder.join(tool::FOLDER), stays, cutoff)
        };
        Ok(blocking(removing).await?)
    }
}

/// Whether a name beside the library's trees is one that is given to what is fetched, whole, half made or half gone. What
/// is called otherwise is the library's owner's.
fn is_of_tools(name: &str) -> bool {
    pack::is_sha256(name) || HALF.iter().any(|half| name.starts_with(half))
}

/// Whether nobody asked for what a lock names since `cutoff`.
fn is_old(archives: &Path, json: &str, cutoff: Timestamp) -> bool {
    let Ok(lock) = serde_json::from_str::<Lock>(json) else { return false };
    let asked =
        |sha256: &str| -> io::Result<SystemTime> { fs::metadata(archive_at(archives, sha256))?.modified() };
    let is_young = |sha256: &str| asked(sha256).is_ok_and(|asked| asked >= SystemTime::from(cutoff));
    lock.resources.iter().any(|locked| !is_young(&locked.sha256))
}

/// The trees that the library's resources name. `None`: one of them cannot be read, and may name any.
fn named_in(config: &LibraryConfig) -> Option<HashSet<String>> {
    let library = Library::at(&config.folder);
    let read = || {
        let ids = library.ids()?;
        let mut named = HashSet::new();
        for id in ids.iter().filter(|id| id.kind == Kind::Mcp) {
            named.extend(library.read(id)?.tools().map(|tool| tool.sha256.clone()));
        }
        Ok::<_, mayfly_library::Problems>(named)
    };
    read().inspect_err(|problems| warn!(%problems, "trees of the library were not looked at")).ok()
}
