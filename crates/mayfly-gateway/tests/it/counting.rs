//! What answers use is counted beside their way, and what they may not show is masked.

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
