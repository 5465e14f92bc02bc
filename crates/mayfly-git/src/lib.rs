//! git on the user's machine, run so that nothing of a repository's own configuration runs.
//!
//! A repository's `.git/config` can name programs (`core.fsmonitor`, filters, hooks, helpers), and so git in a
//! repository that we did not write is code of that repository. Therefore the user's repository is only ever
//! *read as objects*: work happens in a bare repository of our own that borrows its objects, with a work tree
//! pointed at the user's files, and the user's configuration is never the one in force where a program could
//! be started from it.
//!
//! ```text
//! user's repository ──objects──► quarantine (bare, ours) ──bundle──► a machine
//!                   ◄─checked──     ▲                                  │
//!                     pack, ref     └────────────── bundle ────────────┘
//! ```
//!
//! - [`Repo::discover`] finds the repository, and says plainly why there is none.
//! - [`Repo::snapshot`] captures `HEAD` plus uncommitted and untracked work as one commit.
//! - [`Mirrors`] keep repositories elsewhere, so that a second task on one fetches only what is new.
//! - [`Quarantine::bundle`] writes it down: whole, or on top of what another has already; [`whole`] puts both together.
//! - [`Quarantine::land`] checks what came back and makes one new branch of it; no tree is touched.
//! - [`Repo::quarantine`] is for work whose beginning was captured long ago; [`Quarantine::start_from`] takes that in.
//! - [`Work`] shows what a task made as a diff or a patch, and applies it to files.
//! - [`changes`] names the files that were changed, and which of them would run by themselves.
//! - [`read_through`] reads what a task added, to be searched.
//! - [`Arriving`] reads the same while it arrives, where that can be read without git.
//! - [`join`] makes one bundle of what a machine handed over in parts; [`read_pack`] reads one of them.
//! - [`fetch`] brings one commit of a repository elsewhere into a folder.
//! - [`create`] makes a repository of plain files.
//! - [`unbundle`] makes a new repository of work where there is none that takes it.
//!
//! Submodules are carried as pointers only, and repositories that are no submodules not at all. What a filter of
//! the user's stands before is carried as the index has it, or else as it is. The git of a machine is the worker's business, not this crate's.

mod arriving;
mod base;
mod changes;
mod checkpoint;
mod command;
mod contents;
mod create;
mod entries;
mod fetch;
mod filtered;
mod flags;
mod hooks;
mod land;
mod mirror;
mod repo;
mod snapshot;
mod work;

pub use arriving::Arriving;
pub use base::{Base, whole};
pub use changes::{Change, Changes, FILES_MAX, Flagged, changes};
pub use checkpoint::{Pack, join, read_pack};
pub use command::{Git, GitError, MEMORY_BYTES_MAX};
pub use contents::{CONTENTS_BYTES_MAX, read_through};
pub use create::create;
pub use fetch::fetch;
pub use hooks::Hooks;
pub use land::{Announced, Began, Made, announced, unbundle};
pub use mirror::{Mirror, Mirrors, Wanted, name_in};
pub use repo::Repo;
pub use snapshot::{Quarantine, Snapshot};
pub use work::Work;
