//! Who comes by a port must show a token of an owner's. The connection is then of whoever has that token, and ends
//! with it, whatever goes on there.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::extract::bearer;
use super::problem::Problem;
use crate::guest::Guest;
use crate::tokens::Keys;

/// Lets through who has a token, and whoever asks only whether we are alive.
pub(super) async fn check<K: Keys>(State(keys): State<K>, request: Request, next: Next) -> Response {
    let key = bearer(request.headers()).and_then(|token| keys.find(token));
    match (key, request.extensions().get::<Guest>()) {
        (Some(key), Some(guest)) => guest.ends_with(key.revoked),
        _ if request.uri().path() == "/healthz" => {}
        _ => return Problem::no_token().into_response(),
    }
    next.run(request).await
}
