//! What a worker brings out of its machine. The token says whose it is; a later upload replaces an earlier.

use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, StatusCode};

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
    store(&app, &headers, body, "bundle", BUNDLE_BYTES_MAX).await
}

/// `PUT /v1/worker/result/transcript`
pub(super) async fn transcript(
    State(app): State<Machine>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    store(&app, &headers, body, "transcript", TRANSCRIPT_BYTES_MAX).await
}

async fn store(
    app: &Machine,
    headers: &HeaderMap,
    body: Body,
    name: &str,
    bytes_max: u64,
) -> Result<StatusCode, Problem> {
    let token = bearer(headers).ok_or_else(Problem::denied)?;
    let attempt = app.entry.admit_result(token).await.map_err(|_| Problem::denied())?;
    let incoming = Incoming::receive(body.into_data_stream(), &app.incoming, bytes_max).await?;
    let folder = results::folder(&app.results, attempt);
    let disk = |error| Problem::disk(&error);
    tokio::fs::create_dir_all(&folder).await.map_err(disk)?;
    incoming.keep(&folder.join(name)).await.map_err(disk)?;
    Ok(StatusCode::NO_CONTENT)
}
