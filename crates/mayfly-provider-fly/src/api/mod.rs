//! The Machines API: the calls that a provider needs, each asked no faster than Fly allows.
//!
//! A request that never left is sent again, as is one that is the same however often it is done. A create is neither: who
//! asked for it finds out what became of it (see [`create`](crate::create)).
//!
//! Bounds: [`BODY_BYTES_MAX`], [`TRIES_MAX`], [`WAIT_MAX`] for what Fly is asked to wait for, and [`ANSWER_MAX`] besides.

mod apps;
mod error;
mod pace;
mod token;
mod types;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mayfly_provider::BoxError;
use mayfly_provider::clock::{Clock, after};
use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

pub(crate) use apps::{Address, CreateVolume, Policy, Rule, Selector, Volume};
use error::Refusal;
pub(crate) use error::{ApiError, Kind, Scope};
use pace::{Action, Pace};
pub use token::bare_token;
pub(crate) use token::{BadToken, Token};
pub use types::Guest;
pub(crate) use types::{
    App, Check, Config, CreateMachine, Dns, Event, File, Init, Machine, Mount, Port, Regions, Restart,
    RootFs, Service, ServiceConfig, State, StopConfig, Tokens, Waited,
};

/// The longest answer: some thousand machines.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long an answer may take, its body included.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The longest time that Fly waits for a state; a longer one is an error.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a request is sent that may be sent again.
const TRIES_MAX: u32 = 4;
/// The first pause between two of them; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause that Fly may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Fly's name for a request.
const REQUEST_ID: &str = "fly-request-id";
/// How much of a name is kept.
const REQUEST_ID_MAX: usize = 64;

/// The API, for one app.
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    token: Token,
    app: String,
    clock: Arc<dyn Clock>,
    pace: Mutex<Pace>,
    answer_max: Duration,
}

/// A request, in parts that can be sent again.
struct Call<'a> {
    name: &'static str,
    action: Action,
    /// What Fly counts it for.
    of: &'a str,
    method: Method,
    path: Vec<&'a str>,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    /// How long the answer may take by itself.
    waits: Duration,
    /// Sent twice, it does what it does once.
    is_repeatable: bool,
}

impl Api {
    /// Nothing is dialled yet.
    pub(crate) fn new(
        (base, app): (Url, String),
        token: Token,
        clock: Arc<dyn Clock>,
        answer_max: Duration,
    ) -> Result<Self, reqwest::Error> {
        // Fails when the process has chosen one already, and that choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The token goes nowhere but to Fly.
        let http =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
        Ok(Self { http, base, token, app, clock, pace: Mutex::default(), answer_max })
    }

    pub(crate) fn app(&self) -> &str {
        &self.app
    }

    /// What the token is good for.
    pub(crate) async fn token(&self) -> Result<Tokens, ApiError> {
        self.json(self.get("ask what the token is for", Action::Token, vec!["tokens", "current"])).await
    }

    /// Whether the app is there, for this token.
    pub(crate) async fn app_info(&self) -> Result<App, ApiError> {
        self.json(self.get("look at the app", Action::App, vec!["apps", &self.app])).await
    }

    pub(crate) async fn regions(&self) -> Result<Regions, ApiError> {
        self.json(self.get("list regions", Action::Regions, vec!["platform", "regions"])).await
    }

    /// Makes a machine. Not sent again once it may have reached Fly.
    pub(crate) async fn create<C: Serialize>(&self, machine: &CreateMachine<C>) -> Result<Machine, ApiError> {
        let mut call = self.get("create machine", Action::Create, vec!["apps", &self.app, "machines"]);
        (call.method, call.is_repeatable) = (Method::POST, false);
        call.body = Some(json(machine));
        self.ask(call, |body| {
            let made: Machine = serde_json::from_slice(body)?;
            let is_made = made.id.is_empty().then(|| serde_json::Error::custom("a machine without an id"));
            is_made.map_or(Ok(made), Err)
        })
        .await
    }

    /// All machines of the app that are not gone.
    pub(crate) async fn machines(&self) -> Result<Vec<Machine>, ApiError> {
        self.json(self.get("list machines", Action::List, vec!["apps", &self.app, "machines"])).await
    }

    pub(crate) async fn machine(&self, id: &str) -> Result<Machine, ApiError> {
        self.json(self.on("look at a machine", Action::Get, id, &[])).await
    }

    /// What happened to a machine, newest first.
    pub(crate) async fn events(&self, id: &str) -> Result<Vec<Event>, ApiError> {
        self.json(self.on("list a machine's events", Action::Events, id, &["events"])).await
    }

    /// Waits until the machine is so, such as `destroyed`, for [`WAIT_MAX`] at most: [`Kind::Late`] is an answer. Gives
    /// whether it was seen to be so.
    pub(crate) async fn wait(&self, id: &str, state: &str, time: Duration) -> Result<bool, ApiError> {
        let mut call = self.on("wait for a machine", Action::Wait, id, &["wait"]);
        let time = time.min(WAIT_MAX);
        let seconds = time.as_secs().to_string();
        call.query = vec![("state", state.to_owned()), ("timeout", seconds)];
        call.waits = time;
        self.json::<Waited>(call).await.map(|waited| waited.ok)
    }

    /// Destroys a machine, whatever it does.
    pub(crate) async fn destroy(&self, id: &str) -> Result<(), ApiError> {
        let mut call = self.on("destroy machine", Action::Destroy, id, &[]);
        (call.method, call.query) = (Method::DELETE, vec![("force", "true".to_owned())]);
        self.ask(call, |_| Ok(())).await
    }

    fn get<'a>(&'a self, name: &'static str, action: Action, path: Vec<&'a str>) -> Call<'a> {
        let (of, query) = (self.app.as_str(), Vec::new());
        let (body, waits) = (None, Duration::ZERO);
        Call { name, action, of, method: Method::GET, path, query, body, waits, is_repeatable: true }
    }

    fn on<'a>(&'a self, name: &'static str, action: Action, id: &'a str, rest: &[&'a str]) -> Call<'a> {
        let path = ["apps", &self.app, "machines", id].into_iter().chain(rest.iter().copied()).collect();
        Call { of: id, ..self.get(name, action, path) }
    }

    async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ApiError> {
        self.ask(call, |body| serde_json::from_slice(body)).await
    }

    /// Asks in its turn, and again where that is safe.
    async fn ask<T>(
        &self,
        call: Call<'_>,
        read: impl Fn(&[u8]) -> serde_json::Result<T>,
    ) -> Result<T, ApiError> {
        let (mut tried, mut pause) = (0, PAUSE_FIRST);
        loop {
            let turn = self.pace().turn(call.action, call.of, self.clock.now());
            self.clock.sleep_until(turn).await;
            let error = match self.attempt(&call, &read).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let again = match &error.kind {
                Kind::Unsent => true,
                Kind::Rate(wait) => {
                    let until = after(self.clock.now(), wait.unwrap_or(pause).min(RETRY_AFTER_MAX));
                    self.pace().refused(call.action, call.of, until);
                    true
                }
                Kind::Unanswered | Kind::Server => call.is_repeatable,
                _ => false,
            };
            tried += 1;
            if !again || tried == TRIES_MAX {
                return Err(error);
            }
            tracing::debug!(%error, tried, "asking Fly again");
            self.clock.sleep_until(after(self.clock.now(), pause)).await;
            pause *= 2;
        }
    }

    async fn attempt<T>(
        &self,
        call: &Call<'_>,
        read: impl Fn(&[u8]) -> serde_json::Result<T>,
    ) -> Result<T, ApiError> {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http address").pop_if_empty().push("v1").extend(&call.path);
        let mut request = self.http.request(call.method.clone(), url).query(&call.query);
        request = request.header(AUTHORIZATION, self.token.header()).timeout(self.answer_max + call.waits);
        if let Some(body) = &call.body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        let response = request.send().await.map_err(|error| unanswered(call.name, error))?;
        let (status, request_id) = (response.status(), request_id(response.headers()));
        let retry_after = retry_after(response.headers());
        let unread = |source: BoxError| ApiError {
            call: call.name,
            kind: Kind::Unanswered,
            status: Some(status.as_u16()),
            said: String::new(),
            request_id: request_id.clone(),
            source: Some(source),
        };
        let body = bounded(response).await.map_err(unread)?;
        if status.is_success() {
            return read(&body).map_err(|error| unread(error.into()));
        }
        let (call, status) = (call.name, status.as_u16());
        Err(Refusal { call, status, body: &body, request_id, retry_after }.into())
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the token.
impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("base", &self.base.as_str())
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("a request is plain data").into()
}

/// Whether it can have been sent is known for certain only where nobody was reached.
fn unanswered(call: &'static str, error: reqwest::Error) -> ApiError {
    let kind = if error.is_connect() || error.is_builder() { Kind::Unsent } else { Kind::Unanswered };
    // The address is no secret, and says nothing that the call does not.
    let source: Option<BoxError> = Some(error.without_url().into());
    ApiError { call, kind, status: None, said: String::new(), request_id: None, source }
}

async fn bounded(mut response: Response) -> Result<Bytes, BoxError> {
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(Bytes::new());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("it is longer than {BODY_BYTES_MAX} bytes").into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    Some(id.chars().take(REQUEST_ID_MAX).collect())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}
