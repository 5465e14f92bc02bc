//! One request's way out and its answer's way back.
//!
//! The request goes out at once, also while the gate is closed; only the answer waits. What the machine sends
//! after the bound, and an answer that is a redirect, end the exchange: the credential is sent to the one
//! address that its owner named.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{StatusCode, Uri};
use mayfly_core::{AttemptId, Redactor};
use reqwest::Url;

use crate::body::{Bill, Counted, Masked};
use crate::bounds::{self, Held};
use crate::count::Reader;
use crate::error::{ApiError, BrokenRequest, CutOff, TooLong};
use crate::{Admission, Admitted, GATE_MAX, Gate, HEAD_BYTES_MAX, REQUEST_BYTES_MAX, Upstream, headers};

/// The route whose answers are counted.
const MESSAGES: &str = "/v1/messages";
/// The header of a request that is not the main agent's.
const AGENT: &str = "x-claude-code-agent-id";

/// What every request needs.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) client: reqwest::Client,
    pub(crate) held: Arc<Held>,
}

/// Answers what is not among our routes.
pub(crate) async fn refuse() -> ApiError {
    ApiError::Route
}

/// Sends an admitted request on, and its answer back.
pub(crate) async fn forward(State(gateway): State<Gateway>, came: Request) -> Result<Response, ApiError> {
    let token = headers::placeholder(came.headers()).ok_or(ApiError::Token)?;
    let Admitted { attempt, upstream, redactor, bounds, mut gate } = gateway.admission.admit(token).await?;
    check(&came)?;
    let counts = came.uri().path() == MESSAGES;
    let is_main = !came.headers().contains_key(AGENT);
    let came = match counts && !bounds.is_empty() {
        true => bounds::lower(came, &bounds, (&gateway.held, attempt, is_main)).await?,
        false => came,
    };
    let request = outgoing(came, &upstream)?;
    let host = host(request.url());
    let admission = gateway.admission.clone();
    let mut bill = counts.then(|| Bill { admission, attempt, is_main, reader: None });
    let sent = tokio::select! {
        sent = gateway.client.execute(request) => sent,
        () = gate.over() => return Err(ApiError::Over),
    };
    let answer = sent.map_err(|error| ApiError::from_client(error, host.clone()))?;
    if answer.status().is_redirection() {
        return Err(ApiError::Redirect { host, status: answer.status() });
    }
    wait(attempt, gate.as_mut()).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        gateway.admission.refused(attempt).await;
    }
    if let Some(bill) = bill.as_mut().filter(|_| answer.status().is_success()) {
        bill.reader = Some(reader(answer.headers()));
    }
    Ok(incoming(answer, &upstream, gate, (redactor, bill)))
}

/// Waits for the gate, though not for ever.
async fn wait(attempt: AttemptId, gate: &mut dyn Gate) -> Result<(), ApiError> {
    let Ok(opened) = tokio::time::timeout(GATE_MAX, gate.opened()).await else {
        tracing::warn!(%attempt, "an answer waited too long for its gate");
        return Err(ApiError::Gate);
    };
    opened.map_err(|_| ApiError::Over)
}

/// Refuses what is too long by its head, before anything of its body is read.
fn check(came: &Request) -> Result<(), ApiError> {
    let headers = came.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    if headers.sum::<usize>() + came.uri().path_and_query().map_or(0, |asked| asked.as_str().len())
        > HEAD_BYTES_MAX
    {
        return Err(ApiError::LongHead);
    }
    let announced =
        came.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match announced.is_some_and(|bytes| bytes > REQUEST_BYTES_MAX) {
        true => Err(ApiError::TooLong),
        false => Ok(()),
    }
}

fn outgoing(came: Request, upstream: &Upstream) -> Result<reqwest::Request, ApiError> {
    let (parts, body) = came.into_parts();
    let url = url(upstream, &parts.uri).ok_or(ApiError::Owner { what: "base URL" })?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() =
        headers::outgoing(&parts.headers, upstream).ok_or(ApiError::Owner { what: "credential" })?;
    // What is compressed could be neither counted nor looked through.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    *request.body_mut() = Some(reqwest::Body::wrap_stream(bounded(body)));
    Ok(request)
}

/// The body, up to its bound. An error in it ends the request before the API could take it for whole.
pub(crate) fn bounded(
    body: Body,
) -> impl Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> {
    let mut left = REQUEST_BYTES_MAX;
    body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(|_| BrokenRequest)?;
        left = left.checked_sub(chunk.len()).ok_or(TooLong)?;
        Ok(chunk)
    })
}

/// What reads an answer with these headers.
fn reader(headers: &HeaderMap) -> Reader {
    let plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    if !plain {
        tracing::warn!("the model API compresses its answers unasked: their tokens are not counted");
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    Reader::new(kind.filter(|_| plain))
}

fn incoming(
    answer: reqwest::Response,
    upstream: &Upstream,
    gate: Box<dyn Gate>,
    (redactor, bill): (Redactor, Option<Bill>),
) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = headers::incoming(answer.headers(), &upstream.secret);
    let counted = Counted { body: Box::pin(until_over(answer.bytes_stream(), gate)), bill };
    *response.body_mut() = Body::from_stream(Masked::new(counted, redactor));
    response
}

/// The body, cut off as soon as its attempt is over: an error in it ends the connection, so that nobody takes it for
/// whole.
fn until_over(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    mut gate: Box<dyn Gate>,
) -> impl Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> {
    let over = Box::pin(async move { gate.over().await });
    stream::unfold(Some((Box::pin(body), over)), async |under_way| {
        let (mut body, mut over) = under_way?;
        tokio::select! {
            biased;
            () = &mut over => Some((Err(CutOff.into()), None)),
            chunk = body.next() => Some((chunk?.map_err(Into::into), Some((body, over)))),
        }
    })
}

/// The owner's base URL with the route and the query that were asked for.
pub(crate) fn url(upstream: &Upstream, asked: &Uri) -> Option<Url> {
    let route = asked.path_and_query()?;
    let url = Url::parse(&format!("{}{route}", upstream.base_url.trim_end_matches('/'))).ok()?;
    matches!(url.scheme(), "http" | "https").then_some(url)
}

/// What an error may name of a URL: no user, no password, no query.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use mayfly_core::{Attempt, TaskId};

    use super::*;
    use crate::Denied;

    #[derive(Debug)]
    struct Shut;

    #[async_trait::async_trait]
    impl Gate for Shut {
        async fn opened(&mut self) -> Result<(), Denied> {
            std::future::pending().await
        }

        async fn over(&mut self) {
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_that_never_opens_is_not_waited_for_for_ever() {
        let task: TaskId = "0193b2c4-0000-7000-8000-0123456789ab".parse().expect("an id");
        let before = tokio::time::Instant::now();
        let waited = wait(task.attempt(Attempt(1)), &mut Shut).await;
        assert!(matches!(waited, Err(ApiError::Gate)), "{waited:?}");
        assert_eq!(before.elapsed().as_secs(), GATE_MAX.as_secs());
    }
}
