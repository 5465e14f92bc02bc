//! The engine, as far as one machine's door leads: to one attempt.
//!
//! A machine's routes have nothing of the engine but this. A good token of another attempt opens nothing here, and
//! the answer is the one that a bad token gets.

use mayfly_core::AttemptId;
use mayfly_engine::{Denied, Engine, JoinError, ModelAccess, Session};
use mayfly_wire::worker::Hello;

/// The way from one door to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    engine: Engine,
    attempt: AttemptId,
}

impl Entry {
    pub(crate) fn new(engine: Engine, attempt: AttemptId) -> Self {
        Self { engine, attempt }
    }

    /// Whose door it is.
    pub(super) fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// Lets the attempt's worker in. The engine holds the ticket to be that of the attempt that the hello names.
    pub(super) async fn join(&self, hello: Hello) -> Result<Session, JoinError> {
        if hello.attempt != self.attempt.to_string() {
            return Err(JoinError::Ticket);
        }
        self.engine.join(hello).await
    }

    /// Takes the placeholder that came with a request to the model API.
    pub(super) async fn admit_model(&self, token: &str) -> Result<ModelAccess, Denied> {
        let access = self.engine.admit_model(token).await?;
        self.own(access.attempt).map(|_| access)
    }

    /// Takes the token that came with a result.
    pub(super) async fn admit_result(&self, token: &str) -> Result<AttemptId, Denied> {
        self.own(self.engine.admit_result(token).await?)
    }

    fn own(&self, attempt: AttemptId) -> Result<AttemptId, Denied> {
        if attempt == self.attempt { Ok(attempt) } else { Err(Denied) }
    }
}
