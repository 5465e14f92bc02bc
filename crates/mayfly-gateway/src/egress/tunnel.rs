//! `CONNECT`: a tunnel for TLS that names the host which the tunnel is to.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mayfly_core::egress::{Refusal, Verdict};
use mayfly_core::host::{Host, Target};
use rustls::server::Acceptor;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::time::timeout;

use super::answer::Body;
use super::metered::{Meter, Metered};
use super::{Asked, Egress, HELLO_BYTES_MAX, HELLO_MAX};

/// What is read at once of each direction.
const COPY_BYTES: usize = 64 * 1024;
/// What is read at once of a hello.
const READ_BYTES: usize = 4 * 1024;

impl Egress {
    /// Opens a tunnel, which begins with the answer.
    pub(super) async fn tunnel(
        &self,
        target: Target,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Asked> {
        let (far, meter) = self.reach(&target).await?;
        let near = hyper::upgrade::on(&mut request);
        let egress = self.clone();
        let errand = async move { egress.carry(target, near, far, meter).await };
        // Whoever takes errands is there as long as requests are answered.
        let _ = self.errands.send(Box::pin(errand));
        Ok(Response::new(Either::Left(Bytes::new().into())))
    }

    async fn carry(&self, target: Target, near: OnUpgrade, mut far: Metered, meter: Arc<Meter>) {
        let begun = self.leave.run_until_cancelled(near).await;
        let Some(Ok(near)) = begun else { return };
        let mut near = TokioIo::new(near);
        let heard = self.leave.run_until_cancelled(timeout(HELLO_MAX, hello(&mut near, &target.host))).await;
        let said = match heard {
            None => return,
            Some(Ok(Ok(said))) => said,
            Some(Ok(Err(refusal))) => return self.refuse(&target, refusal).await,
            Some(Err(_)) => return self.refuse(&target, Refusal::NoTls).await,
        };
        let row = self.policy.keep(Asked::of(&target, Verdict::Allowed));
        let passing = async {
            if far.write_all(&said).await.is_ok() {
                // Who ends it is nobody's business here.
                let _ = copy_bidirectional_with_sizes(&mut near, &mut far, COPY_BYTES, COPY_BYTES).await;
            }
        };
        self.pass(row, &meter, passing).await;
    }

    async fn refuse(&self, target: &Target, refusal: Refusal) {
        self.policy.keep(Asked::of(target, Verdict::Denied(refusal))).await;
    }
}

/// Reads the first message of TLS, which must name `host`. Gives all that was read.
async fn hello(near: &mut (impl AsyncRead + Unpin), host: &Host) -> Result<Vec<u8>, Refusal> {
    let mut acceptor = Acceptor::default();
    let mut said = Vec::new();
    loop {
        said.reserve(READ_BYTES);
        let before = said.len();
        let read = near.read_buf(&mut said).await;
        if !read.is_ok_and(|bytes| bytes > 0) || said.len() > HELLO_BYTES_MAX {
            return Err(Refusal::NoTls);
        }
        let mut new = &said[before..];
        while !new.is_empty() {
            acceptor.read_tls(&mut new).map_err(|_| Refusal::NoTls)?;
        }
        if let Some(hello) = acceptor.accept().map_err(|_| Refusal::NoTls)? {
            let named = hello.client_hello().server_name().and_then(|name| name.parse().ok());
            return if named.as_ref() == Some(host) { Ok(said) } else { Err(Refusal::OtherName) };
        }
    }
}
