//! What a machine is told when its request gets no answer: an error as the Messages API words it, so that
//! `claude` shows it and knows whether to try again.
//!
//! No text here holds a credential, a placeholder or a whole URL.

use std::error::Error;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::Refusal;

/// Why a request gets no answer from the model API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No route of ours.
    #[error("this route is not open to a machine: only the Messages API is")]
    Route,
    /// No token, or one that opens nothing.
    #[error("the token of this request opens nothing here")]
    Token,
    /// The token is good, and there is no credential for its task.
    #[error("{0}")]
    NoCredential(String),
    /// The attempt ended before its gate opened.
    #[error("this attempt is over: its requests are no longer answered")]
    Over,
    /// The gate did not open in time.
    #[error("the first message of `claude` has not been checked in time; ask again")]
    Gate,
    /// Its path, query and headers are longer than allowed.
    #[error("the head of the request is longer than {} bytes", crate::HEAD_BYTES_MAX)]
    LongHead,
    /// The body is longer than allowed.
    #[error("the request is longer than {} bytes", crate::REQUEST_BYTES_MAX)]
    TooLong,
    /// The body stopped before its end.
    #[error("the request broke off")]
    Request,
    /// Its body is not what it must be where answers are bounded.
    #[error("the request is not the plain JSON that it must be where an agent's answers are bounded")]
    Unread,
    /// The owner's base URL or credential cannot be used.
    #[error("the owner's {what} cannot be used: correct it and submit the task again")]
    Owner { what: &'static str },
    /// The model API answered with a redirect.
    #[error(
        "the model API at {host} answered {status}, a redirect, which is not followed: set its final URL"
    )]
    Redirect { host: String, status: StatusCode },
    /// No answer came.
    #[error("the model API at {host} cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
}

impl ApiError {
    /// Sorts what the client says about a request to `host`.
    pub(crate) fn from_client(error: reqwest::Error, host: String) -> Self {
        let error = error.without_url();
        if find::<TooLong>(&error).is_some() {
            return Self::TooLong;
        }
        if find::<BrokenRequest>(&error).is_some() {
            return Self::Request;
        }
        Self::Unreachable { host, cause: root(&error) }
    }

    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Route => (StatusCode::NOT_FOUND, "not_found_error"),
            Self::Token | Self::NoCredential(_) => (StatusCode::UNAUTHORIZED, "authentication_error"),
            Self::Over => (StatusCode::FORBIDDEN, "permission_error"),
            Self::Gate => (StatusCode::SERVICE_UNAVAILABLE, "api_error"),
            Self::LongHead => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request_too_large"),
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
            Self::Request | Self::Unread => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            Self::Owner { .. } | Self::Redirect { .. } | Self::Unreachable { .. } => {
                (StatusCode::BAD_GATEWAY, "api_error")
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(_) => Self::Token,
            Refusal::NoCredential(why) => Self::NoCredential(why),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind) = self.status();
        let body = serde_json::json!({
            "type": "error",
            "error": { "type": kind, "message": format!("mayfly: {self}") },
        });
        (status, Json(body)).into_response()
    }
}

/// A request body that grew over its bound.
#[derive(Debug, thiserror::Error)]
#[error("the request is too long")]
pub(crate) struct TooLong;

/// A request body that the machine did not send to its end.
#[derive(Debug, thiserror::Error)]
#[error("the request broke off")]
pub(crate) struct BrokenRequest;

/// An answer that was under way when its attempt ended.
#[derive(Debug, thiserror::Error)]
#[error("the attempt is over")]
pub(crate) struct CutOff;

/// The innermost cause, in words.
pub(crate) fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
