//! A machine's way to other hosts: each connection becomes one to a proxy, which asks the engine about each of them.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use mayfly_core::causes;
use mayfly_core::host::Target;
use mayfly_core::{AttemptId, egress::Verdict};
use mayfly_engine::{Engine, StoreError};
use mayfly_gateway::egress::{self, Policy, Undecided};
use mayfly_wire::worker::EGRESS_UPGRADE;
use tokio_util::sync::CancellationToken;

use super::Machine;
use super::extract::bearer;
use super::problem::Problem;
use crate::guest::Guest;

/// `GET /v1/egress`: becomes a connection to a proxy, which has the connection's place until it ends.
pub(super) async fn join(
    State(app): State<Machine>,
    Extension(guest): Extension<Guest>,
    mut request: Request,
) -> Result<Response, Problem> {
    let token = bearer(request.headers()).ok_or_else(Problem::denied)?;
    let elsewhere = app.entry.admit_egress(token).await.map_err(|_| Problem::denied())?;
    if !is_upgrade(request.headers()) {
        return Err(Problem::bad_request(format!("this route is for an upgrade to {EGRESS_UPGRADE}")));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let house = app.house.clone();
    let serving = async move {
        let Ok(upgraded) = upgrade.await else { return };
        let leave = house.stopping.child_token();
        let proxy = egress::serve(TokioIo::new(upgraded), Arc::new(elsewhere), app.network, leave.clone());
        until_told(proxy, &guest, &leave).await;
    };
    app.house.running.spawn(serving);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(EGRESS_UPGRADE));
    Ok(response)
}

/// Ends it when its guest has to leave, and waits for what it still has to note.
async fn until_told(proxy: impl Future<Output = ()>, guest: &Guest, leave: &CancellationToken) {
    let mut proxy = std::pin::pin!(proxy);
    tokio::select! {
        () = &mut proxy => return,
        () = guest.must_leave() => leave.cancel(),
    }
    proxy.await;
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(EGRESS_UPGRADE.as_bytes()))
}

/// Where the machine of one attempt may go.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) engine: Engine,
    pub(super) attempt: AttemptId,
}

#[async_trait]
impl Policy for Elsewhere {
    async fn allows(&self, target: &Target) -> Result<bool, Undecided> {
        let may = self.engine.may_go(self.attempt, target).await;
        may.map_err(|error| {
            unkept(&error);
            Undecided
        })
    }

    fn keep(&self, asked: egress::Asked) -> BoxFuture<'static, Option<i64>> {
        let words = match asked.verdict {
            Verdict::Denied(_) => asked.words(),
            Verdict::Allowed | Verdict::Failed(_) => String::new(),
        };
        let egress::Asked { host, port, verdict } = asked;
        let asked = mayfly_engine::Asked { host, port, verdict, words };
        let kept = self.engine.keep_asked(self.attempt, asked);
        Box::pin(async move {
            kept.await.unwrap_or_else(|error| {
                unkept(&error);
                None
            })
        })
    }

    async fn keep_bytes(&self, row: i64, sent: u64, received: u64) {
        if let Err(error) = self.engine.keep_bytes(row, sent, received).await {
            unkept(&error);
        }
    }
}

fn unkept(error: &StoreError) {
    tracing::warn!(cause = %causes(error), "the record of where a machine asked to go has a gap");
}
