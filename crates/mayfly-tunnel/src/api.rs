//! The orchestrator's API on this machine: logs from here, everything else from there.
//!
//! A log that is whole is read here, also while the orchestrator is away; one that still grows is followed here.
//! What a log holds so far is asked of the orchestrator, if it can be reached: it may be ahead. It also knows best
//! which task an end of an id means; while it is away, the logs here do.

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
use mayfly_wire::tunnel::{AWAY, STATUS_PATH, Status};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::forward::{Forward, ForwardError};
use crate::logs::{is_whole, path_in};
use crate::names::ending_with;
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
    let Some(Asked { name, from }) = Asked::of(&request) else { return pass(State(local), request).await };
    let Ok(task) = name.parse() else { return local.by_end(request, &name, from).await };
    match local.log(task, from).await {
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
    passed.unwrap_or_else(|error| away(local.away_words(&error)))
}

fn away(detail: String) -> Response {
    problem(StatusCode::BAD_GATEWAY, AWAY, detail)
}

fn problem(status: StatusCode, kind: &str, detail: String) -> Response {
    let problem = Problem { kind: kind.to_owned(), status: status.as_u16(), detail, first: None };
    (status, [(CONTENT_TYPE, "application/problem+json")], Json(problem)).into_response()
}

/// A log that may be read here: the lines of a task that is named by its id or by an end of it.
struct Asked {
    name: String,
    from: From,
}

impl Asked {
    fn of(request: &Request) -> Option<Self> {
        let name = request.uri().path().strip_prefix("/v1/tasks/")?.strip_suffix("/events")?;
        let Query(from) = Query::try_from_uri(request.uri()).ok()?;
        wants_lines(request.headers()).then_some(Self { name: name.to_owned(), from })
    }
}

impl Local {
    /// The log of `task`, if it is to be read here.
    async fn log(&self, task: TaskId, From { after, follow }: From) -> io::Result<Option<LogReader>> {
        let connected = self.status.borrow().connected;
        let Some(folder) = self.of_store() else { return Ok(None) };
        let path = path_in(&folder, task);
        if connected && !follow && !whole(&path).await? {
            return Ok(None);
        }
        LogReader::open(&path, after, follow.then(|| self.appended.clone())).await
    }

    /// The log of the task whose id ends with `end`: which one that is, the orchestrator knows, and if it cannot
    /// be reached, it is the one log here.
    async fn by_end(&self, request: Request, end: &str, from: From) -> Response {
        let error = match self.forward.pass(request).await {
            Ok(passed) => return passed,
            Err(error) => error,
        };
        let away_words = self.away_words(&error);
        match self.read_by_end(end, from).await {
            Ok(Ok(reader)) => answer(reader),
            Ok(Err(found)) if found.is_empty() => {
                away(format!("{away_words}; and no log on this machine is of a task whose id ends so"))
            }
            Ok(Err(found)) => {
                let ids: Vec<String> = found.iter().map(ToString::to_string).collect();
                let ids = ids.join(", ");
                let detail = format!("the ids of several logs here end so: give more digits ({ids})");
                problem(StatusCode::CONFLICT, "ambiguous-task", detail)
            }
            Err(error) => away(format!("{away_words}; and no log here can be read: {}", causes(&error))),
        }
    }

    /// The one log whose task's id ends so, or those that do.
    async fn read_by_end(&self, end: &str, from: From) -> io::Result<Result<LogReader, Vec<TaskId>>> {
        let Some(folder) = self.of_store() else { return Ok(Err(Vec::new())) };
        let (logs, end) = (folder.clone(), end.to_owned());
        let found = spawn_blocking(move || ending_with(&logs, &end)).await.expect("it does not panic")?;
        let &[task] = &found[..] else { return Ok(Err(found)) };
        let appended = from.follow.then(|| self.appended.clone());
        let reader = LogReader::open(&path_in(&folder, task), from.after, appended).await?;
        Ok(reader.ok_or_else(Vec::new))
    }

    /// The folder of the database that is followed, if one is known.
    fn of_store(&self) -> Option<PathBuf> {
        self.status.borrow().store.as_ref().map(|store| self.folder.join(store))
    }

    /// Why the orchestrator does not answer.
    fn away_words(&self, error: &ForwardError) -> String {
        let Status { connected, to, since, trouble, .. } = &*self.status.borrow();
        match trouble {
            Some(trouble) if !connected => {
                format!("the tunnel has no link to {to} since {since:.0}: {trouble}")
            }
            _ => format!("the tunnel has no answer from {to}: {}", causes(error)),
        }
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
