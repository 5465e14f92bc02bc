//! What a worker brings out of its machine. The token says whose it is; a later upload replaces an earlier.
//!
//! In a session file configured secrets are masked on their way to the disk. In work nothing can be masked, since commits
//! are named by their content: it is searched, and with a secret in it withheld ([`WITHHELD`]), never deleted; and so is
//! what cannot be searched.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mayfly_core::{AttemptId, Carry, causes};
use mayfly_engine::StoreError;
use mayfly_gateway::Masked;
use mayfly_git::{Base, CONTENTS_BYTES_MAX, GitError, read_through};

use super::Machine;
use super::extract::bearer;
use super::problem::Problem;
use super::results;
use crate::incoming::Incoming;

/// The longest bundle of a result.
const BUNDLE_BYTES_MAX: u64 = 2 << 30;
/// The longest session file.
const TRANSCRIPT_BYTES_MAX: u64 = 512 << 20;

/// The name of work that is not given out.
const WITHHELD: &str = "bundle.withheld";

/// `PUT /v1/worker/result/bundle`
pub(super) async fn bundle(
    State(app): State<Machine>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let incoming = Incoming::receive(body.into_data_stream(), &app.incoming, BUNDLE_BYTES_MAX).await?;
    let problem = match has_secret(&app, attempt, incoming.path()).await {
        Ok(false) => return keep(&app, attempt, incoming, "bundle").await,
        Ok(true) => Problem::secret_in_work(attempt),
        Err(error) => Problem::unsearched_work(attempt, &causes(&error)),
    };
    keep(&app, attempt, incoming, WITHHELD).await?;
    Err(problem)
}

/// Whether work has a configured secret in its files, its names or its messages.
async fn has_secret(app: &Machine, attempt: AttemptId, bundle: &Path) -> Result<bool, SearchError> {
    let redactor = app.entry.redactor();
    if redactor.is_empty() {
        return Ok(false);
    }
    let scratch = tempfile::tempdir_in(&app.incoming)?;
    let from = app.entry.workspace(attempt).await?;
    let began = from.map(|from| (app.workspaces.join(format!("{}.bundle", from.id)), from.base));
    let base = began.as_ref().map(|(bundle, commit)| Base { bundle, commit });
    let (mut carry, mut found) = (Carry::default(), false);
    let whole = read_through(&app.git, scratch.path(), base, bundle, |piece| {
        let clean = carry.is_empty() && redactor.is_clean(piece, true);
        found = !clean && redactor.piece(&mut carry, piece, true).places > 0;
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let whole = whole.await?;
    if whole || found { Ok(found) } else { Err(SearchError::TooMuch) }
}

/// Why work was not searched.
#[derive(Debug, thiserror::Error)]
enum SearchError {
    #[error("it holds more than {CONTENTS_BYTES_MAX} bytes")]
    TooMuch,
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no room for it")]
    Disk(#[from] io::Error),
}

/// `PUT /v1/worker/result/transcript`
pub(super) async fn transcript(
    State(app): State<Machine>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let mut body = Masked::new(body.into_data_stream(), app.entry.redactor());
    let incoming = Incoming::receive(&mut body, &app.incoming, TRANSCRIPT_BYTES_MAX).await?;
    if body.places() > 0 {
        let text =
            format!("the session file had a configured secret in {} places, which are masked", body.places());
        app.entry.warn(attempt, text).await?;
    }
    keep(&app, attempt, incoming, "transcript").await
}

async fn admit(app: &Machine, headers: &HeaderMap) -> Result<AttemptId, Problem> {
    let token = bearer(headers).ok_or_else(Problem::denied)?;
    app.entry.admit_result(token).await.map_err(|_| Problem::denied())
}

async fn keep(
    app: &Machine,
    attempt: AttemptId,
    incoming: Incoming,
    name: &str,
) -> Result<StatusCode, Problem> {
    let folder = results::folder(&app.results, attempt);
    let disk = |error| Problem::disk(&error);
    tokio::fs::create_dir_all(&folder).await.map_err(disk)?;
    incoming.keep(&folder.join(name)).await.map_err(disk)?;
    Ok(StatusCode::NO_CONTENT)
}
