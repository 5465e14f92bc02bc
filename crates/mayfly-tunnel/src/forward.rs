//! Passes a request on to the orchestrator, and its answer back, as they come.
//!
//! Each request has a connection of its own, made by the same way as the link: what that way is (a proxy, TLS, a
//! pinned certificate) is settled in one place. The token that opens the orchestrator is put in here; the one that
//! came with the request opened only this machine's door.
//!
//! Bounds: [`FORWARDS_MAX`] requests on their way, each until the last byte of its answer; [`QUIET_MAX`] without a byte
//! on the way up and then until the answer begins. An answer that has begun may be quiet for long, as a log that is
//! followed is: there the system of this machine finds out by itself whether the other side is still there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_link::{Dial, LinkError};
use mayfly_wire::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

/// Requests that may be on their way at once.
pub(crate) const FORWARDS_MAX: usize = 512;
/// How long nothing may go up, or the answer take to begin once all has.
pub(crate) const QUIET_MAX: Duration = Duration::from_secs(60);

/// What is between two neighbours, and not passed on; `Connection` may name more.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the orchestrator broke off")]
    Http(#[from] hyper::Error),
    /// As a rule the link is dead, and nobody has told us.
    #[error("nothing was heard from the orchestrator for {} s", QUIET_MAX.as_secs())]
    Quiet,
    #[error("{FORWARDS_MAX} requests are on their way to the orchestrator already: end some, or try again")]
    Busy,
}

/// The way to the orchestrator, and what opens it.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    way: Arc<dyn Dial>,
    authorization: Option<HeaderValue>,
    host: HeaderValue,
    places: Arc<Semaphore>,
}

impl Forward {
    /// `None`: the token or the host is no text for a header.
    pub(crate) fn new(way: Arc<dyn Dial>, token: Option<&Secret>) -> Option<Self> {
        let authorization = match token {
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let host = HeaderValue::try_from(way.host()).ok()?;
        Some(Self { way, authorization, host, places: Arc::new(Semaphore::new(FORWARDS_MAX)) })
    }

    /// How many requests are on their way.
    pub(crate) fn count(&self) -> u64 {
        (FORWARDS_MAX - self.places.available_permits()) as u64
    }

    /// Asks the orchestrator instead of us.
    pub(crate) async fn pass(&self, request: Request) -> Result<Response, ForwardError> {
        Ok(self.placed(request).await?.map(Body::new))
    }

    /// Asks it for ourselves.
    pub(crate) async fn get(&self, path: &str) -> Result<Response<Placed>, ForwardError> {
        self.placed(Request::get(path).body(Body::empty()).expect("a path of ours is one")).await
    }

    async fn placed(&self, request: Request) -> Result<Response<Placed>, ForwardError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ForwardError::Busy)?;
        let answer = self.ask(request).await?;
        Ok(answer.map(|body| Placed { body, _place: place }))
    }

    async fn ask(&self, mut request: Request) -> Result<Response<Incoming>, ForwardError> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
        strip(request.headers_mut());
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().remove(AUTHORIZATION);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let stream = self.way.connect().await?;
        let (mut far, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer.
        tokio::spawn(connection);
        let (moved, quiet_since) = watch::channel(Instant::now());
        let request = request.map(|body| Body::new(Watched { body, moved }));
        let mut answer = tokio::select! {
            answer = far.send_request(request) => answer?,
            () = quiet(quiet_since) => return Err(ForwardError::Quiet),
        };
        strip(answer.headers_mut());
        Ok(answer)
    }
}

/// Returns once nothing has moved for too long.
async fn quiet(moves: watch::Receiver<Instant>) {
    loop {
        let last = *moves.borrow();
        sleep_until(last + QUIET_MAX).await;
        if *moves.borrow() == last {
            return;
        }
    }
}

/// A request's body, whose moves are told.
struct Watched {
    body: Body,
    moved: watch::Sender<Instant>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.moved.send_replace(Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which has its place until it ends.
pub(crate) struct Placed {
    body: Incoming,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Placed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn strip(headers: &mut HeaderMap) {
    let said: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    let named = said.iter().filter_map(|value| value.to_str().ok()).flat_map(|names| names.split(','));
    for name in named.map(str::trim).chain(OF_THE_CONNECTION) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use mayfly_testkit::faulty::{Fault, FaultyWay, in_memory};

    use super::*;

    fn request() -> Request {
        Request::get("/v1/tasks").body(Body::empty()).expect("a request")
    }

    #[test]
    fn what_is_between_two_neighbours_is_not_passed_on() {
        let request = Request::get("/v1/tasks")
            .header(CONNECTION, "close, X-Hop")
            .header(CONNECTION, "X-Other,,no name at all")
            .header("x-hop", "1")
            .header("x-other", "2")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("accept", "*/*");
        let mut request = request.body(Body::empty()).expect("a request");
        strip(request.headers_mut());
        let left: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }

    /// Nothing passes any more, and no system tells.
    #[tokio::test(start_paused = true)]
    async fn a_request_over_a_dead_link_is_given_up_and_counts_no_more() {
        let (way, _kept) = in_memory();
        let forward = Forward::new(Arc::new(FaultyWay::new(way, [Fault::DeafAfter(5)])), None).expect("good");
        let asked = {
            let forward = forward.clone();
            tokio::spawn(async move { forward.pass(request()).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(forward.count(), 1);
        let error = asked.await.expect("no panic").expect_err("nobody answers");
        assert!(matches!(error, ForwardError::Quiet), "{error}");
        assert_eq!(forward.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_requests_are_on_their_way_than_may_be() {
        let (way, _kept) = in_memory();
        let forward = Forward::new(Arc::new(way), None).expect("good");
        let all: Vec<_> = (0..FORWARDS_MAX)
            .map(|_| {
                let forward = forward.clone();
                tokio::spawn(async move { forward.pass(request()).await.map(drop) })
            })
            .collect();
        while forward.count() < FORWARDS_MAX as u64 {
            tokio::task::yield_now().await;
        }
        let error = forward.pass(request()).await.expect_err("one too many");
        assert!(matches!(error, ForwardError::Busy), "{error}");
        let error = forward.get("/v1/tasks").await.map(drop).expect_err("ours too");
        assert!(matches!(error, ForwardError::Busy), "{error}");
        for one in all {
            assert!(matches!(one.await.expect("no panic"), Err(ForwardError::Quiet)));
        }
        assert_eq!(forward.count(), 0);
    }
}
