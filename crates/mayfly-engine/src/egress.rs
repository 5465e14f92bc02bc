//! Where the machines of a task may go besides the model, and the record of where they asked to go.

use mayfly_core::host::{Rule, Target};
use mayfly_core::{AttemptId, TaskId};
pub use mayfly_store::Asked;
use mayfly_store::{Allowing, StoreError};
use mayfly_wire::api::{ALLOWED_MAX, Allowed, Egress};

use crate::engine::Engine;
use crate::model::Denied;
use crate::submit::{SubmitError, invalid};
use crate::token::Route;

/// Why nothing more is allowed.
#[derive(Debug, thiserror::Error)]
pub enum AllowError {
    /// What was said names no place.
    #[error(transparent)]
    Invalid(#[from] SubmitError),
    /// There is no such task.
    #[error("there is no such task")]
    NoTask,
    /// The task is over.
    #[error("task {0} is over: its machines are gone, and nothing more can be allowed to them")]
    Over(String),
    /// There would be too many.
    #[error("a task can have {ALLOWED_MAX} places at most: name fewer, or one that begins with `*.`")]
    TooMany,
    /// The store failed.
    #[error("what is allowed could not be stored")]
    Store(#[from] StoreError),
}

/// Reads where machines may go.
///
/// # Errors
/// [`SubmitError::Invalid`], which names the first that is none.
pub fn read_rules(hosts: &[String]) -> Result<Vec<Rule>, SubmitError> {
    if hosts.len() > ALLOWED_MAX {
        return Err(invalid("allow", &format!("has {} hosts, and {ALLOWED_MAX} are the most", hosts.len())));
    }
    let read = |(at, host): (usize, &String)| {
        host.parse().map_err(|bad| invalid("allow", &format!("has a bad host, number {}: {bad}", at + 1)))
    };
    hosts.iter().enumerate().map(read).collect()
}

impl Engine {
    /// Takes the token with which a machine asks to go elsewhere.
    pub async fn admit_egress(&self, token: &str) -> Result<AttemptId, Denied> {
        let attempt = self.0.tokens.check(Route::Egress, token).ok_or(Denied)?;
        let rules = self.0.store.rules_of(attempt).await.map_err(|_| Denied)?;
        rules.map(|_| attempt).ok_or(Denied)
    }

    /// Whether the attempt's machine may go there now. One that does not run may go nowhere.
    pub async fn may_go(&self, attempt: AttemptId, target: &Target) -> Result<bool, StoreError> {
        let rules = self.0.store.rules_of(attempt).await?.unwrap_or_default();
        Ok(rules.iter().any(|rule| rule.allows(target)))
    }

    /// Where the machines of a task may go. `None`: there is no such task.
    pub async fn allowed(&self, task: TaskId) -> Result<Option<Allowed>, StoreError> {
        match self.0.store.task(task).await? {
            Some(_) => Ok(Some(Allowed { hosts: self.0.store.allowed(task).await? })),
            None => Ok(None),
        }
    }

    /// Lets the machines of a task go to more places; once this returns, it is durable, and holds for whatever they
    /// ask for from then on.
    pub async fn allow(&self, task: TaskId, more: &Allowed) -> Result<Allowed, AllowError> {
        let rules = read_rules(&more.hosts)?;
        match self.0.store.allow(task, rules, self.0.clock.now()).await? {
            Allowing::Now(hosts) => Ok(Allowed { hosts }),
            Allowing::NoTask => Err(AllowError::NoTask),
            Allowing::Over => Err(AllowError::Over(task.short())),
            Allowing::TooMany => Err(AllowError::TooMany),
        }
    }

    /// Where the machines of a task asked to go. `None`: there is no such task.
    pub async fn egress(&self, task: TaskId) -> Result<Option<Egress>, StoreError> {
        match self.0.store.task(task).await? {
            Some(_) => self.0.store.asked(task).await.map(Some),
            None => Ok(None),
        }
    }

    /// Keeps what was decided about a place, without secrets in its name. Gives the number of its row, if it has one.
    pub fn keep_asked(
        &self,
        attempt: AttemptId,
        mut asked: Asked,
    ) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send + use<> {
        let redactor = self.redactor();
        for text in [&mut asked.host, &mut asked.words] {
            redactor.text(text);
        }
        let kept = self.0.store.keep_asked(attempt, asked, self.0.clock.now());
        let engine = self.clone();
        self.whole(async move {
            let row = kept.await?;
            // Those who follow read the head from the store, and whoever is newer wins.
            engine.follow(attempt.task).await?;
            Ok(row)
        })
    }

    /// Notes what went through a connection that is over.
    pub async fn keep_bytes(&self, row: i64, sent: u64, received: u64) -> Result<(), StoreError> {
        self.0.store.keep_bytes(row, sent, received).await
    }
}
