//! What a worker brings out of its machine. The token says whose it is; a later upload replaces an earlier.
//!
//! In a session file configured secrets are masked on their way to the disk.

use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mayfly_core::AttemptId;
use mayfly_gateway::Masked;

use super::Machine;
use super::extract::bearer;
use super::problem::Problem;
use super::results;
use crate::incoming::Incoming;

/// The longest bundle of a result.
const BUNDLE_BYTES_MAX: u64 = 2 << 30;
/// The longest session file.
const TRANSCRIPT_BYTES_MAX: u64 = 512 << 20;

/// `PUT /v1/worker/result/bundle`
pub(super) async fn bundle(
    State(app): State<Machine>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let incoming = Incoming::receive(body.into_data_stream(), &app.incoming, BUNDLE_BYTES_MAX).await?;
    keep(&app, attempt, incoming, "bundle").await
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
