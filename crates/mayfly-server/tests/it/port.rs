//! The owner's API on a port: with the token all of it, without nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use mayfly_engine::SystemClock;
use mayfly_server::{Server, ServerConfig, StartError};
use mayfly_testkit::SimProvider;
use tempfile::TempDir;

pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) async fn start(data: &TempDir, listen: SocketAddr) -> Result<Server, StartError> {
    let config = ServerConfig { listen: Some(listen), ..ServerConfig::in_dir(data.path()) };
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

/// S37: nothing listens for the world.
#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let data = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let error = start(&data, address.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, StartError::Exposed(_)), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
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
