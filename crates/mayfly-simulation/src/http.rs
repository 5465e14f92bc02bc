//! Requests of an owner's, each over a connection of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_link::Dial;
use tokio::time::timeout;

/// How long an owner waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks, and gives the head of the answer.
async fn open(way: &dyn Dial, request: Request<Full<Bytes>>) -> Result<http::Response<Incoming>> {
    let stream = way.connect().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// A request with a body of JSON, or none.
pub(crate) fn request(method: Method, path: &str, key: Option<&str>, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "mayfly");
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Full::new(body)).expect("a good request")
}

/// Asks, and gives the whole answer.
pub(crate) async fn ask(way: &dyn Dial, request: Request<Full<Bytes>>) -> Result<(u16, Bytes)> {
    let asked = async {
        let answer = open(way, request).await?;
        let status = answer.status().as_u16();
        anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
    };
    timeout(PATIENCE, asked).await.context("no answer")?
}

/// Asks for a log, and hands over what comes of it. `Ok`: it came to its end.
pub(crate) async fn follow(way: &dyn Dial, path: &str, mut take: impl FnMut(&[u8])) -> Result<()> {
    let asked = open(way, request(Method::GET, path, None, Bytes::new()));
    let answer = timeout(PATIENCE, asked).await.context("no answer")??;
    if answer.status() != 200 {
        bail!("{}", answer.status());
    }
    let mut body = answer.into_body();
    while let Some(frame) = timeout(PATIENCE, body.frame()).await.context("silence")? {
        if let Some(bytes) = frame?.data_ref() {
            take(bytes);
        }
    }
    Ok(())
}
