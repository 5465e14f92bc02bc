//! Whole lives over each way to the orchestrator: the link, the requests of `claude`, and the results.

use http::Response;
use mayfly_link::Endpoint;
use mayfly_wire::boot::Boot;
use mayfly_wire::worker::{PROTOCOL, Source};

use super::host::{Desk, Host};
use crate::life::LifeError;

/// Asks the model, says what it answered, and leaves a session file.
const SCRIPT: &str = r#"
init
answer=$(bash -c 'exec 3<>/dev/tcp/127.0.0.1/${ANTHROPIC_BASE_URL##*:}
    printf "GET /v1/models HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n" >&3; tail -n 1 <&3')
mkdir -p "$CLAUDE_CONFIG_DIR/projects/x"
echo session > "$CLAUDE_CONFIG_DIR/projects/x/SESSION.jsonl"
echo "$answer"
seq 1 20000
result
cat > /dev/null
"#;

fn host() -> Host {
    let order = crate::claude::command::tests::order();
    Host::with(&SCRIPT.replace("SESSION", &order.session_id), |desk: &mut Desk| {
        desk.model = |request| {
            let words = format!("the model is asked for {}\n", request.uri().path());
            Some(Response::new(bytes::Bytes::from(words).into()))
        };
    })
}

async fn lives(host: Host, endpoint: Endpoint) {
    host.live_with(Boot { endpoint, ..host.boot() }).await.unwrap();
    assert_eq!(host.ended().0, "succeeded", "{}", host.ended().1);
    let said = String::from_utf8(host.bytes(Source::Claude)).unwrap();
    assert!(said.contains("the model is asked for /v1/models\n1\n2\n"), "{}", &said[..said.len().min(2000)]);
    assert!(said.contains("\n19999\n20000\n"));
    assert_eq!(host.result("transcript").unwrap(), "session\n");
}

#[tokio::test]
async fn over_a_unix_socket() {
    let host = host();
    let endpoint = host.boot().endpoint;
    lives(host, endpoint).await;
}

#[tokio::test]
async fn over_tcp() {
    let host = host();
    let endpoint = host.over_tcp().await;
    lives(host, endpoint).await;
}

#[tokio::test]
async fn over_tls() {
    let host = host();
    let endpoint = host.over_tls().await;
    lives(host, endpoint).await;
}

/// Covers R26 for the worker's side: it obeys nobody whose words it may misunderstand.
#[tokio::test]
async fn an_orchestrator_of_another_version_gets_no_work_done() {
    let host = Host::with("touch started", |desk| desk.protocol = PROTOCOL + 1);
    let lived = host.live().await;
    assert!(matches!(lived, Err(LifeError::NoOrder)), "{lived:?}");
    assert!(!host.workspace().join("started").exists());
}
