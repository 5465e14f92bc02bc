//! What a request is answered: by whom it is for, or by us.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use mayfly_core::egress::{Refusal, Verdict};
use mayfly_core::host::Target;

use super::metered::{Meter, Metered};
use super::{Asked, Egress, asked};

/// Ours, or that of whom the request is for.
pub(super) type Body = Either<Full<Bytes>, Incoming>;

impl Egress {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answered = match asked::target(request.method(), request.uri(), request.headers()) {
            Ok(target) if request.method() == Method::CONNECT => self.tunnel(target, request).await,
            Ok(target) => self.web(&target, request).await,
            Err(bad) => Err(bad),
        };
        match answered {
            Ok(response) => response,
            Err(no) => {
                let response = refusal(&no);
                self.policy.keep(no).await;
                response
            }
        }
    }

    /// A connection to where the machine may go.
    pub(super) async fn reach(&self, target: &Target) -> Result<(Metered, Arc<Meter>), Asked> {
        let no = |verdict| Asked::of(target, verdict);
        self.decide(target).await.map_err(no)?;
        let stream = self.network.reach(target).await.map_err(no)?;
        Ok(Metered::new(stream))
    }

    /// Keeps that something goes through, and once it is over, how much. It ends with silence too, or when it has to.
    pub(super) async fn pass(
        &self,
        row: BoxFuture<'static, Option<i64>>,
        meter: &Meter,
        passing: impl Future<Output = ()>,
    ) {
        tokio::select! {
            () = passing => {}
            () = meter.idle() => {}
            () = self.leave.cancelled() => {}
        }
        if let Some(row) = row.await {
            self.policy.keep_bytes(row, meter.sent(), meter.received()).await;
        }
    }
}

fn refusal(no: &Asked) -> Response<Body> {
    let status = match no.verdict {
        Verdict::Denied(Refusal::BadRequest | Refusal::OtherHost) => StatusCode::BAD_REQUEST,
        Verdict::Denied(Refusal::Undecided) => StatusCode::SERVICE_UNAVAILABLE,
        Verdict::Allowed | Verdict::Denied(_) => StatusCode::FORBIDDEN,
        Verdict::Failed(_) => StatusCode::BAD_GATEWAY,
    };
    let mut response = Response::new(Either::Left(format!("mayfly: {}\n", no.words()).into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
