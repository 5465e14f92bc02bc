//! What a worker hands over while `claude` works. The token says whose it is.
//!
//! A checkpoint is searched for configured secrets as work that is brought out is, and kept apart if it has one in it;
//! in a part of the session file they are masked. What is answered with success is on the disk.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use mayfly_core::{Redactor, causes};
use mayfly_failpoint::failpoint;
use mayfly_gateway::Masked;
use mayfly_git::{Pack, read_pack};
use mayfly_wire::worker::{Checkpoint, TRANSCRIPT_BYTES_MAX};
use serde::Deserialize;

use super::Machine;
use super::extract::{Asked, admit};
use super::problem::Problem;
use super::uploads::{Scan, SearchError};
use crate::checkpoints::{BYTES_MAX, BadCheckpoint, Checkpoints, Link, read_head};
use crate::incoming::{Incoming, IncomingError};

/// The oldest that a checkpoint can be.
const AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// The query of a checkpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    /// How long ago the work was looked at, in milliseconds: clocks differ.
    age_ms: u64,
}

/// `PUT /v1/worker/checkpoint/{number}`
pub(super) async fn keep(
    State(app): State<Machine>,
    Path(number): Path<u64>,
    Asked(Of { age_ms }): Asked<Of>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let as_of = app.entry.ago(Duration::from_millis(age_ms).min(AGE_MAX));
    let turn = app.turns.upload(attempt).await;
    let links = app.checkpoints.links(attempt).map_err(|error| Problem::disk(&error))?;
    let receiving = Incoming::receive(body.into_data_stream(), &app.incoming, BYTES_MAX);
    let incoming = turn.take(receiving).await??;
    let (head, begins_at) = read_head(incoming.path())?;
    let fit = Checkpoints::fit(&links, number, &head)?;
    let bytes = std::fs::metadata(incoming.path()).map_err(|error| Problem::disk(&error))?.len();
    let bytes_max = room(&links, &head);
    if bytes > bytes_max {
        return Err(IncomingError::TooLong { bytes_max }.into());
    }
    let redactor = app.entry.redactor();
    let pack = Pack { file: incoming.path().to_owned(), begins_at };
    let digits = head.head.as_ref().map_or(0, String::len);
    let found = match () {
        () if redactor.is_empty() => Ok(false),
        () => turn.take(app.turns.search(Box::pin(has_secret(&app, digits, &pack, &redactor)))).await?,
    };
    admit(&app, &headers).await?;
    if let Some(problem) = withheld_because(found) {
        let withheld = app.checkpoints.withhold(attempt, incoming).await;
        return Err(withheld.err().map_or(problem, |error| Problem::disk(&error)));
    }
    let kept = app.checkpoints.keep(attempt, number, as_of, incoming, fit).await;
    kept.map_err(|error| Problem::disk(&error))?;
    app.entry.checkpointed(attempt, number, as_of, (head.files, bytes)).await?;
    failpoint("checkpoint-told");
    Ok(StatusCode::NO_CONTENT)
}

/// Why a checkpoint is not taken as a search found it.
fn withheld_because(found: Result<bool, SearchError>) -> Option<Problem> {
    match found {
        Ok(false) => None,
        Ok(true) => Some(Problem::secret_in_checkpoint()),
        // Others have kept it waiting: the same may be taken when it comes again.
        Err(error @ SearchError::TooLate) => Some(Problem::checkpoint_waits(&causes(&error))),
        Err(error) => Some(Problem::unsearched_checkpoint(&causes(&error))),
    }
}

/// What another may have: beside those before it, unless it takes their place.
fn room(links: &[Link], head: &Checkpoint) -> u64 {
    let stay = if head.after == 0 { &[] } else { links };
    BYTES_MAX.saturating_sub(stay.iter().map(|link| link.bytes).sum())
}

async fn has_secret(
    app: &Machine,
    digits: usize,
    pack: &Pack,
    redactor: &Redactor,
) -> Result<bool, SearchError> {
    let scratch = tempfile::tempdir_in(&app.incoming)?;
    let mut scan = Scan::new(redactor);
    let whole =
        read_pack(&app.git, scratch.path(), digits, pack, |piece| -> ControlFlow<()> { scan.piece(piece) });
    let whole = whole.await?;
    scan.over(whole)
}

/// The query of a part of the session file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// Where in the file it begins: after what was handed over before, or at 0, anew.
    from: u64,
}

/// `PUT /v1/worker/checkpoint/transcript`: whole lines.
pub(super) async fn transcript(
    State(app): State<Machine>,
    Asked(From { from }): Asked<From>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let turn = app.turns.upload(attempt).await;
    let body = Masked::new(body.into_data_stream(), app.entry.redactor());
    let room = TRANSCRIPT_BYTES_MAX.saturating_sub(from);
    let incoming = turn.take(Incoming::receive(body, &app.incoming, room)).await??;
    admit(&app, &headers).await?;
    match app.checkpoints.append(attempt, from, incoming).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::bad_request("this part of the session file does not follow what is kept")),
        Err(error) => Err(Problem::disk(&error)),
    }
}

impl std::convert::From<BadCheckpoint> for Problem {
    fn from(error: BadCheckpoint) -> Self {
        match error {
            BadCheckpoint::Disk(error) => Self::disk(&error),
            error => Self::bad_request(format!("this checkpoint cannot be taken: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    /// A worker sends again what is answered with trouble of ours, and waits for the next change after a refusal.
    #[test]
    fn what_was_not_searched_in_time_is_asked_for_again() {
        let status = |found| withheld_because(found).map(|problem| problem.into_response().status());
        assert_eq!(status(Ok(false)), None);
        assert_eq!(status(Err(SearchError::TooLate)), Some(StatusCode::SERVICE_UNAVAILABLE));
        for found in [Ok(true), Err(SearchError::TooMuch)] {
            assert_eq!(status(found), Some(StatusCode::UNPROCESSABLE_ENTITY));
        }
    }

    /// Or else it would be refused for ever once those before it are half of what there may be.
    #[test]
    fn what_takes_the_place_of_all_has_all_the_room() {
        let links = [Link::of_bytes(BYTES_MAX / 4), Link::of_bytes(BYTES_MAX / 2)];
        let after = |after| Checkpoint { after, ..Checkpoint::default() };
        assert_eq!(room(&links, &after(1)), BYTES_MAX / 4);
        assert_eq!(room(&links, &after(0)), BYTES_MAX);
    }
}
