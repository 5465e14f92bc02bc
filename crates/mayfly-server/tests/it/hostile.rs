//! Callers that mean harm: prompts without end, connections that say nothing, tokens of machines that are gone.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use mayfly_client::ClientError;
use mayfly_wire::api::{Collected, Problem};
use mayfly_wire::worker::Down;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::bed::{Bed, Worker, door, hello, raw, task};
use crate::readers::resident_bytes;
use crate::{files, port};

/// Connections that say nothing, if this process may have so many files: both their ends are in it.
const CROWD: usize = 10_000;
/// Fewer that are served would say nothing of a crowd.
const PLACES_MIN: usize = 1000;
/// What the server itself may open meanwhile, such as files of its database.
const OWN_FILES_MAX: usize = 16;
/// Those of them that find no place, and wait in the system's queue.
const WAITING: usize = 1000;
/// File descriptors that an orchestrator keeps for others than those who come by its port.
const KEPT: usize = 2000;
/// What one of them may take of memory, in a build without optimisation and with this side of it.
const BYTES_MAX: usize = 32 * 1024;
/// The longest that a request's head may take.
const HEAD_MAX: Duration = Duration::from_secs(20);

/// S43: it is refused in words before it is read to its end.
#[tokio::test]
async fn a_prompt_of_a_hundred_megabytes_is_refused_in_words() {
    let bed = Bed::start().await;
    let long = task(&"x".repeat(100 << 20), None);
    let error = bed.client.submit(&long, "key").await.unwrap_err();
    let ClientError::Refused(problem) = error else { panic!("{error}") };
    assert_eq!((problem.status, problem.kind.as_str()), (413, "too-large"));
    assert!(problem.detail.contains("prompt"), "{}", problem.detail);
    assert!(bed.client.tasks(None, None).await.unwrap().is_empty());
}

/// S43: neither a folder's name nor an option, however long it is.
#[tokio::test]
async fn a_name_that_is_none_is_refused_with_its_field() {
    let bed = Bed::start().await;
    let long = "a".repeat(1_000_000);
    let owner = raw(&bed.server.socket());
    for name in ["-rf", "../x", ".git", "a b", "a\u{1b}[2J", "é", "", &long] {
        let mut body = serde_json::to_value(task("p", None)).unwrap();
        body["workspace"] = serde_json::json!({"id": "0".repeat(64), "name": name, "base": "0".repeat(40)});
        let answer = owner.post("http://mayfly/v1/tasks").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 422);
        let problem: Problem = answer.json().await.unwrap();
        assert!(
            problem.detail.contains("workspace.name") && problem.detail.len() < 1000,
            "{}",
            problem.detail
        );
    }
    assert!(bed.client.tasks(None, None).await.unwrap().is_empty());
}

/// S38: whoever takes all places and says nothing loses them, and those who wait are served; ten thousand take no more
/// files than there are places, and little memory.
#[tokio::test]
async fn a_crowd_that_says_nothing_does_not_keep_the_port() {
    let places = (CROWD - WAITING).min(files::most().saturating_sub(WAITING + KEPT / 2) / 2);
    if places < PLACES_MIN {
        return mayfly_test_needs::skip("a process may not have 4000 files open");
    }
    let data = tempfile::tempdir().unwrap();
    files::allow(KEPT + places);
    let server = port::start(&data, port::ANY).await.unwrap();
    files::allow(files::most());
    let address = server.listening().unwrap();
    let (memory, open) = (resident_bytes(), files::open());
    let mut crowd = Vec::new();
    for at in 0..places + WAITING {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if at % 2 == 0 {
            stream.write_all(b"GET /v1/tasks HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow").await.unwrap();
        }
        crowd.push(stream);
    }
    let mut honest = TcpStream::connect(address).await.unwrap();
    honest.write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await.unwrap();
    let taken = files::open() - open - crowd.len() - 1;
    assert!((1..=places + OWN_FILES_MAX).contains(&taken), "{taken} of {} connections", crowd.len());
    let each = resident_bytes().saturating_sub(memory) / crowd.len();
    assert!(each <= BYTES_MAX, "{each} bytes each");
    // From here on it is as if time passed: nobody else has anything to do.
    tokio::time::pause();
    let begun = Instant::now();
    let mut answer = String::new();
    honest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() < 2 * HEAD_MAX, "{:?}", begun.elapsed());
    for mut silent in crowd {
        // What was cut off while it had not read an answer may be told as a reset.
        let _ = silent.read_to_end(&mut Vec::new()).await;
    }
    assert!(begun.elapsed() < 3 * HEAD_MAX, "{:?}", begun.elapsed());
}

/// What a token of a machine opens at a door: results, and the model.
async fn opened(door: &Path, worker: &Worker) -> (u16, u16) {
    let (result, model) = (&worker.order.result_token, &worker.order.model_token);
    let result = raw(door).put("http://mayfly/v1/worker/result/transcript").bearer_auth(result.expose());
    let model = raw(door).post("http://mayfly/v1/messages").bearer_auth(model.expose()).body("{}");
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    (status(result.body("x")).await, status(model).await)
}

/// S27, S40: what a machine was given is worth nothing once its attempt is over, at no door.
#[tokio::test]
async fn tokens_of_an_attempt_that_is_over_open_nothing() {
    let mut bed = Bed::start().await;
    let submit = async |bed: &Bed, key| bed.client.submit(&task("p", None), key).await.unwrap();
    let over = submit(&bed, "one").await;
    let spec = bed.machines.recv().await.unwrap();
    let mut worker = Worker::join(&door(&spec), &hello(&spec)).await.unwrap();
    assert_eq!(opened(&worker.door, &worker).await.0, StatusCode::NO_CONTENT);
    worker.finish(Collected::default()).await;
    let mut events = bed.client.events(&over.id, 0);
    while events.next().await.unwrap().is_some() {}
    assert!(!door(&spec).exists(), "its own door is gone");

    submit(&bed, "two").await;
    let other = bed.worker().await;
    assert_eq!(opened(&other.door, &worker).await, (401, 401));
    let joined = Worker::join(&other.door, &hello(&spec)).await;
    assert!(matches!(joined, Err(Down::Reject { .. })), "{:?}", joined.err());
    // At the owner's port they are no tokens either.
    let data = tempfile::tempdir().unwrap();
    let server = port::start(&data, port::ANY).await.unwrap();
    let hello = hello(&spec);
    for token in [&worker.order.model_token, &worker.order.result_token, &hello.ticket] {
        for path in ["/v1/tasks", "/v1/tokens", "/v1/tunnel", "/metrics"] {
            assert_eq!(port::status(&server, path, Some(token.expose())).await, 401, "{path}");
        }
    }
}
