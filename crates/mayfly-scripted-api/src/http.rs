//! HTTP: which route, which answer. The decisions are made elsewhere; here they are put in order and sent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::Router;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::directive::{self, Cue};
use crate::problem::Problem;
use crate::reply::{Asked, Block, Ending, Frame, Turn, Usage, fresh_id};
use crate::stage::{Seen, Stage};
use crate::{Accepted, check, credential};

/// The largest body that the API takes.
const BODY_BYTES_MAX: usize = 32 << 20;

/// What every request needs.
pub(crate) struct App {
    pub(crate) accepted: Accepted,
    pub(crate) pace: f64,
    pub(crate) stage: Arc<Stage>,
}

/// The answer to a request, decided but not begun.
enum Answer {
    Empty,
    Json(Value),
    Play { turn: Box<Turn>, model: String, usage: Usage, stream: bool },
}

/// A route of the API.
enum Route {
    Messages,
    CountTokens,
    Hello,
}

pub(crate) fn router(app: App) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(app))
}

async fn answer(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, BODY_BYTES_MAX).await;
    let body = bytes.as_ref().ok().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let mut scenario = None;
    let answer = match bytes {
        Ok(_) => decide(&app, &parts, body.as_ref(), &mut scenario),
        Err(_) => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broke off")),
    };
    let status = answer.as_ref().map_or_else(|problem| problem.status, |_| StatusCode::OK);
    app.stage.record(seen(&parts, body.unwrap_or_default(), scenario, status));
    match answer {
        Ok(Answer::Empty) => StatusCode::OK.into_response(),
        Ok(Answer::Json(body)) => with_id(Json(body).into_response()),
        Ok(Answer::Play { turn, model, usage, stream }) => {
            play(&app, *turn, &Asked { model: &model, usage }, stream).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn decide(
    app: &App,
    parts: &Parts,
    body: Option<&Value>,
    scenario: &mut Option<String>,
) -> Result<Answer, Problem> {
    let route = route(parts)?;
    if matches!(route, Route::Hello) {
        return Ok(Answer::Empty);
    }
    credential::check(&parts.headers, &app.accepted)?;
    credential::check_version(&parts.headers)?;
    let body = body.ok_or_else(|| Problem::invalid("the body is not JSON"))?;
    if matches!(route, Route::CountTokens) {
        check::count_request(body)?;
        return Ok(Answer::Json(json!({"input_tokens": Usage::of(body).total()})));
    }
    check::messages_request(body)?;
    let stream = body["stream"].as_bool().unwrap_or_default();
    let turn = match directive::cue(body)? {
        Some(cue) => {
            *scenario = Some(cue.name.clone());
            let Cue { scenario, step, cwd, .. } = cue;
            scenario.turn(step, cwd.as_deref())?
        }
        None => Turn::of(vec![Block::Text(NO_DIRECTIVE.into())]),
    };
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    Ok(Answer::Play { turn: Box::new(turn), model, usage: Usage::of(body), stream })
}

const NO_DIRECTIVE: &str =
    "This is a scripted model. Put a directive such as [script: text] into the prompt.";

fn route(parts: &Parts) -> Result<Route, Problem> {
    match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/v1/messages") => Ok(Route::Messages),
        (&Method::POST, "/v1/messages/count_tokens") => Ok(Route::CountTokens),
        (&Method::HEAD, "/" | "/api/hello") => Ok(Route::Hello),
        (method, path) => Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no {method} {path}"))),
    }
}

fn seen(parts: &Parts, body: Value, scenario: Option<String>, status: StatusCode) -> Seen {
    Seen {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers_that_matter(&parts.headers),
        body,
        scenario,
        status: status.as_u16(),
    }
}

fn headers_that_matter(headers: &HeaderMap) -> Vec<(String, String)> {
    let matters = |name: &str| {
        ["authorization", "x-api-key", "user-agent", "host"].contains(&name)
            || name.starts_with("anthropic-")
            || name.starts_with("x-claude-code-")
    };
    let kept = headers.iter().filter(|(name, _)| matters(name.as_str()));
    kept.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// Sends an answer of the model.
async fn play(app: &App, turn: Turn, asked: &Asked<'_>, stream: bool) -> Response {
    if let Some(hold) = &turn.hold
        && !app.stage.wait_at(hold).await
    {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the scripted API stops").into_response();
    }
    if stream {
        let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
        return with_id((headers, event_stream(app, turn.frames(asked))).into_response());
    }
    match turn.ending {
        Ending::Hung => app.stage.stopped().await,
        Ending::Failed => return Problem::new(overloaded(), "the script fails here").into_response(),
        Ending::Whole | Ending::Cut => tokio::time::sleep(turn.duration().mul_f64(app.pace)).await,
    }
    with_id(Json(turn.body(asked)).into_response())
}

pub(crate) fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).expect("529 is a status")
}

fn event_stream(app: &App, frames: Vec<Frame>) -> Body {
    let player = (frames.into_iter(), Arc::clone(&app.stage), app.pace);
    Body::from_stream(stream::unfold(player, |(mut frames, stage, pace)| async move {
        loop {
            let sent = match frames.next()? {
                Frame::Send(bytes) => Ok(bytes),
                Frame::Pause(pause) => {
                    wait(&stage, pause.mul_f64(pace)).await;
                    continue;
                }
                Frame::Hang => {
                    stage.stopped().await;
                    continue;
                }
                Frame::Cut => {
                    // One turn for the server to flush what came before; an error alone would drop it.
                    tokio::task::yield_now().await;
                    Err(io::Error::other("the script cuts the stream here"))
                }
            };
            return Some((sent as io::Result<Bytes>, (frames, stage, pace)));
        }
    }))
}

/// Waits, but not past the stop.
async fn wait(stage: &Arc<Stage>, pause: Duration) {
    if !pause.is_zero() {
        drop(tokio::time::timeout(pause, stage.stopped()).await);
    }
}

fn with_id(mut response: Response) -> Response {
    let id = fresh_id("req").parse().expect("an id is letters and digits");
    response.headers_mut().insert("request-id", id);
    response
}
