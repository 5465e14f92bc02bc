//! Bodies pass as they come.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use mayfly_gateway::{CredentialKind, REQUEST_BYTES_MAX};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

use crate::bed::{Bed, Door, message};

/// S33: what an attempt had under way ends within this time after it.
const CUT_MAX: Duration = Duration::from_secs(1);

type Chunks = mpsc::UnboundedReceiver<Bytes>;

/// An answer whose chunks the test writes one by one.
fn held(chunks: Chunks) -> impl Fn() -> Response + Send + Sync {
    let chunks = Mutex::new(Some(chunks));
    move || {
        let chunks = chunks.try_lock().unwrap().take().expect("asked once");
        let body = stream::unfold(chunks, async |mut chunks: Chunks| {
            Some((Ok::<_, std::convert::Infallible>(chunks.recv().await?), chunks))
        });
        ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
    }
}

#[tokio::test]
async fn a_chunk_passes_before_the_next_is_written() {
    let (write, chunks) = mpsc::unbounded_channel();
    let bed = Bed::answering(CredentialKind::OauthToken, held(chunks)).await;
    let mut answer = bed.ask().send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    for event in ["event: ping\n\n", "data: {}\n\n", "d"] {
        write.send(Bytes::from(event)).unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), event);
    }
    drop(write);
    assert_eq!(answer.chunk().await.unwrap(), None);
}

/// The model API must not work on for a machine that is gone.
#[tokio::test]
async fn a_machine_that_hangs_up_ends_the_answer() {
    let (write, chunks) = mpsc::unbounded_channel();
    let bed = Bed::answering(CredentialKind::OauthToken, held(chunks)).await;
    let mut answer = bed.ask().send().await.unwrap();
    write.send(Bytes::from_static(b"one")).unwrap();
    answer.chunk().await.unwrap();
    drop((answer, bed.machine));
    write.closed().await;
}

#[tokio::test]
async fn a_compressed_body_is_not_touched() {
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let answer = || ([("content-encoding", "gzip")], Bytes::from_static(gzip)).into_response();
    let bed = Bed::answering(CredentialKind::OauthToken, answer).await;
    let answer = bed.ask().send().await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    assert_eq!(answer.bytes().await.unwrap(), &gzip[..]);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_long_is_refused_unread() {
    let mut bed = Bed::new(CredentialKind::OauthToken).await;
    let ask = bed
        .ask()
        .header("content-length", REQUEST_BYTES_MAX + 1)
        .body(reqwest::Body::wrap_stream(stream::pending::<Result<Bytes, std::convert::Infallible>>()));
    let answer = ask.send().await.unwrap();
    assert_eq!(answer.status(), 413);
    assert!(message(answer).await.contains(&REQUEST_BYTES_MAX.to_string()));
    assert!(bed.reached.try_recv().is_err());
}

#[tokio::test]
async fn a_body_that_grows_too_long_is_cut_off() {
    let mut bed = Bed::new(CredentialKind::OauthToken).await;
    let megabyte = Bytes::from(vec![b' '; 1 << 20]);
    let endless = stream::repeat_with(move || Ok::<_, std::convert::Infallible>(megabyte.clone()));
    let endless = futures_util::StreamExt::take(endless, REQUEST_BYTES_MAX / (1 << 20) + 1);
    // The rest of the body waits, so that the answer does not race with a broken pipe.
    let endless = futures_util::StreamExt::chain(endless, stream::pending());
    let answer = bed.ask().body(reqwest::Body::wrap_stream(endless)).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    message(answer).await;
    assert!(bed.reached.try_recv().is_err(), "no whole request may reach the model API");
}

/// S33: an answer that is under way when its attempt ends is cut off within a second, and nobody takes it for whole.
#[tokio::test]
async fn an_answer_ends_with_its_attempt() {
    let (write, chunks) = mpsc::unbounded_channel();
    let bed = Bed::answering(CredentialKind::OauthToken, held(chunks)).await;
    let mut answer = bed.ask().send().await.unwrap();
    write.send(Bytes::from_static(b"event: one\n")).unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "event: one\n");
    bed.door.send_replace(Door::Over);
    let cut = tokio::time::timeout(CUT_MAX, answer.chunk()).await.expect("in time");
    assert!(cut.is_err(), "{cut:?}");
    // The model API is left too.
    tokio::time::timeout(CUT_MAX, write.closed()).await.expect("in time");
}

/// S33: so is a request that the model API has not answered yet.
#[tokio::test]
async fn a_request_that_waits_ends_with_its_attempt() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", silent.local_addr().unwrap());
    let (_, reached) = mpsc::unbounded_channel();
    let bed = Bed::before(base_url, CredentialKind::ApiKey, reached).await;
    let asking = tokio::spawn(bed.ask().send());
    let (asked, _) = silent.accept().await.unwrap();
    asked.readable().await.unwrap();
    bed.door.send_replace(Door::Over);
    let answer = tokio::time::timeout(CUT_MAX, asking).await.expect("in time").unwrap().unwrap();
    assert_eq!(answer.status(), 403);
    assert!(message(answer).await.contains("over"));
}
