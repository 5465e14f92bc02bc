//! Answers are bounded on the way out, where a task's agents say so.

use axum::Router;
use axum::extract::Request;
use futures_util::future::{join_all, pending};
use http::StatusCode;
use mayfly_gateway::{CredentialKind, REQUEST_BYTES_MAX};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::bed::{BOUNDED, Bed, serve};

async fn max_tokens(bed: &mut Bed) -> Value {
    let (parts, body) = bed.reached.recv().await.unwrap();
    assert_eq!(parts.headers["content-length"], body.len().to_string());
    serde_json::from_slice::<Value>(&body).unwrap()["max_tokens"].clone()
}

/// Each agent has its own bound, and whoever is none of them has the main one's.
#[tokio::test]
async fn an_answer_is_bounded_outside_of_the_machine() {
    let mut bed = Bed::new(CredentialKind::ApiKey).await;
    let ask = |bed: &Bed, system: &str, tokens: u64| {
        let body = json!({"system": [{"type": "text", "text": system}], "max_tokens": tokens});
        bed.machine
            .post(format!("{}/v1/messages?beta=true", bed.url))
            .bearer_auth(BOUNDED)
            .body(body.to_string())
    };
    let of_agent = |request: reqwest::RequestBuilder| request.header("x-claude-code-agent-id", "a1");
    for (request, tokens) in [
        (ask(&bed, "You are one.", 128_000), 700),
        (ask(&bed, "You are one.", 7), 7),
        (of_agent(ask(&bed, "Review.\n\nMessages", 128_000)), 300),
        (of_agent(ask(&bed, "You are another.", 128_000)), 700),
    ] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(max_tokens(&mut bed).await, tokens);
    }
}

/// What cannot be read is not sent, and no body takes more memory than one may be long.
#[tokio::test]
async fn what_cannot_be_bounded_is_not_sent() {
    let mut bed = Bed::new(CredentialKind::ApiKey).await;
    for (body, status) in [
        ("{\"max_tokens\": 1, \"max_tokens\": 2}".to_owned(), StatusCode::BAD_REQUEST),
        ("no JSON".to_owned(), StatusCode::BAD_REQUEST),
        (" ".repeat(REQUEST_BYTES_MAX + 1), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(body)]));
        let asked = bed.machine.post(format!("{}/v1/messages", bed.url)).bearer_auth(BOUNDED).body(body);
        assert_eq!(asked.send().await.unwrap().status(), status);
    }
    assert!(bed.reached.try_recv().is_err());
}

/// A body is held until it has gone out, and not until its answer comes, which can take minutes.
#[tokio::test]
async fn no_request_waits_for_the_answer_of_another() {
    const CALLS: usize = 5;
    let (reach, reached) = mpsc::unbounded_channel();
    let api = Router::new().fallback(async move |request: Request| {
        let (parts, body) = request.into_parts();
        reach.send((parts, axum::body::to_bytes(body, usize::MAX).await.unwrap())).unwrap();
        pending::<()>().await;
    });
    let mut bed = Bed::before(serve(api).await, CredentialKind::ApiKey, reached).await;
    let ask = || bed.machine.post(format!("{}/v1/messages", bed.url)).bearer_auth(BOUNDED);
    let asking = join_all((0..CALLS).map(|_| ask().body(r#"{"max_tokens":900}"#).send()));
    let all_reached = async {
        for _ in 0..CALLS {
            assert_eq!(max_tokens(&mut bed).await, 700);
        }
    };
    tokio::select! {
        answers = asking => panic!("nobody answers: {answers:?}"),
        () = all_reached => {}
    }
}
