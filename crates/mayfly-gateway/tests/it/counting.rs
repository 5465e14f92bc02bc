//! What answers use is counted beside their way, and what they may not show is masked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use mayfly_gateway::{CredentialKind, Used};
use tokio::sync::mpsc;

use crate::bed::{Bed, CANARY};

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":4,\"output_tokens\":1}}}\n\n";
const DELTA: &str =
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\n";

fn used(turn: bool, output_tokens: u64) -> Used {
    Used { turn, model: "m".to_owned(), input_tokens: 4, output_tokens, ..Used::default() }
}

/// The chunks that a test names, whole.
async fn streams(chunks: &'static [&'static str]) -> Bed {
    let answer = move || {
        let chunks = stream::iter(chunks).map(|&chunk| Ok::<_, std::convert::Infallible>(Bytes::from(chunk)));
        ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response()
    };
    Bed::answering(CredentialKind::OauthToken, answer).await
}

#[tokio::test]
async fn a_streamed_answer_is_counted_and_its_bytes_stay() {
    let mut bed = streams(&[START, DELTA]).await;
    assert_eq!(bed.ask().send().await.unwrap().text().await.unwrap(), format!("{START}{DELTA}"));
    assert_eq!(bed.counted.recv().await.unwrap(), used(true, 9));
    let agent = bed.ask().header("x-claude-code-agent-id", "a1");
    agent.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(bed.counted.recv().await.unwrap(), used(false, 9), "no turn of the main agent");
    let count = bed
        .machine
        .post(format!("{}/v1/messages/count_tokens", bed.url))
        .bearer_auth("placeholder-of-attempt-1");
    count.body("{}").send().await.unwrap().bytes().await.unwrap();
    assert!(bed.counted.try_recv().is_err(), "to count is no answer of a model");
}

/// What was paid for counts, whoever ends it.
#[tokio::test]
async fn an_answer_that_is_cut_short_is_counted_as_far_as_it_came() {
    let (write, chunks) = mpsc::unbounded_channel::<Bytes>();
    let chunks = std::sync::Mutex::new(Some(chunks));
    let answer = move || {
        let chunks = chunks.lock().unwrap().take().unwrap();
        let body = stream::unfold(chunks, async |mut chunks: mpsc::UnboundedReceiver<Bytes>| {
            Some((Ok::<_, std::convert::Infallible>(chunks.recv().await?), chunks))
        });
        ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
    };
    let mut bed = Bed::answering(CredentialKind::OauthToken, answer).await;
    let mut answer = bed.ask().send().await.unwrap();
    write.send(START.into()).unwrap();
    answer.chunk().await.unwrap();
    drop((answer, bed.machine));
    assert_eq!(bed.counted.recv().await.unwrap(), used(false, 1), "and it is no turn yet");
}

#[tokio::test]
async fn an_error_is_a_request_without_a_turn() {
    let answer = || (StatusCode::from_u16(529).unwrap(), "{}").into_response();
    let mut bed = Bed::answering(CredentialKind::OauthToken, answer).await;
    assert_eq!(bed.ask().send().await.unwrap().status(), 529);
    assert_eq!(bed.counted.recv().await.unwrap(), Used::default());
}

/// S44: what is no answer, whatever it calls itself, passes byte for byte, is asked for once, and uses nothing.
#[tokio::test]
async fn an_answer_that_is_none_passes_and_is_asked_for_once() {
    for (status, kind, body) in [
        (200, "text/html", "<html><script>x</script></html>"),
        (200, "application/json", "{\"model\":\"m\",\"usage\":{\"input_tok"),
        (200, "application/json", "{\"model\":7,\"usage\":[\"x\"]}"),
        (200, "application/json", "[[[["),
        (200, "text/event-stream", "event: message_start\ndata: <html>\n\n"),
        (200, "text/event-stream", "data: {\"type\":\"message_start\",\"message\":null}\n\n"),
        (200, "image/png", "\u{0}"),
        (429, "application/json", "{}"),
        (500, "text/plain", "no"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = move || (status, [("content-type", kind)], body).into_response();
        let mut bed = Bed::answering(CredentialKind::OauthToken, answer).await;
        let answer = bed.ask().send().await.unwrap();
        assert_eq!(answer.status(), status, "{body}");
        assert_eq!(answer.text().await.unwrap(), body);
        let Used { input_tokens, output_tokens, .. } = bed.counted.recv().await.unwrap();
        assert_eq!((input_tokens, output_tokens), (0, 0), "{body}");
        bed.reached.recv().await.unwrap();
        assert!(bed.reached.try_recv().is_err(), "{body}");
    }
}

/// S44: of an answer without end no more is taken than its machine reads, and a bounded rest.
#[tokio::test]
async fn an_answer_without_end_is_not_read_ahead() {
    const AHEAD_MAX: usize = 32 << 20;
    const CHUNK: usize = 64 << 10;
    let made = Arc::new(AtomicUsize::new(0));
    let making = Arc::clone(&made);
    let answer = move || {
        let (making, chunk) = (Arc::clone(&making), Bytes::from(vec![b'x'; CHUNK]));
        let chunks = stream::repeat_with(move || {
            making.fetch_add(CHUNK, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(chunk.clone())
        });
        Body::from_stream(chunks).into_response()
    };
    let bed = Bed::answering(CredentialKind::OauthToken, answer).await;
    let mut answer = bed.ask().send().await.unwrap();
    let mut read = 0;
    while read < 2 * AHEAD_MAX {
        read += answer.chunk().await.unwrap().expect("it has no end").len();
        let ahead = made.load(Ordering::Relaxed).saturating_sub(read);
        assert!(ahead < AHEAD_MAX, "{ahead} after {read}");
    }
}

/// S29: an answer that shows the credential, cut across chunks, as it is and in base64.
#[tokio::test]
async fn a_secret_in_an_answer_does_not_reach_the_machine() {
    // base64 of "key sk-canary-5d1f!".
    let bed = streams(&["bad key sk-can", "ary-5d1f; a2V5IHNrLWNhbm", "FyeS01ZDFmIQ== sk-", "canoe"]).await;
    let answer = bed.ask().send().await.unwrap().text().await.unwrap();
    assert!(!answer.contains(CANARY) && !answer.contains("WNhbmFye"), "{answer}");
    assert!(
        answer.starts_with("bad key **************; a2V5IH") && answer.ends_with(" sk-canoe"),
        "{answer}"
    );
}
