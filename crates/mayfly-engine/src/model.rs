//! Who may use the model API and hand over results.

use std::sync::Arc;

use mayfly_core::{AnswerBounds, AttemptId, Redactor, TaskState};
use mayfly_store::StoreError;
use mayfly_wire::api;
use mayfly_wire::event::MayflyEvent;

use crate::engine::Engine;
use crate::heads::Follow;
use crate::pool::NoCredential;
use crate::token::Route;

/// The token opens nothing, or nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this token opens nothing here")]
pub struct Denied;

/// The attempt ended before its gate opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the attempt is over")]
pub struct GateClosed;

/// Why a request to the model API may not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoModel {
    /// The token opens nothing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The token is good, and there is no credential for its task.
    #[error(transparent)]
    Credential(#[from] NoCredential),
    /// The token is good, and nothing would hold its agents to how long their answers may be.
    #[error(
        "what bounds the answers to the task's agents cannot be read: the orchestrator's log says why; put it right, then \
         retry the task"
    )]
    Bounds,
}

/// Leave to use the model API.
#[derive(Debug)]
pub struct ModelAccess {
    /// Whose leave it is.
    pub attempt: AttemptId,
    /// The owner's credential for the task.
    pub credential: api::Credential,
    /// What no answer may show.
    pub redactor: Redactor,
    /// How long answers may be.
    pub bounds: Arc<AnswerBounds>,
    /// Opens once `claude` is known to run as it was asked to.
    pub gate: Gate,
}

/// Withholds answers until `claude` is known to run as it was asked to.
#[derive(Debug)]
pub struct Gate {
    attempt: AttemptId,
    follow: Follow,
}

impl Gate {
    /// Returns once the attempt does not run any more.
    pub async fn over(&mut self) {
        while matches!(self.follow.head().state, TaskState::Running(a, _) if a == self.attempt.attempt) {
            self.follow.changed().await;
        }
    }

    /// Returns once answers may pass.
    pub async fn opened(&mut self) -> Result<(), GateClosed> {
        loop {
            let head = self.follow.head();
            match head.state {
                TaskState::Running(a, _) if a == self.attempt.attempt && head.ready => return Ok(()),
                TaskState::Running(a, _) if a == self.attempt.attempt => self.follow.changed().await,
                _ => return Err(GateClosed),
            }
        }
    }
}

impl Engine {
    /// The attempt that a token of a machine is of, whichever route it is for, and whether or not it still opens that.
    pub fn attempt_of(&self, token: &str) -> Option<AttemptId> {
        let routes = [Route::Ticket, Route::Model, Route::Result, Route::Egress];
        routes.into_iter().find_map(|route| self.0.tokens.check(route, token))
    }

    /// Takes the placeholder that a machine sent to the model API.
    pub async fn admit_model(&self, token: &str) -> Result<ModelAccess, NoModel> {
        let attempt = self.0.tokens.check(Route::Model, token).ok_or(Denied)?;
        let mut follow = self.follow(attempt.task).await.map_err(|_| Denied)?.ok_or(Denied)?;
        if !matches!(follow.head().state, TaskState::Running(a, _) if a == attempt.attempt) {
            return Err(Denied.into());
        }
        let credential = self.credential(attempt.task).await.map_err(|_| Denied)??;
        let bounds = self.answer_bounds(attempt.task).await.ok_or(NoModel::Bounds)?;
        let redactor = self.redactor();
        Ok(ModelAccess { attempt, credential, redactor, bounds, gate: Gate { attempt, follow } })
    }

    /// What knows the secrets as they are now.
    pub fn redactor(&self) -> Redactor {
        self.0.config.secrets.redactor()
    }

    /// Tells the owner of an attempt's task something.
    pub async fn warn(&self, attempt: AttemptId, text: String) -> Result<(), StoreError> {
        self.tell(attempt, MayflyEvent::Warning { text }).await
    }

    /// Takes the token that a machine sent with a result.
    pub async fn admit_result(&self, token: &str) -> Result<AttemptId, Denied> {
        let attempt = self.0.tokens.check(Route::Result, token).ok_or(Denied)?;
        let task = self.0.store.task(attempt.task).await.map_err(|_| Denied)?.ok_or(Denied)?;
        match task.state {
            TaskState::Running(a, _) | TaskState::Collecting(a, _) if a == attempt.attempt => {}
            _ => return Err(Denied),
        }
        // Its own credential is a secret to be looked for, also before it was used since the start; one that is gone
        // cannot be.
        let _ = self.credential(attempt.task).await.map_err(|_| Denied)?;
        Ok(attempt)
    }
}
