//! The orchestrator's API on this machine: logs from here, everything else from there.
//!
//! A log that is whole is read here, also while the orchestrator is away; one that still grows is followed here.
//! What a log holds so far is asked of the orchestrator, if it can be reached: it may be ahead. It also knows best
//! which task an end of an id means; while it is away, the logs here do.
//!
//! A log here that turns out to be damaged is reported, to be fetched again, and its reader cut off; until it is there
//! again, it is the orchestrator's.
//!
//! A log that is not whole here, and of which the orchestrator keeps no more, ends with what is here and then, asked for
//! once more, with the orchestrator's `gone`: whoever follows it would wait for ever else.

use std::io;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use mayfly_core::{TaskId, causes};
use mayfly_link::LinkError;
use mayfly_wire::api::Problem;
use mayfly_wire::tunnel::{AWAY, STATUS_PATH, Status};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::forward::{Forward, ForwardError, QUIET_MAX};
use crate::logs::{is_whole, path_in};
use crate::names::ending_with;
use crate::reader::{LogReader, is_damage};

/// The most bytes of what is told of a task.
const TASK_BYTES_MAX: usize = 1024 * 1024;

/// The lines of a log, some at a time.
type Lines = BoxStream<'static, io::Result<Bytes>>;

/// What of a task must be known here.
#[derive(Debug, Deserialize)]
struct Kept {
    #[serde(default)]
    pruned: bool,
}

/// What the routes need.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) forward: Forward,
    pub(crate) folder: PathBuf,
    pub(crate) appended: watch::Receiver<u64>,
    pub(crate) status: watch::Receiver<Status>,
    /// Where damaged logs are reported.
    pub(crate) damage: mpsc::Sender<TaskId>,
}

/// The query of a log, as the orchestrator has it.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
        .route("/healthz", get(async || "ok\n").fallback(pass))
        .route(STATUS_PATH, get(status).fallback(pass))
        .route("/v1/tasks/{id}/events", get(events).fallback(pass))
        .fallback(pass)
        .with_state(local)
}

async fn status(State(local): State<Local>) -> Json<Status> {
    let forwarding = local.forward.count();
    Json(Status { forwarding, ..local.status.borrow().clone() })
}

/// The log from here if it is here, else from the orchestrator.
async fn events(State(local): State<Local>, request: Request) -> Response {
    let Some(Asked { name, from }) = Asked::of(&request) else { return pass(State(local), request).await };
    let Ok(task) = name.parse() else { return local.by_end(request, &name, from).await };
    match local.log(task, from).await {
        Ok(Some(lines)) => answer(lines),
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
    passed.unwrap_or_else(|error| local.not_passed(&error))
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
    async fn log(&self, task: TaskId, From { after, follow }: From) -> io::Result<Option<Lines>> {
        let connected = self.status.borrow().connected;
        let Some(folder) = self.of_store() else { return Ok(None) };
        let path = path_in(&folder, task);
        let whole = whole(&path).await?;
        if connected && !follow && !whole {
            return Ok(None);
        }
        let appended = follow.then(|| self.appended.clone());
        let Some(mut reader) = LogReader::open((&path, task), after, appended).await? else {
            return Ok(None);
        };
        let first = match reader.now().await {
            Err(error) if is_damage(&error) => {
                self.report(task);
                return Ok(None);
            }
            read => read?,
        };
        if first.is_none() && connected && !whole && self.keeps_no_more(task).await {
            return Ok(None);
        }
        let rest = Followed { reader, news: None, asking: None, task, path, local: self.clone() }.lines();
        Ok(Some(stream::iter(first.map(Ok)).chain(rest).boxed()))
    }

    /// Has a damaged log looked into. Where many reports wait, whoever reads it next does.
    fn report(&self, task: TaskId) {
        let _ = self.damage.try_send(task);
    }

    /// Whether the orchestrator says that it has no more of a task's log. One that does not answer says nothing.
    async fn keeps_no_more(&self, task: TaskId) -> bool {
        let Ok(answer) = self.forward.get(&format!("/v1/tasks/{task}")).await else { return false };
        let body = Limited::new(answer.into_body(), TASK_BYTES_MAX).collect();
        let Ok(Ok(body)) = timeout(QUIET_MAX, body).await else { return false };
        serde_json::from_slice::<Kept>(&body.to_bytes()).is_ok_and(|task| task.pruned)
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
            Ok(Ok(lines)) => answer(lines),
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

    /// What is told of a request that was not answered.
    fn not_passed(&self, error: &ForwardError) -> Response {
        let words = self.away_words(error);
        match error {
            ForwardError::Busy => problem(StatusCode::SERVICE_UNAVAILABLE, "busy", causes(error)),
            ForwardError::Quiet | ForwardError::Link(LinkError::Silent { .. }) => {
                problem(StatusCode::GATEWAY_TIMEOUT, AWAY, words)
            }
            ForwardError::Link(_) | ForwardError::Http(_) => away(words),
        }
    }

    /// The one log whose task's id ends so, or those that do.
    async fn read_by_end(&self, end: &str, from: From) -> io::Result<Result<Lines, Vec<TaskId>>> {
        let Some(folder) = self.of_store() else { return Ok(Err(Vec::new())) };
        let (logs, end) = (folder.clone(), end.to_owned());
        let found = spawn_blocking(move || ending_with(&logs, &end)).await.expect("it does not panic")?;
        let &[task] = &found[..] else { return Ok(Err(found)) };
        Ok(self.log(task, from).await?.ok_or_else(Vec::new))
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
    let mut asked = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    !asked.any(|asked| asked.to_ascii_lowercase().contains("text/event-stream"))
}

fn answer(lines: Lines) -> Response {
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(lines)).into_response()
}

fn away(detail: String) -> Response {
    problem(StatusCode::BAD_GATEWAY, AWAY, detail)
}

/// What may have become of a log while somebody waits for more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct News {
    connections: u64,
    skipped: u64,
    damaged: u64,
    mended: u64,
}

impl News {
    fn of(status: &Status) -> Self {
        let &Status { connections, skipped, damaged, mended, .. } = status;
        Self { connections, skipped, damaged, mended }
    }
}

/// A log that is read as it grows, by one who is told if it grows no more.
struct Followed {
    reader: LogReader,
    /// What was the matter when the orchestrator was asked last.
    news: Option<News>,
    /// Whether it keeps no more of the log: what it has not answered yet.
    asking: Option<BoxFuture<'static, bool>>,
    task: TaskId,
    path: PathBuf,
    local: Local,
}

impl Followed {
    fn lines(self) -> Lines {
        stream::try_unfold(self, async |mut followed| {
            Ok(followed.next().await?.map(|lines| (lines, followed)))
        })
        .boxed()
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut status = self.local.status.clone();
        loop {
            let seen = self.news;
            tokio::select! {
                biased;
                lines = self.reader.next() => {
                    return lines.inspect_err(|error| if is_damage(error) { self.local.report(self.task) });
                }
                none_kept = answered(&mut self.asking) => {
                    self.asking = None;
                    if none_kept {
                        return Err(grows_no_more());
                    }
                    continue;
                }
                changed = status.wait_for(|status| status.connected && Some(News::of(status)) != seen) => {
                    self.news = Some(News::of(&*changed.map_err(|_| io::ErrorKind::BrokenPipe)?));
                }
            }
            if !self.reader.is_of(&self.path).await? {
                return Err(grows_no_more());
            }
            let (local, task) = (self.local.clone(), self.task);
            self.asking = Some(async move { local.keeps_no_more(task).await }.boxed());
        }
    }
}

async fn answered(asking: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Whoever is cut off comes again, from where it was.
fn grows_no_more() -> io::Error {
    io::Error::other("this log grows no more")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use mayfly_testkit::faulty::in_memory;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;

    fn connected() -> Status {
        Status {
            to: "there".to_owned(),
            connected: true,
            since: Timestamp::now(),
            trouble: None,
            lasting: false,
            store: None,
            version: None,
            position: 0,
            head: 0,
            skipped: 0,
            damaged: 0,
            mended: 0,
            forwarding: 0,
            connections: 1,
            logs: String::new(),
        }
    }

    /// The orchestrator was asked whether it keeps more, and does not answer.
    #[tokio::test(start_paused = true)]
    async fn lines_that_come_while_the_orchestrator_is_asked_are_given_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.ndjson");
        std::fs::write(&path, "").expect("made");
        let ((raise, appended), (_status, status)) = (watch::channel(0), watch::channel(connected()));
        let task = TaskId::new(Uuid::from_u128(1));
        let reader = LogReader::open((&path, task), 0, Some(appended.clone())).await;
        let reader = reader.expect("opened").expect("there");
        let (way, mut asked) = in_memory();
        let forward = Forward::new(Arc::new(way), None).expect("good");
        let (folder, damage) = (folder.path().to_owned(), mpsc::channel(1).0);
        let local = Local { forward, folder, appended, status, damage };
        let mut lines =
            Followed { reader, news: None, asking: None, task, path: path.clone(), local }.lines();
        let began = Instant::now();
        let append = async {
            let unanswered = asked.recv().await;
            std::fs::write(&path, "{\"seq\":1}\n").expect("written");
            raise.send_replace(1);
            unanswered
        };
        let (line, _unanswered) = tokio::join!(lines.next(), append);
        assert_eq!(line.expect("more").expect("read"), "{\"seq\":1}\n");
        assert!(began.elapsed() < QUIET_MAX, "{:?}", began.elapsed());
    }
}
