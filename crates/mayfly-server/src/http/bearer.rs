//! Who comes by a port must show the token. Whether it is the right one takes the same time for every wrong one.

use std::fmt;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::extract::bearer;
use super::problem::Problem;

/// The hash of the one token that opens the door. What is compared are hashes: how much of two is alike says
/// nothing about the token.
#[derive(Clone)]
pub(crate) struct Opens([u8; 32]);

impl fmt::Debug for Opens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opens(…)")
    }
}

impl Opens {
    pub(crate) fn by(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    fn is_by(&self, token: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(token)) == self.0
    }
}

/// Lets through who has the token, and whoever asks only whether we are alive.
pub(super) async fn check(State(opens): State<Opens>, request: Request, next: Next) -> Response {
    let known = bearer(request.headers()).is_some_and(|token| opens.is_by(token));
    match known || request.uri().path() == "/healthz" {
        true => next.run(request).await,
        false => Problem::no_token().into_response(),
    }
}
