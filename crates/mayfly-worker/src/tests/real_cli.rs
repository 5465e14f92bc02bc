//! The worker with the real CLI, where the environment names it: its own flags, environment and protocol.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use mayfly_wire::worker::{Down, Report, Source};

use super::host::{Host, Model};
use crate::supervise::Graces;

fn host(model: Model) -> Host {
    let mut host = Host::with("", |desk| {
        desk.model = model;
        desk.order.claude_version = None;
        desk.order.prompt = "-say hello\nplease".to_owned();
    });
    host.graces = Graces::USUAL;
    host
}

async fn live(host: &Host, cli: PathBuf) {
    let mut boot = host.boot();
    boot.claude = cli;
    host.live_with(boot).await.unwrap();
}

fn refuse(status: StatusCode, kind: &str) -> Response<Full<Bytes>> {
    let body = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"no"}}}}"#);
    Response::builder().status(status).header("content-type", "application/json").body(body.into()).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "a model may also never answer")]
/// A model that says one text to whoever has the placeholder.
fn says_hello(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    if request.uri().path() != "/v1/messages" {
        return Some(refuse(StatusCode::NOT_FOUND, "not_found_error"));
    }
    if request.headers()["authorization"] != "Bearer canary-model" {
        return Some(refuse(StatusCode::UNAUTHORIZED, "authentication_error"));
    }
    let usage = r#"{"input_tokens":3,"output_tokens":2}"#;
    let events = [
        format!(
            r#"{{"type":"message_start","message":{{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{usage}}}}}"#
        ),
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#.to_owned(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello."}}"#
            .to_owned(),
        r#"{"type":"content_block_stop","index":0}"#.to_owned(),
        format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{usage}}}"#
        ),
        r#"{"type":"message_stop"}"#.to_owned(),
    ];
    let name = |event: &str| event.split('"').nth(3).unwrap().to_owned();
    let body: Vec<_> =
        events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", name(event))).collect();
    Some(Response::builder().header("content-type", "text/event-stream").body(body.concat().into()).unwrap())
}

#[tokio::test]
async fn the_real_cli_runs_as_asked_and_its_session_comes_out() {
    let Some(cli) = mayfly_test_needs::claude() else { return };
    let host = host(says_hello);
    fs::write(host.workspace().join("note"), "x").unwrap();
    live(&host, cli).await;
    assert_eq!(host.ended(), ("succeeded".to_owned(), String::new()), "{:?}", host.reports());
    assert!(matches!(&host.reports()[1], Report::Ready { model, .. } if model.contains("sonnet")));
    let said = String::from_utf8(host.bytes(Source::Claude)).unwrap();
    assert!(said.contains(r#""text":"Hello.""#), "{said}");
    let transcript = String::from_utf8(host.result("transcript").unwrap().to_vec()).unwrap();
    assert!(transcript.contains("-say hello\\nplease"), "the prompt is in the session file");
    let collected = host.collected();
    assert!(collected.transcript && collected.bundle && collected.unsaved.is_empty(), "{collected:?}");
}

#[tokio::test]
async fn an_api_that_refuses_the_credential_is_an_api_error() {
    let Some(cli) = mayfly_test_needs::claude() else { return };
    let host = host(|_| Some(refuse(StatusCode::UNAUTHORIZED, "authentication_error")));
    live(&host, cli).await;
    let (outcome, detail) = host.ended();
    assert_eq!(outcome, "api-error", "{detail}");
    assert!(detail.contains("401"), "{detail}");
}

/// Covers R32 for the real CLI: a turn whose answer never comes is interrupted.
#[tokio::test]
async fn a_cancel_interrupts_the_real_cli_and_its_session_comes_out() {
    let Some(cli) = mayfly_test_needs::claude() else { return };
    let host = host(|_| None);
    let ((), ()) = tokio::join!(live(&host, cli), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        host.say(Down::Collect);
    });
    assert_eq!(host.ended().0, "cancelled");
    let said = String::from_utf8(host.bytes(Source::Claude)).unwrap();
    assert!(said.contains("aborted_streaming"), "it was asked, not killed: {said}");
    assert!(host.collected().transcript);
}
