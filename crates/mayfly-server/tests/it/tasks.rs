//! A task's life over both doors.

use std::path::Path;

use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use mayfly_client::{Bundle, ClientError};
use mayfly_server::{DataError, Server, ServerConfig, StartError};
use mayfly_wire::api::Collected;
use mayfly_wire::event::{Event, EventSource, MayflyEvent};
use mayfly_wire::worker::{End, Source};
use tokio::sync::mpsc;

use crate::bed::{Bed, CANARY, Worker, bundle, door, raw, task};

const BASE: &str = "0123456789abcdef0123456789abcdef01234567";

async fn put(door: &Path, token: &str, name: &str, bytes: impl Into<reqwest::Body>) -> StatusCode {
    let request = raw(door).put(format!("http://mayfly/v1/worker/result/{name}")).body(bytes);
    request.bearer_auth(token).send().await.unwrap().status()
}

/// G3, S35: what `claude` wrote comes out of the owner's door byte for byte, from the task's start to its end.
#[tokio::test]
async fn what_a_machine_says_is_what_its_owner_reads() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("fix it", None), "key").await.unwrap();
    let mut events = bed.client.events(&submitted.id, 0);
    let mut worker = bed.worker().await;
    assert_eq!(worker.order.prompt, "fix it");
    worker.ready().await;
    worker.line(r#"{"type":"system",  "n":1e400}"#).await;
    worker.say(Source::Claude, End::Newline, &b"not \xff JSON"[..]).await;
    worker.say(Source::Claude, End::Newline, &b"\"\xfe\""[..]).await;
    worker.say(Source::Claude, End::Eof, "half a li").await;
    let (door, token) = (worker.door.clone(), worker.order.result_token.expose().to_owned());
    let work = bundle("a.txt", "work", "m", "o");
    assert_eq!(put(&door, &token, "bundle", bundle("a.txt", "first", "m", "o")).await, 204);
    assert_eq!(put(&door, &token, "bundle", work.clone()).await, 204);
    assert_eq!(put(&door, &token, "transcript", "session").await, 204);
    worker.finish(Collected { bundle: true, transcript: true, ..Collected::default() }).await;

    let (mut said, mut last) = (Vec::new(), None);
    while let Some(line) = events.next().await.unwrap() {
        let event = Event::parse(&line).unwrap();
        if event.source == EventSource::Claude {
            said.extend(event.raw());
        }
        last = event.event;
    }
    assert_eq!(said, b"{\"type\":\"system\",  \"n\":1e400}\nnot \xff JSON\n\"\xfe\"\nhalf a li");
    assert!(matches!(last, Some(MayflyEvent::Finished { .. })), "{last:?}");
    let ended = bed.client.task(&submitted.id).await.unwrap();
    assert_eq!((ended.state.as_str(), ended.outcome.unwrap().name.as_str()), ("finished", "succeeded"));
    assert_eq!(bed.machines_alive(), 0);

    let to = bed.data().join("to");
    bed.client.bundle(&submitted.id, None, &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == work);
    bed.client.transcript(&submitted.id, None, &to).await.unwrap();
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "session");
    assert!(!door.parent().unwrap().exists(), "the door went with its machine");
}

/// The `init` gate: the request leaves at once, with the owner's credential; its answer waits for `claude`.
#[tokio::test]
async fn the_models_answer_waits_until_claude_is_checked() {
    let (reach, mut reached) = mpsc::unbounded_channel();
    let api = axum::Router::new().fallback(answer).with_state(reach);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, api).await });

    let mut bed = Bed::start().await;
    bed.client.submit(&task("p", Some(base_url)), "key").await.unwrap();
    let mut worker = bed.worker().await;
    let ask = raw(&worker.door).post("http://mayfly/v1/messages?beta=true").body("{}");
    let ask = tokio::spawn(ask.bearer_auth(worker.order.model_token.expose()).send());
    assert_eq!(reached.recv().await.unwrap(), CANARY);
    assert!(!ask.is_finished());
    worker.ready().await;
    let answer = ask.await.unwrap().unwrap();
    assert_eq!((answer.status(), answer.text().await.unwrap().as_str()), (StatusCode::OK, "answered"));
}

async fn answer(State(reach): State<mpsc::UnboundedSender<String>>, request: Request) -> impl IntoResponse {
    reach.send(request.headers()["x-api-key"].to_str().unwrap().to_owned()).unwrap();
    "answered"
}

/// G8, R03: an orchestrator that goes and comes back costs a follower and a worker nothing.
#[tokio::test]
async fn a_follower_and_a_worker_outlive_the_orchestrator() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let spec = bed.machines.recv().await.unwrap();
    let hello = crate::bed::hello(&spec);
    let mut worker = crate::bed::Worker::join(&door(&spec), &hello).await.unwrap();
    worker.ready().await;
    worker.line("\"before\"").await;
    let mut events = bed.client.events(&submitted.id, 0);
    let follower = tokio::spawn(async move {
        let mut said = Vec::new();
        while let Some(line) = events.next().await.unwrap() {
            let event = Event::parse(&line).unwrap();
            if event.source == EventSource::Claude {
                said.extend(event.raw());
            }
        }
        said
    });
    let _bed = bed.restart().await;
    assert!(worker.heard().await.is_none(), "the old link is over");
    let mut worker = crate::bed::Worker::join(&door(&spec), &hello).await.unwrap();
    worker.line("\"after\"").await;
    worker.finish(Collected::default()).await;
    assert_eq!(follower.await.unwrap(), b"\"before\"\n\"after\"\n");
}

/// R11: two sockets of one worker. The older is closed, whatever its end still believes, and the newer goes on
/// from what is stored.
#[tokio::test]
async fn of_two_sockets_of_one_worker_the_newer_is_heard() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let spec = bed.machines.recv().await.unwrap();
    let hello = crate::bed::hello(&spec);
    let mut old = Worker::join(&door(&spec), &hello).await.unwrap();
    old.ready().await;
    old.line("\"old\"").await;
    let mut new = Worker::join(&door(&spec), &hello).await.unwrap();
    assert!(old.heard().await.is_none(), "it is closed, without a word that would end its machine");
    new.line("\"new\"").await;
    new.finish(Collected::default()).await;
    let (mut events, mut said) = (bed.client.events(&submitted.id, 0), Vec::new());
    while let Some(line) = events.next().await.unwrap() {
        let event = Event::parse(&line).unwrap();
        if event.source == EventSource::Claude {
            said.extend(event.raw());
        }
    }
    assert_eq!(said, b"\"old\"\n\"new\"\n");
}

/// R39 in small: one key, one task; another body under it is refused.
#[tokio::test]
async fn a_key_names_one_task() {
    let bed = Bed::start().await;
    let first = bed.client.submit(&task("p", None), "key").await.unwrap();
    let second = bed.client.submit(&task("p", None), "key").await.unwrap();
    assert_eq!(first.id, second.id);
    let error = bed.client.submit(&task("q", None), "key").await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.status == 409), "{error}");
    assert_eq!(bed.client.tasks(None, None).await.unwrap().len(), 1);
}

/// S43: each is refused, and the field is named.
#[tokio::test]
async fn a_task_that_cannot_be_is_refused() {
    let bed = Bed::start().await;
    for prompt in ["", "a\0b"] {
        let error = bed.client.submit(&task(prompt, None), "key").await.unwrap_err();
        let ClientError::Refused(problem) = error else { panic!("{error}") };
        assert_eq!((problem.status, problem.kind.as_str()), (422, "invalid-task"));
        assert!(problem.detail.contains("prompt"), "{}", problem.detail);
    }
    let long = "x".repeat(40 << 20);
    let error = bed.client.submit(&task(&long, None), "key").await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(_) | ClientError::Unreachable { .. }), "{error}");
    assert!(bed.client.tasks(None, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_workspace_is_named_by_its_hash_and_its_commit() {
    let bed = Bed::start().await;
    let bundle = bed.data().join("to-upload");
    std::fs::write(&bundle, format!("# v2 git bundle\n{BASE} HEAD\n\nPACK")).unwrap();
    let workspace =
        bed.client.upload_workspace("repo", &Bundle::read(&bundle, None).await.unwrap()).await.unwrap();
    assert_eq!((workspace.name.as_str(), workspace.base.as_str()), ("repo", BASE));
    let stored = bed.data().join(format!("workspaces/{}.bundle", workspace.id));
    assert_eq!(std::fs::read(stored).unwrap(), std::fs::read(&bundle).unwrap());

    std::fs::write(&bundle, "no bundle").unwrap();
    let error =
        bed.client.upload_workspace("repo", &Bundle::read(&bundle, None).await.unwrap()).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused(problem) if problem.kind == "invalid-workspace"),
        "{error}"
    );
    for folder in ["workspaces", "incoming"] {
        let files = std::fs::read_dir(bed.data().join(folder)).unwrap().count();
        assert_eq!(files, usize::from(folder == "workspaces"), "{folder}");
    }
}

/// R21: one orchestrator a folder; the second is told who the first is.
#[tokio::test]
async fn a_second_orchestrator_does_not_start() {
    let bed = Bed::start().await;
    let provider = std::sync::Arc::new(crate::start::Idle::Unable);
    let clock = std::sync::Arc::new(mayfly_engine::SystemClock);
    let second = Server::start(ServerConfig::in_dir(bed.data()), provider, clock).await.unwrap_err();
    assert!(matches!(second, StartError::Data(DataError::Locked { .. })), "{second}");
    bed.client.healthy().await.unwrap();
}
