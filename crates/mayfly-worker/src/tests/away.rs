//! What the CLI sees of an orchestrator that is away: its requests wait, and are replayed once.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use mayfly_link::{Endpoint, Route};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, sleep};

use crate::hold::HELD_BYTES_MAX;
use crate::relay::{self, HELD_MAX};

/// How long the machine goes on alone.
const AWAY_MAX: Duration = Duration::from_secs(3600);
/// A model call, as short as can be.
const CALL: &str = r#"{"model":"sonnet","stream":true}"#;
/// The whole of a streamed answer.
const ANSWER: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const PING: &str = "event: ping\n";

/// A machine's way out, with nobody at its other end yet.
struct WayOut {
    port: u16,
    endpoint: PathBuf,
    _dir: TempDir,
}

impl WayOut {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = dir.path().join("s");
        let port = relay::start(Arc::new(Route::from(Endpoint::Unix(endpoint.clone()))), || 1, AWAY_MAX)
            .await
            .unwrap()
            .port;
        Self { port, endpoint, _dir: dir }
    }

    /// `claude` asks.
    async fn ask(&self, route: &str, body: &str) -> TcpStream {
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let length = body.len();
        let head = format!(
            "POST {route} HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip, br\r\nx-stays: yes\r\ncontent-length: {length}"
        );
        near.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        near
    }

    async fn call(&self) -> TcpStream {
        self.ask("/v1/messages?beta=true", CALL).await
    }

    fn orchestrator(&self) -> UnixListener {
        UnixListener::bind(&self.endpoint).unwrap()
    }

    /// As a SIGKILL leaves it: the socket's file stays, and nobody listens.
    fn die(&self, orchestrator: UnixListener) {
        drop(orchestrator);
        fs::remove_file(&self.endpoint).unwrap();
    }
}

/// The next request that reaches the orchestrator, and the connection that it came by.
async fn next(orchestrator: &UnixListener) -> (String, String, UnixStream) {
    let (mut far, _) = orchestrator.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    far.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap(), far)
}

async fn answer(far: &mut UnixStream, head: &str, body: &str) {
    let length = body.len();
    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
    far.write_all(answer.as_bytes()).await.unwrap();
}

/// All that comes until the end of the connection.
async fn rest(mut near: TcpStream) -> String {
    let mut said = Vec::new();
    let _ = near.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

/// Whether a chunked answer is whole.
fn is_whole(said: &str) -> bool {
    said.ends_with("\r\n0\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn two_minutes_without_an_orchestrator_in_a_model_call_cost_one_request_more() {
    let way_out = WayOut::new().await;
    let orchestrator = way_out.orchestrator();
    let cut = way_out.call().await;
    drop(next(&orchestrator).await);
    way_out.die(orchestrator);
    assert_eq!(rest(cut).await, "", "nothing is answered to what may have been seen");

    // As the CLI does, it asks again.
    let (again, before) = (way_out.call().await, Instant::now());
    sleep(Duration::from_secs(120)).await;
    let orchestrator = way_out.orchestrator();
    let (head, body, mut far) = next(&orchestrator).await;
    assert!(head.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-stays: yes") && !head.contains("accept-encoding"), "{head}");
    assert_eq!(body, CALL);
    answer(&mut far, "200 OK\r\ncontent-type: text/event-stream; charset=utf-8", ANSWER).await;
    let said = rest(again).await;
    let (pings, end) = said.split_once(ANSWER).expect("the answer");
    assert!(pings.starts_with("HTTP/1.1 200 OK\r\n") && pings.contains("content-type: text/event-stream"));
    let waited = usize::try_from(before.elapsed().as_secs()).unwrap();
    assert!((waited / 5..=waited / 5 + 1).contains(&pings.matches(PING).count()), "{pings}");
    assert!(is_whole(&said), "{end}");
    assert!(orchestrator.accept().now_or_never().is_none(), "it is replayed once");
}

/// A status and its headers pass as they are, as long as nothing was said before.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_streamed_waits_for_its_own_answer() {
    let way_out = WayOut::new().await;
    for (route, body) in
        [("/v1/messages", r#"{"stream":false}"#), ("/v1/messages/count_tokens", CALL), ("/other", "")]
    {
        let near = way_out.ask(route, body).await;
        sleep(Duration::from_secs(120)).await;
        let orchestrator = way_out.orchestrator();
        let (head, arrived, mut far) = next(&orchestrator).await;
        assert!(head.contains("accept-encoding: gzip, br"), "{head}");
        assert_eq!(arrived, body);
        answer(&mut far, "429 Too Many Requests\r\nretry-after: 7", "busy").await;
        let said = rest(near).await;
        assert!(said.starts_with("HTTP/1.1 429 ") && said.contains("retry-after: 7"), "{said}");
        assert!(said.ends_with("\r\n\r\nbusy"), "{said}");
        way_out.die(orchestrator);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_after_pings_becomes_the_error_event_of_a_stream() {
    let error = r#"{"error":{"message":"busy","type":"overloaded_error"},"type":"error"}"#;
    let said = answered("529 Overloaded\r\ncontent-type: application/json", error).await;
    assert!(said.contains(&format!("\nevent: error\ndata: {error}\n\n")), "{said}");
    assert!(said.starts_with("HTTP/1.1 200 ") && is_whole(&said), "{said}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_follow_pings_cuts_the_answer() {
    for (head, body) in [
        ("502 Bad Gateway\r\ncontent-type: text/html", "<html>"),
        ("200 OK\r\ncontent-type: application/json", r#"{"type":"message"}"#),
        ("200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip", "\x1f"),
    ] {
        let said = answered(head, body).await;
        assert!(said.contains(PING) && !said.contains(body) && !is_whole(&said), "{said}");
    }
}

/// What `claude` gets when a held call is answered with this.
async fn answered(head: &str, body: &str) -> String {
    let way_out = WayOut::new().await;
    let near = way_out.call().await;
    sleep(Duration::from_secs(30)).await;
    let orchestrator = way_out.orchestrator();
    let (_, _, mut far) = next(&orchestrator).await;
    answer(&mut far, head, body).await;
    rest(near).await
}

/// R03: it goes away again.
#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_cut_and_not_asked_for_again() {
    let way_out = WayOut::new().await;
    let near = way_out.call().await;
    sleep(Duration::from_secs(30)).await;
    let orchestrator = way_out.orchestrator();
    let (_, _, mut far) = next(&orchestrator).await;
    let half = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    far.write_all(half.as_bytes()).await.unwrap();
    drop(far);
    let said = rest(near).await;
    assert!(said.contains("half") && !is_whole(&said), "{said}");
    assert!(orchestrator.accept().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_for_any_more_is_forgotten() {
    let way_out = WayOut::new().await;
    let mut near = way_out.call().await;
    near.read_u8().await.unwrap();
    let waits = way_out.ask("/v1/messages", "{}").await;
    sleep(Duration::from_secs(30)).await;
    drop((near, waits));
    sleep(Duration::from_secs(30)).await;
    let orchestrator = way_out.orchestrator();
    let _last = way_out.ask("/last", "").await;
    assert!(next(&orchestrator).await.0.starts_with("POST /last "));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_given_up_is_not_kept_waiting() {
    let way_out = WayOut::new().await;
    let before = Instant::now();
    let (streamed, waiting) = (way_out.call().await, way_out.ask("/v1/messages", "{}").await);
    let (streamed, waiting) = tokio::join!(rest(streamed), rest(waiting));
    assert!(streamed.contains(PING) && !is_whole(&streamed));
    assert_eq!((waiting.as_str(), before.elapsed().as_secs()), ("", AWAY_MAX.as_secs()));
}

/// S38: a machine's own programs fill nothing but their share.
#[tokio::test(start_paused = true)]
async fn what_is_held_has_a_bound_and_what_is_more_waits_unread() {
    let way_out = WayOut::new().await;
    let calls: Vec<_> = futures_util::future::join_all((0..HELD_MAX).map(|_| way_out.call())).await;
    let mut one_more = way_out.ask("/one-more", "").await;
    sleep(Duration::from_secs(120)).await;
    assert!(one_more.read_u8().now_or_never().is_none(), "no ping");
    drop(calls);
    let orchestrator = way_out.orchestrator();
    let (head, _, mut far) = next(&orchestrator).await;
    assert!(head.starts_with("POST /one-more "), "{head}");
    answer(&mut far, "204 No Content", "").await;
    drop(far);
    assert!(rest(one_more).await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn a_request_that_is_too_long_to_be_held_is_refused() {
    let way_out = WayOut::new().await;
    let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, way_out.port)).await.unwrap();
    let head =
        format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", HELD_BYTES_MAX + 1);
    near.write_all(head.as_bytes()).await.unwrap();
    near.write_all(&vec![b' '; HELD_BYTES_MAX + 1]).await.unwrap();
    let said = rest(near).await;
    assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("request_too_large"), "{said}");
}
