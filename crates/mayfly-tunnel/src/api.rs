//! The orchestrator's API on this machine: logs from here, everything else from there.
//!
//! A log that is whole is read here, also while the orchestrator is away; one that still grows is followed here.
//! What a log holds so far is asked of the orchestrator, if it can be reached: it may be ahead.

use std::io;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use mayfly_core::{TaskId, causes};
use mayfly_wire::api::Problem;
use mayfly_wire::tunnel::{STATUS_PATH, Status};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::forward::Forward;
use crate::logs::{is_whole, path_in};
use crate::reader::LogReader;

/// What the routes need.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) forward: Forward,
    pub(crate) folder: PathBuf,
    pub(crate) appended: watch::Receiver<u64>,
    pub(crate) status: watch::Receiver<Status>,
}

/// The query of a log, as the orchestrator has it.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct From {
    after: u64,
    follow: bool,
}

impl Default for From {
    fn default() -> Self {
        Self { after: 0, follow: true }
    }
}

pub(crate) fn router(local: Local) -> Router {
    Router::new()
        .route("/healthz", get(async || StatusCode::NO_CONTENT))
        .route(STATUS_PATH, get(status))
        .route("/v1/tasks/{id}/events", get(events))
        .fallback(pass)
        .with_state(local)
}

async fn status(State(local): State<Local>) -> Json<Status> {
    Json(local.status.borrow().clone())
}

/// The log from here if it is here, else from the orchestrator.
async fn events(State(local): State<Local>, request: Request) -> Response {
    let Some(asked) = Asked::of(&request) else { return pass(State(local), request).await };
    match local.log(asked).await {
        Ok(Some(reader)) => answer(reader),
        Ok(None) => pass(State(local), request).await,
        Err(error) => {
            tracing::warn!(cause = %causes(&error), "a log on this machine could not be read");
            pass(State(local), request).await
        }
    }
}

/// Everything else is the orchestrator's.
async fn pass(State(local): State<Local>, request: Request) -> Response {
    let passed = local.forward.pass(request).await;
    passed.unwrap_or_else(|error| {
        let detail =
            format!("the tunnel has no answer from {}: {}", local.status.borrow().to, causes(&error));
        away(detail).into_response()
    })
}

fn away(detail: String) -> impl IntoResponse {
    let status = StatusCode::BAD_GATEWAY;
    let problem =
        Problem { kind: "orchestrator-away".to_owned(), status: status.as_u16(), detail, first: None };
    (status, [(CONTENT_TYPE, "application/problem+json")], Json(problem))
}

/// A log that can be read here.
struct Asked {
    task: TaskId,
    from: From,
}

impl Asked {
    /// A whole id names a log here; only the orchestrator knows which task an end of one means.
    fn of(request: &Request) -> Option<Self> {
        let task = request.uri().path().strip_prefix("/v1/tasks/")?.strip_suffix("/events")?;
        let Query(from) = Query::try_from_uri(request.uri()).ok()?;
        wants_lines(request.headers()).then_some(Self { task: task.parse().ok()?, from })
    }
}

impl Local {
    /// The log that is asked for, if it is to be read here.
    async fn log(&self, asked: Asked) -> io::Result<Option<LogReader>> {
        let Asked { task, from: From { after, follow } } = asked;
        let (connected, store) = {
            let status = self.status.borrow();
            (status.connected, status.store.clone())
        };
        let Some(store) = store else { return Ok(None) };
        let path = path_in(&self.folder.join(store), task);
        if connected && !follow && !whole(&path).await? {
            return Ok(None);
        }
        LogReader::open(&path, after, follow.then(|| self.appended.clone())).await
    }
}

async fn whole(path: &Path) -> io::Result<bool> {
    let path = path.to_owned();
    match spawn_blocking(move || is_whole(&path)).await.expect("it does not panic") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        looked => looked,
    }
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let asked = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    !asked.is_some_and(|asked| asked.contains("text/event-stream"))
}

fn answer(reader: LogReader) -> Response {
    let lines = stream::try_unfold(reader, async |mut reader| {
        Ok::<_, io::Error>(reader.next().await?.map(|lines| (lines, reader)))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
