//! The engine, as far as a machine can reach it: one attempt.
//!
//! By the door of its own, a machine reaches its own attempt and no other: a good token of another attempt opens nothing
//! there, and the answer is the one that a bad token gets. By the port, which is there for machines elsewhere, the token
//! alone says whose it is; the connection then has one of the places of that attempt, and ends with it.
//!
//! A machine's routes have nothing of the engine but this.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use jiff::Timestamp;
use mayfly_core::{AttemptId, Redactor, causes};
use mayfly_engine::{Denied, Engine, JoinError, ModelAccess, NoModel, Session, StoreError, Used};
use mayfly_gateway::PLACEHOLDER_HEADER;
use mayfly_wire::api::Workspace;
use mayfly_wire::worker::Hello;

use super::egress::Elsewhere;
use super::extract::bearer;
use super::problem::Problem;
use crate::doors::{Doors, NoEntry};
use crate::fly_src::{FlySrc, NotFrom};
use crate::guest::Guest;

/// The way to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    engine: Engine,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// The door of this attempt.
    Door(AttemptId),
    /// The port, for whichever attempt has its door open.
    Port(Arc<Doors>, Option<FlySrc>),
}

impl Entry {
    /// By the door of `attempt`.
    pub(crate) fn by_door(engine: Engine, attempt: AttemptId) -> Self {
        Self { engine, way: Way::Door(attempt) }
    }

    /// By the port.
    pub(crate) fn by_port(engine: Engine, doors: Arc<Doors>, fly_src: Option<FlySrc>) -> Self {
        Self { engine, way: Way::Port(doors, fly_src) }
    }

    /// Gives a connection that came with `token` a place, where it has none yet. What is no token is for others to
    /// refuse. The headers are those of the request that has the token.
    pub(super) fn seat(&self, token: &str, guest: &Guest, headers: &HeaderMap) -> Result<(), NoEntry> {
        let (Way::Port(doors, fly_src), Some(attempt)) = (&self.way, self.engine.attempt_of(token)) else {
            return Ok(());
        };
        if let Some(fly_src) = fly_src
            && let Err(why) = self.comes_from(fly_src, attempt, headers)
        {
            tracing::warn!(%attempt, %why, "a machine's token came from elsewhere");
            return Err(NoEntry::Elsewhere);
        }
        doors.enter(attempt, guest)
    }

    /// Holds what a request says of where it comes from against what is known of the attempt's machine.
    fn comes_from(&self, fly_src: &FlySrc, attempt: AttemptId, headers: &HeaderMap) -> Result<(), NotFrom> {
        match fly_src.machine(headers, self.engine.clock().now())? {
            Some(machine) if !self.engine.can_be_machine_of(attempt, &machine) => Err(NotFrom::Machine),
            _ => Ok(()),
        }
    }

    /// Lets the attempt's worker in. The engine holds the ticket to be that of the attempt that the hello names.
    pub(super) async fn join(&self, hello: Hello) -> Result<Session, JoinError> {
        if matches!(self.way, Way::Door(attempt) if hello.attempt != attempt.to_string()) {
            return Err(JoinError::Ticket);
        }
        self.engine.join(hello).await
    }

    /// Takes the placeholder that came with a request to the model API.
    pub(super) async fn admit_model(&self, token: &str) -> Result<ModelAccess, NoModel> {
        let access = self.engine.admit_model(token).await?;
        Ok(self.own(access.attempt).map(|_| access)?)
    }

    /// Hears that the model API refused the attempt's credential.
    pub(super) async fn credential_refused(&self, attempt: AttemptId) {
        if let Err(error) = self.engine.credential_refused(attempt).await {
            tracing::warn!(%attempt, cause = %causes(&error), "the owner could not be told of a refused credential");
        }
    }

    /// Takes what a request has used that was admitted.
    pub(super) fn count(&self, attempt: AttemptId, used: Used) {
        self.engine.count(attempt, used);
    }

    /// What the task of an attempt works on.
    pub(super) async fn workspace(&self, attempt: AttemptId) -> Result<Option<Workspace>, StoreError> {
        Ok(self.engine.task(attempt.task).await?.and_then(|task| task.workspace))
    }

    /// The archive of a resource that an attempt's task runs with.
    pub(super) async fn resource(
        &self,
        attempt: AttemptId,
        sha256: &str,
    ) -> Result<Option<PathBuf>, StoreError> {
        self.engine.resource(attempt, sha256).await
    }

    /// A file that was left by the task with which an attempt's task goes on.
    pub(super) async fn resumed_file(
        &self,
        attempt: AttemptId,
        name: &str,
    ) -> Result<Option<PathBuf>, StoreError> {
        self.engine.resumed_file(attempt, name).await
    }

    /// Where what the set-up of an attempt's task made is kept.
    pub(super) async fn kept_setup(
        &self,
        attempt: AttemptId,
        key: &str,
    ) -> Result<Option<PathBuf>, StoreError> {
        self.engine.kept_setup(attempt, key).await
    }

    /// The same, to keep it.
    pub(super) async fn setup_to_keep(
        &self,
        attempt: AttemptId,
        key: &str,
    ) -> Result<Option<PathBuf>, StoreError> {
        self.engine.setup_to_keep(attempt, key).await
    }

    /// Notes that it is kept, and removes what there is no room for.
    pub(super) async fn setup_is_kept(&self, place: &Path) -> io::Result<()> {
        self.engine.setup_is_kept(place).await
    }

    /// What knows the secrets as they are now.
    pub(super) fn redactor(&self) -> Redactor {
        self.engine.redactor()
    }

    /// Tells the owner of an attempt's task something.
    pub(super) async fn warn(&self, attempt: AttemptId, text: String) -> Result<(), StoreError> {
        self.engine.warn(attempt, text).await
    }

    /// The time so long ago, to the millisecond.
    pub(super) fn ago(&self, span: Duration) -> Timestamp {
        let then = self.engine.clock().now().checked_sub(span);
        let ms = then.map(Timestamp::as_millisecond).unwrap_or_default();
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Tells the owner that a checkpoint is safe.
    pub(super) async fn checkpointed(
        &self,
        attempt: AttemptId,
        number: u64,
        as_of: Timestamp,
        amounts: (u64, u64),
    ) -> Result<(), StoreError> {
        self.engine.checkpointed(attempt, number, as_of, amounts).await
    }

    /// Takes the token that came with a result.
    pub(super) async fn admit_result(&self, token: &str) -> Result<AttemptId, Denied> {
        self.own(self.engine.admit_result(token).await?)
    }

    /// Takes the token with which a machine asks to go elsewhere.
    pub(super) async fn admit_egress(&self, token: &str) -> Result<Elsewhere, Denied> {
        let attempt = self.own(self.engine.admit_egress(token).await?)?;
        Ok(Elsewhere { engine: self.engine.clone(), attempt })
    }

    fn own(&self, attempt: AttemptId) -> Result<AttemptId, Denied> {
        match self.way {
            Way::Door(own) if own != attempt => Err(Denied),
            _ => Ok(attempt),
        }
    }
}

/// Gives each request that came by the port with a machine's token a place of its attempt.
pub(super) async fn seat(State(entry): State<Entry>, request: Request, next: Next) -> Response {
    let seated = match (token(request.headers()), request.extensions().get::<Guest>()) {
        (Some(token), Some(guest)) => entry.seat(token, guest, request.headers()),
        _ => Ok(()),
    };
    match seated {
        Ok(()) => next.run(request).await,
        Err(NoEntry::Closed | NoEntry::Elsewhere) => Problem::denied().into_response(),
        Err(NoEntry::Full) => Problem::busy().into_response(),
    }
}

/// As `claude` sends it, whichever kind it takes it for.
fn token(headers: &HeaderMap) -> Option<&str> {
    let own = headers.get(PLACEHOLDER_HEADER).and_then(|value| value.to_str().ok());
    own.or_else(|| bearer(headers)).or_else(|| headers.get("x-api-key")?.to_str().ok())
}
