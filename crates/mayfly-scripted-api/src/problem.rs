//! What the API answers when it refuses: an error in the API's own JSON form, with its status.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) headers: Vec<(HeaderName, String)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), headers: Vec::new() }
    }

    /// The request is not one that the API takes.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The credential is not one that the API takes.
    pub(crate) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    pub(crate) fn body(&self, request_id: &str) -> Value {
        json!({
            "type": "error",
            "error": {"type": kind(self.status), "message": self.message},
            "request_id": request_id,
        })
    }
}

/// The API's name for a status.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let id = crate::reply::fresh_id("req");
        let mut response = (self.status, Json(self.body(&id))).into_response();
        let id = id.parse().expect("an id is letters and digits");
        response.headers_mut().insert("request-id", id);
        for (name, value) in self.headers {
            let value = value.parse().expect("scripted header values are plain ASCII");
            response.headers_mut().insert(name, value);
        }
        response
    }
}
