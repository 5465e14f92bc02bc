//! Passes a request on to the orchestrator, and its answer back, as they come.
//!
//! Each request has a connection of its own, made by the same way as the link: what that way is (a proxy, TLS, a
//! pinned certificate) is settled in one place. The token that opens the orchestrator is put in here; the one that
//! came with the request opened only this machine's door.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use http::header::{self, AUTHORIZATION, HOST, HeaderName, HeaderValue};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_link::{Dial, LinkError};
use mayfly_wire::Secret;

/// What is between two neighbours, and not passed on.
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("the orchestrator cannot be reached")]
    Link(#[from] LinkError),
    #[error("the orchestrator broke off")]
    Http(#[from] hyper::Error),
}

/// The way to the orchestrator, and what opens it.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    way: Arc<dyn Dial>,
    authorization: Option<HeaderValue>,
    host: HeaderValue,
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
        Some(Self { way, authorization, host })
    }

    /// Asks the orchestrator instead of us.
    pub(crate) async fn pass(&self, mut request: Request) -> Result<Response, ForwardError> {
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
        let mut answer = far.send_request(request).await?;
        strip(answer.headers_mut());
        Ok(answer.map(Body::new))
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in &OF_THE_CONNECTION {
        headers.remove(name);
    }
}
