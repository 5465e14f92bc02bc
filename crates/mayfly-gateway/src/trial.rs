//! One request that tells whether a model API takes a credential, and costs nothing.
//!
//! It asks to count the tokens of nothing at all, which is no good request: an API that takes the credential says so
//! with another error than one that does not. Bound: [`TRIAL_MAX`].

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};

use crate::Upstream;
use crate::error::root;
use crate::forward::{host, url};
use crate::headers;

/// How long the model API may take to answer.
const TRIAL_MAX: Duration = Duration::from_secs(20);

/// What came of it. No text holds the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// The API takes the credential.
    Accepted,
    /// The API does not.
    Refused(String),
    /// Nothing is known: the API could not be asked.
    Unknown(String),
}

/// Tries a credential.
pub async fn try_credential(client: &reqwest::Client, upstream: &Upstream) -> Trial {
    let route = Uri::from_static("/v1/messages/count_tokens");
    let Some(url) = url(upstream, &route) else {
        return Trial::Unknown("its base URL is none: add it again".to_owned());
    };
    let host = host(&url);
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    let Some(head) = headers::outgoing(&head, upstream) else {
        return Trial::Unknown("it fits no header: add it again".to_owned());
    };
    let request = client.request(Method::POST, url).headers(head).body("{}").timeout(TRIAL_MAX);
    match request.send().await {
        Ok(answer) => judged(answer.status(), &host),
        Err(error) => Trial::Unknown(format!(
            "the model API at {host} cannot be reached: {}",
            root(&error.without_url())
        )),
    }
}

fn judged(status: StatusCode, host: &str) -> Trial {
    match status.as_u16() {
        401 | 403 => Trial::Refused(format!("the model API at {host} refuses it ({status})")),
        // It was let in, and then told that there is nothing to count, or that it has asked too often.
        200..=299 | 400 | 404 | 405 | 413 | 415 | 422 | 429 => Trial::Accepted,
        300..=399 => Trial::Unknown(format!("{host} answers with a redirect ({status}): set its final URL")),
        _ => Trial::Unknown(format!("the model API at {host} answers {status}: try again later")),
    }
}
