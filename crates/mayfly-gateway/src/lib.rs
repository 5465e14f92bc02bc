//! The way out of a machine: the model API, with the credential swapped in.

use std::fmt;
use std::sync::Arc;

use mayfly_core::AttemptId;
use secrecy::SecretString;

/// Decides who may use the gateway, and with which credential.
#[async_trait::async_trait]
pub trait Admission: fmt::Debug + Send + Sync + 'static {
    /// Takes the placeholder that came with a request.
    async fn admit(&self, token: &str) -> Result<Admitted, Denied>;
}

/// One request's leave to go out.
#[derive(Debug)]
pub struct Admitted {
    /// Whose request it is.
    pub attempt: AttemptId,
    /// Where it goes.
    pub upstream: Upstream,
    /// Withholds the answer until `claude` is known to run as it was asked to.
    pub gate: Box<dyn Gate>,
}

/// Withholds an answer.
#[async_trait::async_trait]
pub trait Gate: fmt::Debug + Send + Sync {
    /// Returns once answers may pass.
    async fn opened(&mut self) -> Result<(), Denied>;
}

/// A model API and the owner's credential for it.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its base URL, without a trailing slash.
    pub base_url: String,
    /// Which header the credential goes into.
    pub kind: CredentialKind,
    /// The credential.
    pub secret: SecretString,
}

/// Which header a credential goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// `Authorization: Bearer`, with the OAuth beta that the CLI names.
    OauthToken,
    /// `x-api-key`.
    ApiKey,
    /// `Authorization: Bearer`.
    Bearer,
}

/// The token is unknown, of another route, or its attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this token opens nothing here")]
pub struct Denied;

/// The routes that a machine may reach: `POST /v1/messages`, `POST /v1/messages/count_tokens`, `HEAD /`,
/// `HEAD /api/hello`. Everything else is refused.
pub fn router(admission: Arc<dyn Admission>, client: reqwest::Client) -> axum::Router {
    let _ = (admission, client);
    todo!()
}
