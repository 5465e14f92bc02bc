//! The way out of a machine: the model API, with the credential swapped in, and hosts that its owner allowed.
//!
//! ```text
//! claude ── placeholder ──► router ── admission: whose? may it? ──► forward ── real credential ──► model API
//!        ◄─ untouched body ──────────────── gate: opened yet? ◄───────────────────────────────────┘
//! ```
//!
//! A machine holds a placeholder that is good here alone. [`router`] takes it off, asks the [`Admission`] for
//! what it stands for, and sends the request on with the owner's credential and no other. Both bodies are
//! streamed as they come, byte for byte, but for the [bound](AnswerBounds) of an answer; the answer is withheld until the [`Gate`] opens, and cut off when it is over.
//! What it used is counted as it passes ([`count`]), and a secret in it is masked.
//!
//! Elsewhere a machine comes by [`egress`], if its owner allowed it.
//!
//! Bounds: [`HEAD_BYTES_MAX`], [`REQUEST_BYTES_MAX`], [`CONNECT_MAX`], [`GATE_MAX`]. Who may do what is not decided here, and
//! nothing here knows tasks, stores or clocks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodFilter, on, post};
use mayfly_core::{AnswerBounds, AttemptId, Redactor};
use secrecy::SecretString;

mod body;
mod bounds;
pub mod count;
pub mod egress;
mod error;
mod forward;
mod headers;
mod trial;

pub use trial::{Trial, try_credential};

pub use body::Masked;
pub use count::Used;

/// The longest request body; what the Messages API itself allows, and a little more.
pub const REQUEST_BYTES_MAX: usize = 34 * 1024 * 1024;
/// The most that a request's path, query and headers take, in bytes: many times what `claude` sends.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The time for a connection to the model API, TLS included.
pub const CONNECT_MAX: Duration = Duration::from_secs(15);
/// How long an answer waits for its gate. `claude` is known by its first line, which takes it under a second.
pub const GATE_MAX: Duration = Duration::from_secs(30);
/// How often a silent connection to the model API is checked for still being one.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The header in which the placeholder comes from a machine that holds the credential itself. It never goes out: its
/// name ends as those of credentials do.
pub const PLACEHOLDER_HEADER: &str = "x-mayfly-token";

/// Decides who may use the gateway, and with which credential.
#[async_trait::async_trait]
pub trait Admission: fmt::Debug + Send + Sync + 'static {
    /// Takes the placeholder that came with a request.
    async fn admit(&self, token: &str) -> Result<Admitted, Refusal>;

    /// Hears that the model API refused the credential of an attempt.
    async fn refused(&self, attempt: AttemptId);

    /// Takes what one request of `attempt` for an answer has used, when its answer is over.
    fn count(&self, attempt: AttemptId, used: Used);
}

/// One request's leave to go out.
#[derive(Debug)]
pub struct Admitted {
    /// Whose request it is.
    pub attempt: AttemptId,
    /// Where it goes.
    pub upstream: Upstream,
    /// What no answer may show.
    pub redactor: Redactor,
    /// How long answers may be. Without a bound, a body is not read.
    pub bounds: Arc<AnswerBounds>,
    /// Withholds the answer until `claude` is known to run as it was asked to.
    pub gate: Box<dyn Gate>,
}

/// Withholds an answer.
#[async_trait::async_trait]
pub trait Gate: fmt::Debug + Send + Sync {
    /// Returns once answers may pass.
    async fn opened(&mut self) -> Result<(), Denied>;

    /// Returns once nothing may pass any more: what is under way then is cut off.
    async fn over(&mut self);
}

/// A model API and the owner's credential for it.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its base URL, `http` or `https`.
    pub base_url: String,
    /// Which header the credential goes into.
    pub kind: CredentialKind,
    /// The credential.
    pub secret: SecretString,
}

/// Which header a credential goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// `Authorization: Bearer`, with the beta that the API wants to see named for it.
    OauthToken,
    /// `x-api-key`.
    ApiKey,
    /// `Authorization: Bearer`.
    Bearer,
}

/// Why a request may not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its token opens nothing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no credential for it, for this reason.
    #[error("{0}")]
    NoCredential(String),
}

/// The token is unknown, of another route, or its attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this token opens nothing here")]
pub struct Denied;

/// The routes that a machine may reach: `POST /v1/messages` and `POST /v1/messages/count_tokens` go out;
/// `HEAD /` and `HEAD /api/hello` are answered here. Everything else is refused, by the router's fallback.
pub fn router(admission: Arc<dyn Admission>, client: reqwest::Client) -> Router {
    let here = on(MethodFilter::HEAD, async || {});
    Router::new()
        .route("/", here.clone())
        .route("/api/hello", here)
        .route("/v1/messages", post(forward::forward))
        .route("/v1/messages/count_tokens", post(forward::forward))
        .fallback(forward::refuse)
        .method_not_allowed_fallback(forward::refuse)
        .with_state(forward::Gateway { admission, client, held: Arc::default() })
}

/// The client for [`router`]: it follows no redirect, asks no proxy, decompresses nothing and has no limit for
/// the whole of an answer, which can take many minutes.
///
/// It trusts the certificates of this system. Where there are none, it trusts nobody: then only an `http`
/// address, such as a scripted API on loopback, can be reached.
pub fn upstream_client() -> Result<reqwest::Client, reqwest::Error> {
    // Fails when the process has chosen one already, and that choice stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
    client_builder().build().or_else(|error| {
        tracing::warn!(cause = %error::root(&error), "no usable certificates: no https address can be reached");
        client_builder().tls_certs_only([]).build()
    })
}

fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_MAX)
        .tcp_keepalive(KEEPALIVE)
}
