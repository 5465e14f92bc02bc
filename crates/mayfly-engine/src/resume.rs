//! A task that goes on where another ended: with its work, its lock and the CLI's session, in a new machine.
//!
//! ```text
//! the earlier task:   base ──► its commits ──► HEAD ──► what was not committed      and the session file
//! the new one:        base ──────────────────► HEAD, with the same files            and the session, forked
//! ```
//!
//! Nothing is copied: the new machine starts from the same code, and fetches what the earlier task left out of that one's
//! result, which is kept for as long as a task that goes on with it. What comes out of the new machine is built on the same
//! base, and holds the work of both. Where no session file came out, the files are gone on with alone.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use mayfly_core::{Attempt, AttemptId, TaskId, causes, sha256_of};
use mayfly_store::{Resumed, StoreError, TaskRow};
use mayfly_wire::api::{Collected, Resume, Retry, Task};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::OrderedResume;
use tokio::task::spawn_blocking;

use crate::engine::Engine;
use crate::session::session_id;
use crate::submit::{Asked, SubmitError};

/// The name of work in a result, and of work that is not given out.
pub const BUNDLE: &str = "bundle";
/// The same of artifacts.
pub const ARTIFACTS: &str = "artifacts";
/// The same of the session file.
pub const TRANSCRIPT: &str = "transcript";
/// The name of work that is not given out.
pub const WITHHELD: &str = "bundle.withheld";

/// What is told of a task that goes on with the files alone.
const ANEW: &str = "no session file of `claude` came out of the earlier task's machine: its files and commits are here, and \
                    the conversation begins anew";

/// Where what came out of an attempt's machine is kept, in the folder of all results.
pub fn result_folder(results: &Path, attempt: AttemptId) -> PathBuf {
    results.join(attempt.task.to_string()).join(attempt.attempt.0.to_string())
}

impl Engine {
    /// Accepts a task that goes on where one that is over ended; with the same credential of the pool, unless `resume` says
    /// otherwise. `None`: there is no such task.
    pub async fn resume(
        &self,
        id: TaskId,
        resume: Resume,
        idempotency_key: Option<String>,
    ) -> Result<Option<Task>, SubmitError> {
        let Some(row) = self.0.store.task(id).await.map_err(SubmitError::Store)? else { return Ok(None) };
        if row.state.outcome().is_none() {
            return Err(SubmitError::NotOver(id.short()));
        }
        let session = self.session_of(&row).await.map_err(|why| SubmitError::NoResume(id.short(), why))?;
        let Resume { prompt, credential, credential_name } = resume;
        let asked = self.again(row, Retry { credential, credential_name }).await?;
        let told = session.is_none().then(|| MayflyEvent::Warning { text: ANEW.to_owned() });
        let resumes = Some(Resumed { task: id, session });
        let asked =
            Asked { idempotency_key, resumes, told: told.into_iter().collect(), ..asked.asking(prompt) };
        self.accept(asked).await.map(Some)
    }

    /// The SHA-256 of the session file of a task that can be gone on with, or none if it left its work alone; else why it
    /// cannot be.
    async fn session_of(&self, row: &TaskRow) -> Result<Option<String>, String> {
        if row.pruned {
            return Err("what came out of it is not kept any more, since it was over too long ago".to_owned());
        }
        let (Some(result), Some(attempt)) = (&row.result, row.result_attempt) else {
            return Err("nothing came out of a machine of it".to_owned());
        };
        let folder = result_folder(&self.0.config.results, row.id.attempt(Attempt(attempt)));
        check_work(result, &folder)?;
        match (result.transcript, result.bundle) {
            (true, _) => {}
            (false, true) => return Ok(None),
            (false, false) => {
                return Err("neither work nor a session file of `claude` came out of its machine".to_owned());
            }
        }
        let hashing = spawn_blocking(move || sha256_of(File::open(folder.join(TRANSCRIPT))?));
        let hashed = hashing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        hashed.map(Some).map_err(|error| format!("its session file cannot be read: {}", causes(&error)))
    }

    /// What a machine of a task is told of the one that it goes on with.
    pub(crate) async fn ordered_resume(&self, task: &TaskRow) -> Result<Option<OrderedResume>, StoreError> {
        let Some(Resumed { task: earlier, session }) = task.resumes.clone() else { return Ok(None) };
        let Some((attempt, result)) = self.left(earlier).await? else {
            return Err(StoreError::Corrupt(format!("the task {earlier}, with which another goes on")));
        };
        Ok(Some(OrderedResume {
            session_id: session_id(attempt).to_string(),
            transcript: session,
            head: result.head,
            repository: result.repository,
        }))
    }

    /// A file that was left by the task with which the task of an attempt goes on. `None`: there is none of this name.
    pub async fn resumed_file(&self, attempt: AttemptId, name: &str) -> Result<Option<PathBuf>, StoreError> {
        let Some(name) = [BUNDLE, TRANSCRIPT].into_iter().find(|known| *known == name) else {
            return Ok(None);
        };
        let task = self.0.store.task(attempt.task).await?;
        let Some(Resumed { task: earlier, .. }) = task.and_then(|task| task.resumes) else { return Ok(None) };
        let left = self.left(earlier).await?;
        Ok(left.map(|(attempt, _)| result_folder(&self.0.config.results, attempt).join(name)))
    }

    async fn left(&self, task: TaskId) -> Result<Option<(AttemptId, Collected)>, StoreError> {
        let row = self.0.store.task(task).await?;
        Ok(row.and_then(|row| Some((row.id.attempt(Attempt(row.result_attempt?)), row.result?))))
    }
}

/// That the work of a result is there, if there was any.
fn check_work(result: &Collected, folder: &Path) -> Result<(), String> {
    match result.head {
        Some(_) if !result.bundle && folder.join(WITHHELD).exists() => Err(
            "its work is withheld: a configured secret was found in it, or it could not be searched for one"
                .to_owned(),
        ),
        Some(_) if !result.bundle => Err("its work did not come out of its machine".to_owned()),
        _ => Ok(()),
    }
}
