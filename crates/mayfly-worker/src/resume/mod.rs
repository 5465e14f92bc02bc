//! Takes up what an earlier task left: its files and commits into the workspace, its session to where the CLI looks for it.
//!
//! Both are fetched from the orchestrator. The agent has not run in this machine yet, so the repository is still as it was
//! handed over; but what is taken up was made by one, and nothing in it is believed: git takes objects by their content and
//! refuses names that are none, and of the session file only the hash is looked at.
//!
//! Bound: [`TIME_MAX`] for git; the sizes are those of results.

mod session;
pub(crate) mod work;

use std::io;
use std::path::Path;
use std::time::Duration;

use mayfly_failpoint::failpoint;
use mayfly_wire::worker::{BUNDLE_BYTES_MAX, OrderedResume, RESUMED_PATH};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::collect::git::GitError;
use crate::exchange::{Exchange, ExchangeError};
use crate::reaper::Reaper;
use work::Left;

/// The time for putting the work in its place.
const TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// What it takes to take up a task.
#[derive(Debug)]
pub(crate) struct TakeUp<'a> {
    pub(crate) resume: &'a OrderedResume,
    /// The commit that both tasks start from; none is an empty folder.
    pub(crate) base: Option<&'a str>,
    pub(crate) reaper: &'a Reaper,
    pub(crate) exchange: &'a Exchange<'a>,
    pub(crate) home: &'a Path,
    pub(crate) workspace: &'a Path,
}

impl TakeUp<'_> {
    /// Takes up the work; gives what could not be, a line each.
    pub(crate) async fn work(&self) -> Result<Vec<String>, TakeUpError> {
        let Some(head) = &self.resume.head else { return Ok(Vec::new()) };
        let scratch = self.scratch()?;
        let bundle = scratch.path().join("bundle");
        let path = format!("{RESUMED_PATH}bundle");
        let fetched = self.exchange.fetch(&path, &bundle, BUNDLE_BYTES_MAX).await;
        fetched.map_err(|source| TakeUpError::Fetch { what: "work", source })?;
        failpoint("work-fetched");
        let left = Left {
            reaper: self.reaper,
            workspace: self.workspace,
            base: self.base,
            head,
            repository: self.resume.repository.as_ref(),
            bundle: &bundle,
            scratch: scratch.path(),
            deadline: Instant::now() + TIME_MAX,
        };
        let lost = left.put_back().await?;
        failpoint("work-put-back");
        Ok(lost)
    }

    fn scratch(&self) -> Result<TempDir, TakeUpError> {
        tempfile::Builder::new().prefix("mayfly-").tempdir_in(self.home).map_err(TakeUpError::Write)
    }
}

/// Why a machine cannot go on where another was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeUpError {
    /// It cannot be fetched.
    #[error("its {what} cannot be fetched")]
    Fetch {
        /// What of it.
        what: &'static str,
        /// Why.
        #[source]
        source: ExchangeError,
    },
    /// It is not what it was when the task was accepted.
    #[error("its session file is not the one that was there when this task was accepted")]
    Other,
    /// The files cannot be put in their place.
    #[error("its work cannot be put in its place")]
    Work(#[from] GitError),
    /// There is no room.
    #[error("it cannot be written")]
    Write(#[source] io::Error),
}
