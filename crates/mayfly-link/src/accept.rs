//! The side that is asked for a channel: inside any server that hyper drives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderName, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::channel::config;
use crate::{ByteStream, Channel, LinkError};

/// A channel that comes about once the answer has been sent.
#[derive(Debug)]
pub struct Accepting {
    upgrade: OnUpgrade,
}

impl Accepting {
    /// Waits for the stream below, and makes the channel.
    pub async fn channel(self) -> Result<Channel, LinkError> {
        let upgraded = self.upgrade.await.map_err(|error| LinkError::Cut(Box::new(error)))?;
        let stream: Box<dyn ByteStream> = Box::new(TokioIo::new(upgraded));
        Ok(Channel::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await))
    }
}

/// Checks the handshake, and gives the answer to send (`101`, no body) and what becomes of it. A request with
/// an `Origin` comes from a browser's page, and no page has business here.
pub fn accept<B>(request: &mut Request<B>) -> Result<(Response<()>, Accepting), LinkError> {
    let key = check(request.method(), request.version(), request.headers())
        .map_err(|reason| LinkError::Handshake { reason: reason.to_owned() })?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, "Upgrade".parse().expect("a plain word"));
    headers.insert(UPGRADE, "websocket".parse().expect("a plain word"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key.parse().expect("base64 is plain"));
    Ok((response, Accepting { upgrade: hyper::upgrade::on(request) }))
}

/// What is wrong with the handshake, or the key of the answer.
fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<String, &'static str> {
    let key = headers.get(SEC_WEBSOCKET_KEY).map(http::HeaderValue::as_bytes);
    if method != Method::GET || version != Version::HTTP_11 {
        return Err("not a GET of HTTP/1.1");
    }
    if headers.contains_key(ORIGIN) {
        return Err("comes from a browser's page");
    }
    if !names(headers, &CONNECTION, "upgrade") || !names(headers, &UPGRADE, "websocket") {
        return Err("asks for no upgrade to a WebSocket");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("Sec-WebSocket-Version is not 13");
    }
    match key {
        Some(key) if STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) => Ok(derive_accept_key(key)),
        _ => Err("Sec-WebSocket-Key is not 16 bytes in base64"),
    }
}

/// Whether one of the header's comma-separated words is `word`.
fn names(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake() -> Request<()> {
        let request = Request::get("/v1/worker").header(CONNECTION, "keep-alive, Upgrade");
        let request = request.header(UPGRADE, "WebSocket").header(SEC_WEBSOCKET_VERSION, "13");
        request.header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==").body(()).expect("a request")
    }

    #[test]
    fn a_good_handshake_is_answered_as_the_standard_has_it() {
        let (response, _) = accept(&mut handshake()).expect("a good handshake");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        // The example of RFC 6455, section 1.3.
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// Covers S38 and S39 for what comes before the first frame.
    #[test]
    fn each_missing_or_wrong_part_is_refused() {
        for header in [CONNECTION, UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY] {
            for wrong in [None, Some("x")] {
                let mut request = handshake();
                match wrong {
                    None => request.headers_mut().remove(&header),
                    Some(value) => request.headers_mut().insert(&header, value.parse().expect("plain")),
                };
                assert!(accept(&mut request).is_err(), "{header} {wrong:?}");
            }
        }
        let mut page = handshake();
        page.headers_mut().insert(ORIGIN, "http://evil.test".parse().expect("plain"));
        assert!(accept(&mut page).is_err());
        let mut post = handshake();
        *post.method_mut() = Method::POST;
        assert!(accept(&mut post).is_err());
        let mut newer = handshake();
        *newer.version_mut() = Version::HTTP_2;
        assert!(accept(&mut newer).is_err());
    }
}
