//! A task's log, as NDJSON: from any event on, to the task's end.
//!
//! A log that is whole ends the answer as HTTP has it. A server that stops, or a database that fails, breaks
//! the answer off instead, so that a client never takes a part for the whole.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use http::header::CONTENT_TYPE;
use mayfly_core::causes;
use mayfly_engine::{EventReader, LogError};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Owner;
use super::extract::{Asked, Task, TaskPath};
use super::problem::Problem;

/// The query of a log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(super) struct From {
    /// The event after which to start; 0 is everything.
    after: u64,
    /// Whether to go on until the task has ended. Default: yes.
    follow: bool,
}

impl Default for From {
    fn default() -> Self {
        Self { after: 0, follow: true }
    }
}

/// Why a log breaks off.
#[derive(Debug, thiserror::Error)]
enum BrokeOff {
    #[error("the orchestrator stops")]
    Stopping,
    #[error("the log was not read")]
    Log(#[from] LogError),
}

/// `GET /v1/tasks/{id}/events?after=N&follow=true`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/events",
    params(TaskPath, From),
    responses(
        (status = 200, description = "An event a line, to the end of the task", body = mayfly_wire::event::Event, content_type = "application/x-ndjson"),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn follow(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(From { after, follow }): Asked<From>,
) -> Result<Response, Problem> {
    let reader = app.engine.events(id, after, follow).await?.ok_or_else(Problem::no_task)?;
    let body = Body::from_stream(lines(reader, app.house.stopping));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn lines(reader: EventReader, stopping: CancellationToken) -> impl Stream<Item = Result<Bytes, BrokeOff>> {
    stream::try_unfold((reader, stopping), async |(mut reader, stopping)| {
        let chunk = next(&mut reader, &stopping).await;
        let chunk = chunk.inspect_err(|error| tracing::warn!(cause = %causes(error), "a log broke off"))?;
        Ok(chunk.map(|chunk| (chunk, (reader, stopping))))
    })
}

async fn next(reader: &mut EventReader, stopping: &CancellationToken) -> Result<Option<Bytes>, BrokeOff> {
    let next = stopping.run_until_cancelled(reader.next()).await;
    Ok(next.ok_or(BrokeOff::Stopping)??.map(|run| run.lines))
}
