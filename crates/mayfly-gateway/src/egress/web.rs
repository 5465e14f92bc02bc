//! A request of plain HTTP, and its answer: each by a connection of its own, to the one host that it names.

use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_core::egress::{Failing, Verdict};
use mayfly_core::host::Target;

use super::answer::Body;
use super::asked::HTTP_PORT;
use super::{Asked, Egress, HEAD_BYTES_MAX};
use crate::headers;

impl Egress {
    /// Sends a request on, and its answer back.
    pub(super) async fn web(
        &self,
        target: &Target,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Asked> {
        let (far, meter) = self.reach(target).await?;
        let failed = |_| Asked::of(target, Verdict::Failed(Failing::Unreachable));
        let mut http = http1::Builder::new();
        let (mut sender, connection) =
            http.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(far)).await.map_err(failed)?;
        let row = self.policy.keep(Asked::of(target, Verdict::Allowed));
        let egress = self.clone();
        let errand = async move {
            let passing = async {
                // How it ended shows in the answer.
                let _ = connection.await;
            };
            egress.pass(row, &meter, passing).await;
        };
        // Whoever takes errands is there as long as requests are answered.
        let _ = self.errands.send(Box::pin(errand));
        let answer = sender.send_request(outgoing(target, request)).await.map_err(failed)?;
        let (mut parts, body) = answer.into_parts();
        parts.headers = headers::end_to_end(&parts.headers);
        Ok(Response::from_parts(parts, Either::Right(body)))
    }
}

/// The request as its host gets it.
fn outgoing(target: &Target, request: Request<Incoming>) -> Request<Incoming> {
    let (mut parts, body) = request.into_parts();
    parts.headers = headers::end_to_end(&parts.headers);
    let host = match target.port {
        HTTP_PORT => target.host.to_string(),
        _ => target.to_string(),
    };
    parts.headers.insert(HOST, HeaderValue::try_from(host).expect("a name is a good value"));
    parts.uri =
        parts.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    parts.version = http::Version::HTTP_11;
    Request::from_parts(parts, body)
}
