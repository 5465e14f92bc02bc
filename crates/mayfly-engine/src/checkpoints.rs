//! What of an attempt's work is kept outside of its machine while it runs, for a machine that is lost.
//!
//! Once a machine is gone, and before its task takes another step, the attempt's result is settled: what the worker
//! brought out, or else what its last checkpoint holds. Both are idempotent, so a restart in between does it again.
//!
//! Bound: [`RECOVER_MAX`] for trouble that may pass, such as a full disk.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mayfly_core::{AttemptId, causes};
use mayfly_failpoint::failpoint;
use mayfly_store::{StoreError, TaskRow};
use mayfly_wire::api::{Collected, Workspace};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::Report;
use tracing::{info, warn};

use crate::clock::after;
use crate::engine::Engine;
use crate::perform::RETRY_FIRST;

/// The longest that a result is asked for again which trouble of the orchestrator's own is in the way of.
const RECOVER_MAX: Duration = Duration::from_secs(60 * 60);
/// How a worker begins to tell of work that did not come out at all.
const WORK: &str = "the work:";
/// How a worker begins to tell of work that it could not bring out.
const WORK_WORDS: [&str; 2] = [WORK, "uncommitted work"];
/// The same of a part of it.
const PART_WORDS: [&str; 6] =
    [WORK, "uncommitted work", "the agent's ", "the commit ", "commits that were left behind", "some files"];

/// Who keeps checkpoints. Every verb is idempotent.
#[async_trait]
pub trait Checkpoints: fmt::Debug + Send + Sync + 'static {
    /// Makes the files of a result of what the last checkpoint of an attempt holds, and says what it is. `began` is what
    /// its task began with. `None`: there is no checkpoint. An error says nothing about the checkpoints: the same may be
    /// done later.
    async fn recover(&self, attempt: AttemptId, began: Option<&Workspace>) -> io::Result<Option<Collected>>;

    /// Removes the checkpoints of an attempt. None is a success.
    async fn discard(&self, attempt: AttemptId) -> io::Result<()>;

    /// Whether an attempt has any.
    fn any(&self, attempt: AttemptId) -> io::Result<bool>;
}

impl Engine {
    /// Tells the owner that a checkpoint is safe.
    pub async fn checkpointed(
        &self,
        attempt: AttemptId,
        number: u64,
        as_of: Timestamp,
        (files, bytes): (u64, u64),
    ) -> Result<(), StoreError> {
        self.tell(attempt, MayflyEvent::Checkpoint { number, as_of, files, bytes }).await
    }

    /// Settles what came out of a machine that is gone.
    pub(crate) async fn settle_result(&self, attempt: AttemptId) -> Result<(), StoreError> {
        let Some(task) = self.0.store.task(attempt.task).await? else { return Ok(()) };
        let own = task.state.machine() == Some(attempt.attempt);
        let had = own_result(&task, attempt);
        if had.is_some_and(is_partial) && self.0.checkpoints.any(attempt).unwrap_or(true) {
            // They may have what did not come out.
            let text = format!(
                "some of the work did not come out: what was checkpointed before is {}",
                kept(attempt)
            );
            return self.tell(attempt, MayflyEvent::Warning { text }).await;
        }
        if own && had.is_none_or(is_lacking) {
            match self.recover(&task, attempt).await? {
                Ok(Some(recovered)) if !recovered.bundle && is_elsewhere(&task, attempt) => {
                    self.tell_of_less(&task, attempt, &recovered).await?;
                }
                Ok(Some(recovered)) => self.keep_recovered(&task, attempt, recovered).await?,
                Ok(None) => {}
                Err(error) => {
                    let why = causes(&error);
                    warn!(error = why, "no result was made of the checkpoints");
                    // They stay, for whoever looks through them.
                    let text = format!(
                        "what was checkpointed could not be made a result ({why}), and is {}",
                        kept(attempt)
                    );
                    return self.tell(attempt, MayflyEvent::Warning { text }).await;
                }
            }
        }
        if let Err(error) = self.0.checkpoints.discard(attempt).await {
            // They go with the task's result.
            warn!(%error, "checkpoints not removed");
        }
        failpoint("recover-discarded");
        Ok(())
    }

    /// Asks for what the checkpoints hold until there is an answer: a full disk may be emptied.
    async fn recover(
        &self,
        task: &TaskRow,
        attempt: AttemptId,
    ) -> Result<io::Result<Option<Collected>>, StoreError> {
        let until = after(self.0.clock.now(), RECOVER_MAX);
        let (mut wait, mut is_told) = (RETRY_FIRST, false);
        loop {
            let asked = self.0.checkpoints.recover(attempt, task.spec.workspace.as_ref()).await;
            let Err(error) = asked else { return Ok(asked) };
            if self.0.clock.now() >= until {
                return Ok(Err(error));
            }
            let why = causes(&error);
            warn!(error = why, "no result was made of the checkpoints yet");
            if !is_told {
                let minutes = RECOVER_MAX.as_secs() / 60;
                let text = format!("no result yet, and trying again for up to {minutes} minutes: {why}");
                self.tell(attempt, MayflyEvent::Warning { text }).await?;
                is_told = true;
            }
            self.pause(&mut wait).await;
        }
    }

    /// An earlier attempt's work stays the result.
    async fn tell_of_less(
        &self,
        task: &TaskRow,
        attempt: AttemptId,
        recovered: &Collected,
    ) -> Result<(), StoreError> {
        let mut text = format!(
            "the work of attempt {} stays the result: of attempt {} there is less: {}",
            task.result_attempt.unwrap_or_default(),
            attempt.attempt.0,
            recovered.unsaved.join("; ")
        );
        self.redactor().text(&mut text);
        self.tell(attempt, MayflyEvent::Warning { text }).await
    }

    /// A result that has no work gets that of the checkpoint.
    async fn keep_recovered(
        &self,
        task: &TaskRow,
        attempt: AttemptId,
        recovered: Collected,
    ) -> Result<(), StoreError> {
        let result = match own_result(task, attempt) {
            None => untold(task, recovered),
            // Nothing is in it either.
            Some(_) if !recovered.bundle => return Ok(()),
            Some(had) => with_work(had, recovered),
        };
        let redactor = self.redactor();
        let mut report = Report::Collected(result);
        let redacted = report.texts().into_iter().map(|text| u32::from(redactor.text(text))).sum();
        let Report::Collected(result) = report else { return Ok(()) };
        info!("the last checkpoint is the result");
        failpoint("recover-untold");
        self.0.store.recovered(attempt, self.0.clock.now(), result, redacted).await?;
        failpoint("recover-told");
        Ok(())
    }
}

/// What a worker that is gone without a word would have told of.
fn untold(task: &TaskRow, mut recovered: Collected) -> Collected {
    if recovered.artifacts.is_none() && !task.spec.artifacts.is_empty() {
        recovered.unsaved.push("the artifacts: the machine was gone before they came out".to_owned());
    }
    recovered
}

/// What a worker told of, with the work that it could not tell of.
fn with_work(had: &Collected, recovered: Collected) -> Collected {
    let transcript = had.transcript || recovered.transcript;
    let artifacts = had.artifacts.or(recovered.artifacts);
    let both = |had: &[String], recovered: Vec<String>| had.iter().cloned().chain(recovered).collect();
    if is_same_work(had, &recovered) {
        let is_other = |line: &&String| !line.starts_with(WORK);
        let unsaved = had.unsaved.iter().filter(is_other).cloned().collect();
        return Collected { bundle: true, transcript, artifacts, unsaved, ..had.clone() };
    }
    let (unsaved, notes) = (both(&had.unsaved, recovered.unsaved), both(&had.notes, recovered.notes));
    Collected { transcript, artifacts, unsaved, notes, ..recovered }
}

fn is_same_work(one: &Collected, other: &Collected) -> bool {
    let names = |of: &Collected| of.others.iter().cloned().collect::<BTreeSet<_>>();
    one.head == other.head && names(one) == names(other)
}

/// Where the checkpoints of an attempt are, and how whoever looks through them takes one.
fn kept(attempt: AttemptId) -> String {
    let (task, number) = (attempt.task, attempt.attempt.0);
    format!(
        "kept in the orchestrator's data folder as `results/{task}/{number}/checkpoints`: each file there is a line and a git \
         pack, which `tail -n +2 FILE | git index-pack --stdin --fsck-objects` takes into a repository"
    )
}

fn own_result(task: &TaskRow, attempt: AttemptId) -> Option<&Collected> {
    task.result.as_ref().filter(|_| task.result_attempt == Some(attempt.attempt.0))
}

/// Whether the result is another attempt's, with work in it.
fn is_elsewhere(task: &TaskRow, attempt: AttemptId) -> bool {
    own_result(task, attempt).is_none() && task.result.as_ref().is_some_and(|result| result.bundle)
}

/// Whether some of the work came out, and some did not. A single file that was left out is in no checkpoint either.
fn is_partial(result: &Collected) -> bool {
    let is_part = |line: &String| PART_WORDS.iter().any(|words| line.starts_with(words));
    result.bundle && result.unsaved.iter().any(is_part)
}

/// Whether the work did not come out. What else could not be saved, such as the session file, says nothing about it: then
/// nothing was changed in the end, whatever a checkpoint holds.
fn is_lacking(result: &Collected) -> bool {
    let is_about_work = |line: &String| WORK_WORDS.iter().any(|words| line.starts_with(words));
    !result.bundle && (result.head.is_some() || result.unsaved.iter().any(is_about_work))
}
