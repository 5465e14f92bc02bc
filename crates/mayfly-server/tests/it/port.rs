//! The owner's API on a port: with the token all of it, without nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use mayfly_engine::SystemClock;
use mayfly_server::{Server, ServerConfig, StartError, Tls};
use mayfly_testkit::SimProvider;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) async fn start(data: &TempDir, listen: SocketAddr) -> Result<Server, StartError> {
    start_with(data, |config| config.listen = Some(listen)).await
}

pub(crate) async fn start_with(
    data: &TempDir,
    adjust: impl FnOnce(&mut ServerConfig),
) -> Result<Server, StartError> {
    let mut config = ServerConfig { listen: Some(ANY), ..ServerConfig::in_dir(data.path()) };
    adjust(&mut config);
    Server::start(config, Arc::new(SimProvider::new().0), Arc::new(SystemClock)).await
}

pub(crate) async fn status(server: &Server, path: &str, token: Option<&str>) -> StatusCode {
    let url = format!("http://{}{path}", server.listening().expect("a port"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = token.into_iter().fold(client.get(url), reqwest::RequestBuilder::bearer_auth);
    request.send().await.unwrap().status()
}

/// S36, S40
#[tokio::test]
async fn only_the_token_opens_the_port() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let file = std::fs::read_to_string(server.token_file()).unwrap();
    let token = file.trim_end();
    for path in ["/v1/tasks", "/readyz"] {
        assert_eq!(status(&server, path, Some(token)).await, 200, "{path}");
        for wrong in [None, Some(""), Some("mayfly-owner-"), Some(&token[..70]), Some("Bearer")] {
            assert_eq!(status(&server, path, wrong).await, 401, "{path} {wrong:?}");
        }
    }
    assert_eq!(status(&server, "/v1/nowhere", None).await, 401, "not even what is there");
    assert_eq!(status(&server, "/healthz", None).await, 200);
    assert_eq!(status(&server, "/v1/worker", Some(token)).await, 404, "a machine's door is not here");
    server.stop().await;
    let again = start(&data, ANY).await.unwrap();
    assert_eq!(status(&again, "/v1/tasks", Some(token)).await, 200, "it is the same after a restart");
}

/// S64: nothing listens for the world without TLS, unless it was said in words; the token is wanted also then.
#[tokio::test]
async fn an_address_that_others_can_reach_is_refused_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let error = start(&dir, address.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, StartError::Exposed(_)), "{error}");
        assert!(error.to_string().contains("--listen-without-tls"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was touched");
    }
    let everywhere = Some("0.0.0.0:0".parse().unwrap());
    let told = start_with(&dir, |config| {
        (config.listen, config.listen_without_tls) = (everywhere, true);
    });
    let told = told.await.unwrap();
    let port = told.listening().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/v1/tasks");
    assert_eq!(reqwest::get(url).await.unwrap().status(), 401);
    told.stop().await;
    let with_tls = start_with(&dir, |config| {
        (config.listen, config.tls) = (everywhere, Some(Tls::SelfSigned));
    });
    with_tls.await.unwrap();
}

/// S39, CVE-2025-52882's kind: a page of the owner's browser, or one whose name leads here.
#[tokio::test]
async fn a_web_page_is_refused_whatever_it_has() {
    let data = tempfile::tempdir().unwrap();
    let server =
        start_with(&data, |config| config.host_names = vec!["box.example".to_owned()]).await.unwrap();
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}", server.listening().unwrap());
    let ask = async |path: &str, header: &str, value: &str, token: Option<&str>| {
        let request = http.get(format!("{url}{path}")).header(header, value);
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        request.send().await.unwrap().status().as_u16()
    };
    for token in [None, Some(token.trim_end())] {
        for path in ["/v1/tasks", "/healthz", "/v1/nowhere"] {
            for origin in ["http://evil.test", "null", &url, ""] {
                assert_eq!(ask(path, "origin", origin, token).await, 403, "{path} {origin} {token:?}");
            }
            for host in ["evil.test", "evil.test:6293", "localhost.evil.test", "192.0.2.1"] {
                assert_eq!(ask(path, "host", host, token).await, 403, "{path} {host} {token:?}");
            }
        }
        let (with_a_good_name, expected) =
            (["localhost", "box.example:1", "[::1]"], token.map_or(401, |_| 200));
        for host in with_a_good_name {
            assert_eq!(ask("/v1/tasks", "host", host, token).await, expected, "{host} {token:?}");
        }
    }
    let owner = crate::bed::raw(&server.socket());
    let page = owner.get("http://mayfly/v1/tasks").header("origin", "http://evil.test");
    assert_eq!(page.send().await.unwrap().status(), 403, "also where somebody leads a port to the socket");
    let other = owner.get("http://whatever/v1/tasks").send().await.unwrap();
    assert_eq!(other.status(), 200, "a socket has no name");
}

/// S39: what a request may call us, by where we listen. Nobody is asked for the port: one that is led here has its own.
#[tokio::test]
async fn by_which_names_a_port_is_known_depends_on_who_can_reach_it() {
    const HERE: [&str; 5] =
        ["127.0.0.1", "127.0.0.1:{port}", "[::1]:{port}", "localhost:{port}", "localhost:1"];
    const ELSEWHERE: [&str; 4] = ["192.0.2.1:{port}", "10.1.2.3", "[2001:db8::1]:{port}", "[fe80::1]"];
    const NOBODY: [&str; 6] =
        ["evil.test:{port}", "127.0.0.1.evil.test", "0.0.0.0:{port}", "[::]:{port}", "user@localhost", ""];
    for (listen, others_come) in [
        ("127.0.0.1:0", false),
        ("127.0.0.2:0", false),
        ("[::1]:0", false),
        ("0.0.0.0:0", true),
        ("[::]:0", true),
    ] {
        let data = tempfile::tempdir().unwrap();
        let at = |config: &mut ServerConfig| {
            (config.listen, config.listen_without_tls) = (Some(listen.parse().unwrap()), others_come);
        };
        let server = start_with(&data, at).await.unwrap();
        let mut address = server.listening().unwrap();
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        let known = |names: &'static [&str], expected| names.iter().map(move |name| (name, expected));
        let elsewhere = if others_come { 401 } else { 403 };
        for (name, expected) in
            known(&HERE, 401).chain(known(&ELSEWHERE, elsewhere)).chain(known(&NOBODY, 403))
        {
            let name = name.replace("{port}", &address.port().to_string());
            assert_eq!(asked_as(address, &name).await, expected, "{name:?} at {listen}");
        }
    }
}

/// The status of an answer to a request that calls the port so, and has no token.
async fn asked_as(address: SocketAddr, host: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /v1/tasks HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind(ANY).unwrap();
    let data = tempfile::tempdir().unwrap();
    let error = start(&data, taken.local_addr().unwrap()).await.unwrap_err();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(matches!(error, StartError::Port { .. }), "{error}");
    assert!(error.to_string().contains(&port) && error.to_string().contains("--listen"), "{error}");
    drop(start(&data, ANY).await.expect("nothing of the one that failed is left"));
}
