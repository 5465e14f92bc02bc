//! What the set-up commands of a repository made: taken and handed over by a machine before its agent has begun.
//!
//! Bounds: [`SETUP_BYTES_MAX`], one file at a time of each machine, and what the engine keeps of all.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use mayfly_failpoint::failpoint;
use mayfly_wire::worker::SETUP_BYTES_MAX;

use super::extract::admit;
use super::problem::Problem;
use super::{Machine, download};
use crate::incoming::Incoming;

/// `GET /v1/worker/setup/{key}`
pub(super) async fn fetch(
    State(app): State<Machine>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let attempt = admit(&app, &headers).await?;
    let place = app.entry.kept_setup(attempt, &key).await?.ok_or_else(Problem::denied)?;
    download::file(&place, Problem::no_resource).await
}

/// `PUT /v1/worker/setup/{key}`
pub(super) async fn keep(
    State(app): State<Machine>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    app.entry.setup_to_keep(attempt, &key).await?.ok_or_else(Problem::denied)?;
    let turn = app.turns.upload(attempt).await;
    let receiving = Incoming::receive(body.into_data_stream(), &app.incoming, SETUP_BYTES_MAX);
    let incoming = turn.take(receiving).await??;
    // The agent may have begun meanwhile.
    let place = app.entry.setup_to_keep(attempt, &key).await?.ok_or_else(Problem::denied)?;
    incoming.keep(&place).await.map_err(|error| Problem::disk(&error))?;
    app.entry.setup_is_kept(&place).await.map_err(|error| Problem::disk(&error))?;
    failpoint("setup-kept");
    Ok(StatusCode::NO_CONTENT)
}
