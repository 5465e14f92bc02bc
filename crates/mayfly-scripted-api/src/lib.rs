//! A Messages API that plays a script: for the demo, the tests and the benchmarks.
//!
//! It answers the real `claude` CLI as the real API would, over plain HTTP, except that no model is asked: a
//! *directive* in the user's own text says what to answer.
//!
//! ```text
//! [script: NAME]                                   such as  [script: text]
//! [script: NAME key=value key="a \"quoted\" value" key=["any", "JSON"]]
//! [script: NAME {"key": "value"}]
//! ```
//!
//! The last directive of the last user message that has one picks the [scenario](scenarios). Tool results and
//! `<system-reminder>` texts are not looked at. How many assistant messages follow that user message is the
//! step of the scenario. So nothing about a conversation is kept here: any number of them can run at once,
//! be resumed, or spawn sub-agents. Without a directive the answer is a text that says so; a directive that
//! cannot be read is answered with a 400 that says why.
//!
//! It is strict: what the real API refuses (a wrong credential, a missing field, a tool call without its
//! result and so on) is refused here, in the API's own words for errors. In string values `{cwd}` stands for
//! the working directory that the CLI named in the request.
//!
//! Routes: `POST /v1/messages` (streamed or not), `POST /v1/messages/count_tokens`, `HEAD /`,
//! `HEAD /api/hello`; 404 elsewhere.
//!
//! Tests can [hold](ScriptedApi::release) an answer, wait for a request to [arrive](ScriptedApi::arrived), and
//! look at the last [`REQUESTS_KEPT_MAX`] [requests](ScriptedApi::requests).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

mod check;
mod credential;
pub mod demo;
mod directive;
mod http;
mod problem;
mod reply;
mod scenario;
mod stage;

pub use scenario::{SCENARIOS, ScenarioHelp};
pub use stage::{REQUESTS_KEPT_MAX, Seen};

use crate::http::App;
use crate::stage::Stage;

/// How long [`ScriptedApi::stop`] waits for the last answers to end.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// The one credential that opens the API, and how it is to be sent.
#[derive(Clone, PartialEq, Eq)]
pub enum Accepted {
    /// `Authorization: Bearer`, together with the beta header that OAuth needs.
    Oauth(String),
    /// `x-api-key`.
    ApiKey(String),
    /// `Authorization: Bearer`.
    Bearer(String),
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oauth(_) => "Oauth(…)",
            Self::ApiKey(_) => "ApiKey(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// A running scripted API. Dropping it lets it end in its own time; [`stop`](Self::stop) waits for that.
#[derive(Debug)]
pub struct ScriptedApi {
    address: SocketAddr,
    stage: Arc<Stage>,
    serving: JoinHandle<io::Result<()>>,
}

impl ScriptedApi {
    /// Listens on `listen` (port 0: any free one) and plays at the natural pace.
    pub async fn start(listen: SocketAddr, accepted: Accepted) -> io::Result<Self> {
        Self::start_paced(listen, accepted, 1.0).await
    }

    /// Like [`start`](Self::start), with every pause of every script multiplied by `pace`: 0 is no pause at all.
    ///
    /// Fails with [`io::ErrorKind::InvalidInput`] if `pace` is negative or not a finite number.
    pub async fn start_paced(listen: SocketAddr, accepted: Accepted, pace: f64) -> io::Result<Self> {
        if !pace.is_finite() || pace < 0.0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a pace is 0 or more"));
        }
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        // Answers are many small writes: none of them may wait for the one before to be acknowledged.
        // A socket that refuses the option is only slower.
        let listener = listener.tap_io(|tcp| drop(tcp.set_nodelay(true)));
        let stage = Arc::new(Stage::default());
        let app = http::router(App { accepted, pace, stage: Arc::clone(&stage) });
        let stopped = stage.stopped();
        let serving =
            tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(stopped).await });
        Ok(Self { address, stage, serving })
    }

    /// What `ANTHROPIC_BASE_URL` is to be: no path, no trailing slash.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The last requests, oldest first, at most [`REQUESTS_KEPT_MAX`]; refused ones are among them.
    pub fn requests(&self) -> Vec<Seen> {
        self.stage.requests()
    }

    /// Waits until `nth` requests (counted from 1, and from the start) have asked for `scenario`.
    pub async fn arrived(&self, scenario: &str, nth: usize) {
        self.stage.arrived(scenario, nth).await;
    }

    /// Waits until `nth` requests (counted from 1, and from the start) have come to the hold `name`.
    pub async fn held(&self, name: &str, nth: usize) {
        self.stage.held(name, nth).await;
    }

    /// Opens the hold `name`, for those who wait at it and for all who come later.
    pub fn release(&self, name: &str) {
        self.stage.release(name);
    }

    /// Takes no more requests, cuts the answers that hang or are held, and waits for the others: at most
    /// two seconds, after which they are left to themselves.
    pub async fn stop(mut self) {
        self.stage.stop();
        if tokio::time::timeout(STOP_TIME_MAX, &mut self.serving).await.is_err() {
            tracing::warn!("scripted answers still running at the stop are abandoned");
            self.serving.abort();
        }
    }
}

impl Drop for ScriptedApi {
    fn drop(&mut self) {
        self.stage.stop();
    }
}
