//! Unmakes a machine, and believes it when it is gone.
//!
//! Fly answers a destroy before it is done, and one that is lost with its host leaves a machine that lingers. So it is
//! looked at until there is none, and destroyed again as long as there is.
//!
//! Bound: [`DESTROY_MAX`]; the engine asks again after a pause.

use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_provider::clock::after;
use tracing::info;

use crate::Fly;
use crate::api::{ApiError, Kind, State};

/// How long a machine is waited for to be gone before the caller is told.
const DESTROY_MAX: Duration = Duration::from_secs(5 * 60);

/// Why it is not known to be gone.
#[derive(Debug)]
pub(crate) enum Failed {
    Api(ApiError),
    Lingers(Lingers),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// How long it is waited for until it is destroyed again: most are gone within a second or two.
const DESTROYED_AFTER: Duration = Duration::from_secs(10);

/// It was destroyed, and is still there.
#[derive(Debug, thiserror::Error)]
#[error(
    "machine {id} is still `{state}` {}s after it was destroyed: see `fly machine status {id} -a {app}`, and \
     https://status.flyio.net",
    DESTROY_MAX.as_secs()
)]
pub(crate) struct Lingers {
    id: String,
    state: String,
    app: String,
}

impl Fly {
    pub(crate) async fn unmake(&self, attempt: AttemptId) -> Result<(), Failed> {
        if let Some(id) = self.find(attempt).await? {
            self.unmake_machine(&id).await?;
            info!(machine = id, "machine is gone");
        }
        self.memory().forget(attempt);
        Ok(())
    }

    /// The id of the attempt's machine. That there is none is believed when two lists say so: one may be wrong.
    async fn find(&self, attempt: AttemptId) -> Result<Option<String>, ApiError> {
        let known = self.memory().id(attempt);
        if known.is_some() {
            return Ok(known);
        }
        let name = self.name_of(attempt);
        let mut found = self.listed(&name).await?;
        if found.is_none() {
            self.settle().await;
            found = self.listed(&name).await?;
        }
        Ok(found.map(|machine| machine.id))
    }

    /// Unmakes the machine with this id, and returns once it is gone: Fly says so, or two of its calls know none.
    pub(crate) async fn unmake_machine(&self, id: &str) -> Result<(), Failed> {
        let deadline = after(self.0.clock.now(), DESTROY_MAX);
        loop {
            let destroyed = word(self.0.api.destroy(id).await)?;
            let waited = word(self.0.api.wait(id, "destroyed", DESTROYED_AFTER).await)?;
            if matches!(waited, Word::Done(true)) {
                return Ok(());
            }
            let is_missed = matches!(destroyed, Word::NoSuch) || matches!(waited, Word::NoSuch);
            let state = match self.0.api.machine(id).await {
                Ok(machine) if machine.state == State::Gone => return Ok(()),
                Ok(machine) => machine.state.word().to_owned(),
                Err(error) if error.kind == Kind::Absent && is_missed => return Ok(()),
                Err(error) if error.kind == Kind::Absent => "unknown".to_owned(),
                Err(error) => return Err(error.into()),
            };
            if self.0.clock.now() >= deadline {
                let (id, app) = (id.to_owned(), self.0.api.app().to_owned());
                return Err(Failed::Lingers(Lingers { id, state, app }));
            }
            self.settle().await;
        }
    }
}

/// What was said about a machine.
enum Word<T> {
    Done(T),
    /// It is there, and not as asked for.
    NotYet,
    /// There is none.
    NoSuch,
}

fn word<T>(answer: Result<T, ApiError>) -> Result<Word<T>, ApiError> {
    match answer {
        Ok(done) => Ok(Word::Done(done)),
        Err(error) if error.kind == Kind::Absent => Ok(Word::NoSuch),
        Err(error) if matches!(error.kind, Kind::State | Kind::Late) => Ok(Word::NotYet),
        Err(error) => Err(error),
    }
}
