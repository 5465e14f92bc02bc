//! The ways to an orchestrator besides the unix socket: TCP, TLS, a proxy.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mayfly_link::{ByteStream, Dial as _, Endpoint, Fingerprint, LinkError, Proxy, Route, dial, fingerprint};
use mayfly_wire::Secret;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::{serve, text};

/// A listener on loopback, and its port.
async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn route(endpoint: &str, proxy: Option<&str>) -> Route {
    Route::new(endpoint.parse().unwrap(), proxy.map(|proxy| proxy.parse().unwrap()))
}

/// TLS with a certificate made for `name`, its fingerprint, and a key that may be another's.
fn acceptor(name: &str, key: Option<KeyPair>) -> (TlsAcceptor, Fingerprint) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.unwrap_or(signing_key).serialize_der().into());
    let pin = fingerprint(cert.der());
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let signer = crypto.key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![cert.der().clone()], signer);
    let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    (TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_cert_resolver(resolver))), pin)
}

/// Accepts channels over TLS at a port, until the test is over.
async fn over_tls(acceptor: TlsAcceptor) -> (u16, mpsc::Receiver<Result<mayfly_link::Channel, LinkError>>) {
    let (listener, port) = listener().await;
    let (made, channels) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serve(stream, made.clone()));
            }
        }
    });
    (port, channels)
}

/// Says one frame each way.
async fn exchange(near: &mut mayfly_link::Channel, far: &mut mayfly_link::Channel) {
    near.send(text("hello")).await.unwrap();
    assert_eq!(far.recv().await.unwrap().unwrap(), text("hello"));
    far.send(text("welcome")).await.unwrap();
    assert_eq!(near.recv().await.unwrap().unwrap(), text("welcome"));
}

#[tokio::test]
async fn over_tcp_the_handshake_names_the_host_and_bears_the_token() {
    let (listener, port) = listener().await;
    let (heard, mut headers) = mpsc::channel::<HeaderMap>(1);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let heard = heard.clone();
            async move {
                heard.send(request.headers().clone()).await.unwrap();
                let problem = r#"{"type":"denied","status":401,"detail":"no"}"#;
                Response::builder().status(401).body(Full::new(Bytes::from(problem)))
            }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    });
    let token = Secret::from("canary".to_owned());
    let got = dial(&route(&format!("http://127.0.0.1:{port}"), None), "/v1/tunnel", Some(&token)).await;
    assert!(
        matches!(&got, Err(LinkError::Refused { status: 401, kind: Some(kind) }) if kind == "denied"),
        "{got:?}"
    );
    let headers = headers.recv().await.unwrap();
    assert_eq!(headers[HOST], format!("127.0.0.1:{port}"));
    assert_eq!(headers[AUTHORIZATION], "Bearer canary");
}

#[tokio::test]
async fn a_pinned_certificate_is_enough_whatever_its_name() {
    let (acceptor, pin) = acceptor("elsewhere", None);
    let (port, mut channels) = over_tls(acceptor).await;
    let way = route(&format!("https://127.0.0.1:{port}#{pin}"), None);
    for _ in 0..2 {
        let mut near = dial(&way, "/v1/worker", None).await.unwrap();
        exchange(&mut near, &mut channels.recv().await.unwrap().unwrap()).await;
    }
}

/// Somebody else's certificate is refused before a byte is said.
#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_by_its_fingerprint() {
    let (acceptor, presented) = acceptor("localhost", None);
    let (port, _channels) = over_tls(acceptor).await;
    let other = Fingerprint([7; 32]);
    for endpoint in [format!("https://localhost:{port}"), format!("https://localhost:{port}#{other}")] {
        let got = dial(&route(&endpoint, None), "/v1/worker", None).await;
        let Err(error @ LinkError::Untrusted { presented: told, pinned, .. }) = got else {
            panic!("{got:?}")
        };
        assert_eq!(told, presented);
        assert_eq!(pinned.is_some(), endpoint.ends_with(&other.to_string()));
        assert!(error.to_string().contains(&presented.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_pinned_certificate_without_its_key_is_refused() {
    let (acceptor, pin) = acceptor("localhost", Some(KeyPair::generate().unwrap()));
    let (port, _channels) = over_tls(acceptor).await;
    let got = dial(&route(&format!("https://localhost:{port}#{pin}"), None), "/v1/worker", None).await;
    assert!(matches!(got, Err(LinkError::Tls(_))), "{got:?}");
}

#[tokio::test]
async fn what_speaks_no_tls_is_not_taken_for_a_wrong_certificate() {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let got = dial(&route(&format!("https://127.0.0.1:{port}"), None), "/v1/worker", None).await;
    assert!(matches!(got, Err(LinkError::Tls(_))), "{got:?}");
}

/// TLS answers a plain request with an alert.
#[tokio::test]
async fn what_answers_with_no_http_is_told_apart_from_what_breaks_off() {
    let (acceptor, _) = acceptor("localhost", None);
    let (port, _channels) = over_tls(acceptor).await;
    let got = dial(&route(&format!("http://127.0.0.1:{port}"), None), "/v1/tunnel", None).await;
    assert!(matches!(got, Err(LinkError::NotHttp(_))), "{got:?}");
}

/// A proxy that leads to `to`, whatever it is asked for. Gives its port, and the head of each request.
async fn proxy(to: u16) -> (u16, mpsc::Receiver<String>) {
    let (listener, port) = listener().await;
    let (heard, heads) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(near.read_u8().await.unwrap());
            }
            heard.send(String::from_utf8(asked).unwrap()).await.unwrap();
            let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (port, heads)
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_way_and_sees_nothing_of_what_follows() {
    let (acceptor, pin) = acceptor("orchestrator.test", None);
    let (port, mut channels) = over_tls(acceptor).await;
    let (proxy, mut heads) = proxy(port).await;
    // A name that nobody can resolve: the proxy is to.
    let way = route(
        &format!("https://orchestrator.test:8443#{pin}"),
        Some(&format!("http://me:word@127.0.0.1:{proxy}")),
    );
    let mut near = dial(&way, "/v1/tunnel", None).await.unwrap();
    exchange(&mut near, &mut channels.recv().await.unwrap().unwrap()).await;
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("CONNECT orchestrator.test:8443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nProxy-Authorization: Basic bWU6d29yZA==\r\n"), "{head}");
}

/// Nobody answers, at each place in turn: the dialling ends.
#[tokio::test(start_paused = true)]
async fn a_way_that_answers_nothing_is_given_up() {
    let (_listener, port) = listener().await;
    for (endpoint, proxy) in [
        (format!("http://127.0.0.1:{port}"), None),
        (format!("https://127.0.0.1:{port}"), None),
        ("http://box.test".to_owned(), Some(format!("127.0.0.1:{port}"))),
    ] {
        let got = dial(&route(&endpoint, proxy.as_deref()), "/v1/worker", None).await;
        assert!(matches!(got, Err(LinkError::Silent { .. })), "{endpoint}: {got:?}");
    }
}

/// Beside the channel: a plain connection carries any request.
#[tokio::test]
async fn a_plain_connection_carries_bytes_both_ways() {
    let (acceptor, pin) = acceptor("localhost", None);
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        stream.shutdown().await
    });
    let way = Route::from(format!("https://localhost:{port}#{pin}").parse::<Endpoint>().unwrap());
    let mut stream: Box<dyn ByteStream> = way.connect().await.unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "question");
}

#[test]
fn a_proxys_password_is_in_no_debug_text() {
    let proxy: Proxy = "http://me:canary@h:1".parse().unwrap();
    let way = Route::new("https://h".parse().unwrap(), Some(proxy));
    assert!(!format!("{way:?}").contains("canary"));
}
