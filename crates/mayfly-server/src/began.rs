//! The code that a task began with, as bundles on this disk.

use std::path::{Path, PathBuf};

use mayfly_engine::bundle_of;
use mayfly_git::Base;
use mayfly_wire::api::Workspace;

/// What a task began with, on this disk.
#[derive(Debug)]
pub(crate) struct Began {
    bundle: PathBuf,
    commit: String,
    on: Option<PathBuf>,
}

impl Began {
    /// Of a task, in the folder of all bundles.
    pub(crate) fn of(workspaces: &Path, from: &Workspace) -> Self {
        Self {
            bundle: bundle_of(workspaces, &from.id),
            commit: from.base.clone(),
            on: from.on.as_ref().map(|on| bundle_of(workspaces, &on.id)),
        }
    }

    /// The same for git.
    pub(crate) fn base(&self) -> Base<'_> {
        Base { bundle: &self.bundle, commit: &self.commit, on: self.on.as_deref() }
    }

    /// Whether one bundle holds all of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.on.is_none()
    }

    /// The bundle of its commit.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }
}
