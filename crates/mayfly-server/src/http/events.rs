//! A task's log, as NDJSON or as server-sent events: from any event on, to the task's end.
//!
//! A log that is whole ends the answer as HTTP has it. A server that stops, or a database that fails, breaks
//! the answer off instead, so that a client never takes a part for the whole.
//!
//! A reader of server-sent events comes again by itself after every end, with the number of the last event: if nothing
//! follows that one, and nothing will, the answer is 204, which tells it to stay away.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use jiff::SignedDuration;
use mayfly_core::causes;
use mayfly_engine::{Clock, EventReader, LogError, Run};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Owner;
use super::extract::{Asked, Task, TaskPath};
use super::problem::Problem;

/// What the answer is called.
const NDJSON: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";
/// The longest silence of an answer with server-sent events: whoever is between us and the reader may take more for
/// the end.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A line that says nothing.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

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

/// `GET /v1/tasks/{id}/events?after=N&follow=true`: as NDJSON, or with `Accept: text/event-stream` as server-sent events.
///
/// The log is whole once the answer has ended as HTTP has it; one that breaks off is to be asked for again, from the
/// last event on. Of server-sent events each has its number as `id` and the object of NDJSON as `data`, and a comment
/// comes after 15 s of silence. An `EventSource` comes again by itself, and is told by 204 that it has everything.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/events",
    params(TaskPath, From, ("Last-Event-ID" = Option<u64>, Header, description = "With server-sent events: the event after which to start, whatever `after` says")),
    responses(
        (status = 200, description = "An event a line, to the end of the task", content(
            (mayfly_wire::event::Event = "application/x-ndjson"),
            (String = "text/event-stream"),
        )),
        (status = 204, description = "With server-sent events: the task is over, and nothing follows the last event"),
        (status = 400, description = "A number of an event that is none", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 410, description = "Events after `after` are not kept any more: `first` is the first that is", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn follow(
    State(app): State<Owner>,
    Task(id): Task,
    Asked(From { after, follow }): Asked<From>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sse = wants_sse(&headers);
    let after = if sse { last_event(&headers)?.unwrap_or(after) } else { after };
    let reader = app.engine.events(id, after, follow).await?.ok_or_else(Problem::no_task)?;
    if sse && reader.is_over() {
        return Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response());
    }
    let name = if sse { SSE } else { NDJSON };
    let clock = sse.then(|| app.engine.clock().clone());
    let body = Body::from_stream(pieces(Answer { reader, stopping: app.house.stopping, clock }));
    Ok(([(CONTENT_TYPE, name), (CACHE_CONTROL, "no-store")], body).into_response())
}

fn wants_sse(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let kinds = accepted.flat_map(|value| value.split(','));
    kinds.filter_map(|kind| kind.split(';').next()).any(|kind| kind.trim().eq_ignore_ascii_case(SSE))
}

/// The last event that a reader had.
fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Problem::bad_request("`Last-Event-ID` is not the number of an event"))
}

/// A log on its way out.
struct Answer {
    reader: EventReader,
    stopping: CancellationToken,
    /// With server-sent events, which say something from time to time.
    clock: Option<std::sync::Arc<dyn Clock>>,
}

fn pieces(answer: Answer) -> impl Stream<Item = Result<Bytes, BrokeOff>> {
    stream::try_unfold(answer, async |mut answer| {
        let piece = answer.next().await;
        let piece = piece.inspect_err(|error| tracing::warn!(cause = %causes(error), "a log broke off"))?;
        Ok(piece.map(|piece| (piece, answer)))
    })
}

impl Answer {
    async fn next(&mut self) -> Result<Option<Bytes>, BrokeOff> {
        let Self { reader, stopping, clock } = self;
        let next = async {
            let Some(clock) = clock else { return Ok(reader.next().await?.map(|run| run.lines)) };
            let silence = SignedDuration::try_from(KEEP_ALIVE).expect("it is short");
            tokio::select! {
                biased;
                run = reader.next() => Ok(run?.map(|run| numbered(&run))),
                () = clock.sleep_until(clock.now() + silence) => Ok(Some(COMMENT)),
            }
        };
        stopping.run_until_cancelled(next).await.ok_or(BrokeOff::Stopping)?
    }
}

/// The lines as server-sent events; no line holds a line end.
fn numbered(run: &Run) -> Bytes {
    const BESIDES: usize = "id: \ndata: \n".len() + 20;
    let count = usize::try_from(run.last_seq - run.first_seq).map_or(0, |last| last + 1);
    let mut events = Vec::with_capacity(run.lines.len() + count * BESIDES);
    for (line, seq) in run.lines.split_inclusive(|&byte| byte == b'\n').zip(run.first_seq..) {
        events.extend_from_slice(format!("id: {seq}\ndata: ").as_bytes());
        events.extend_from_slice(line);
        events.push(b'\n');
    }
    events.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), http::HeaderValue::from_static(value))])
    }

    #[test]
    fn server_sent_events_are_for_those_who_ask_for_them() {
        for accept in ["text/event-stream", "a/b, Text/Event-Stream;q=0.9", "text/event-stream ,*/*"] {
            assert!(wants_sse(&headers("accept", accept)), "{accept}");
        }
        for accept in ["*/*", "application/x-ndjson", "text/event-streams", "text/*"] {
            assert!(!wants_sse(&headers("accept", accept)), "{accept}");
        }
        assert!(!wants_sse(&HeaderMap::new()));
    }

    /// S40
    #[test]
    fn the_last_event_is_a_number_or_refused() {
        assert_eq!(last_event(&HeaderMap::new()).expect("none"), None);
        assert_eq!(last_event(&headers("last-event-id", "7")).expect("a number"), Some(7));
        for bad in ["", "-1", "x", "1.5", "18446744073709551616", "7 "] {
            last_event(&headers("last-event-id", bad)).expect_err(bad);
        }
    }
}
