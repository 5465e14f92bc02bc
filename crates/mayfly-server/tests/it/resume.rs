//! A task that goes on where another ended: what is accepted, what its machine is told, and what that can fetch.

use http::StatusCode;
use mayfly_client::ClientError;
use mayfly_wire::api::{Collected, CreateTask, Problem, Ref, Repository, Resume, Retry, Task};
use mayfly_wire::event::{Event, MayflyEvent};
use mayfly_wire::worker::OrderedResume;
use serde_json::json;

use crate::bed::{Bed, CANARY, Worker, bundle, raw, task};

/// The SHA-256 of `session`.
const SESSION: &str = "3f3af1ecebbd1410ab417ec0d27bbfcb5d340e177ae159b59fc8626c2dfd9175";

fn next(prompt: &str) -> Resume {
    let credential = json!({"kind": "api-key", "secret": CANARY});
    Resume {
        prompt: prompt.to_owned(),
        credential: Some(serde_json::from_value(credential).unwrap()),
        credential_name: None,
    }
}

async fn put(worker: &Worker, name: &str, bytes: Vec<u8>) -> StatusCode {
    let put = raw(&worker.door).put(format!("http://mayfly/v1/worker/result/{name}"));
    put.bearer_auth(worker.order.result_token.expose()).body(bytes).send().await.unwrap().status()
}

async fn fetch(worker: &Worker, name: &str, token: &str) -> (StatusCode, Vec<u8>) {
    let get = raw(&worker.door).get(format!("http://mayfly/v1/worker/resumed/{name}"));
    let answer = get.bearer_auth(token).send().await.unwrap();
    (answer.status(), answer.bytes().await.unwrap().to_vec())
}

async fn over(bed: &Bed, task: &Task) {
    let mut events = bed.client.events(&task.id, 0);
    while events.next().await.unwrap().is_some() {}
}

/// Ends a task with this work, of which the session file is `session`.
async fn end(bed: &mut Bed, task: &Task, session: &str, collected: Collected) -> Worker {
    let mut worker = bed.worker().await;
    worker.ready().await;
    assert_eq!(put(&worker, "transcript", session.into()).await, 204);
    worker.finish(Collected { transcript: true, ..collected }).await;
    over(bed, task).await;
    worker
}

fn refusal(refused: Result<Task, ClientError>) -> Problem {
    match refused {
        Err(ClientError::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

/// R39: all that the earlier task asked for but its prompt, once for each key, and also when that one is tried again.
#[tokio::test]
async fn a_resumed_task_has_what_the_earlier_one_left() {
    let mut bed = Bed::start().await;
    let asked =
        CreateTask { max_turns: Some(7), allow: vec!["example.org:443".to_owned()], ..task("first", None) };
    let first = bed.client.submit(&asked, "one").await.unwrap();
    let (work, head) = (bundle("a.txt", "work", "m", "o"), "a".repeat(40));
    let repository = Repository {
        commit: Some("b".repeat(40)),
        branch: Some("feature".to_owned()),
        refs: vec![Ref { name: "heads/main".to_owned(), commit: "c".repeat(40) }],
        stash: vec!["d".repeat(40)],
        index: Some("e".repeat(40)),
    };
    let mut worker = bed.worker().await;
    worker.ready().await;
    let not_over = refusal(bed.client.resume(&first.id, &next("second"), "two").await);
    assert_eq!((not_over.status, not_over.kind.as_str()), (409, "not-over"));
    assert_eq!(put(&worker, "bundle", work.clone()).await, 204);
    assert_eq!(put(&worker, "transcript", "session".into()).await, 204);
    assert_eq!(
        fetch(&worker, "transcript", worker.order.result_token.expose()).await.0,
        401,
        "it resumes none"
    );
    let session_id = worker.order.session_id.clone();
    let (head, repository) = (Some(head), Some(repository));
    let collected = Collected {
        head: head.clone(),
        bundle: true,
        transcript: true,
        repository: repository.clone(),
        ..Collected::default()
    };
    worker.finish(collected).await;
    over(&bed, &first).await;

    let second = bed.client.resume(&first.id, &next("second"), "two").await.unwrap();
    assert_eq!(second.resumes.as_deref(), Some(first.id.as_str()));
    assert_eq!(bed.client.resume(&first.id, &next("second"), "two").await.unwrap().id, second.id);
    let other = refusal(bed.client.resume(&first.id, &next("other"), "two").await);
    assert_eq!(other.kind, "key-conflict");
    let mut worker = bed.worker().await;
    let order = &worker.order;
    let resume = OrderedResume {
        session_id: session_id.clone(),
        transcript: Some(SESSION.to_owned()),
        head,
        repository,
    };
    assert_eq!(order.resume, Some(resume));
    assert_eq!((order.prompt.as_str(), order.max_turns), ("second", Some(7)));
    assert_ne!(order.session_id, session_id);
    assert_eq!(bed.client.allowed(&second.id).await.unwrap().hosts, ["example.org:443"]);
    let token = order.result_token.expose().to_owned();
    assert_eq!(fetch(&worker, "bundle", &token).await, (StatusCode::OK, work.clone()));
    assert_eq!(fetch(&worker, "transcript", &token).await, (StatusCode::OK, b"session".to_vec()));
    for (name, token) in
        [("bundle", "x"), ("bundle.withheld", token.as_str()), ("..%2F1%2Fbundle", &token), ("", &token)]
    {
        assert!(fetch(&worker, name, token).await.0.is_client_error(), "{name}");
    }
    let log = bed.client.events_so_far(&second.id, 0).next().await.unwrap().unwrap();
    assert!(matches!(Event::parse(&log).unwrap().event, Some(MayflyEvent::Queued)));
    worker.ready().await;
    worker.end("api-error").await;
    over(&bed, &second).await;

    // The same once more is the same continuation.
    let credential = next("").credential;
    let again =
        bed.client.retry(&second.id, &Retry { credential, ..Retry::default() }, "three").await.unwrap();
    assert_eq!(again.resumes.as_deref(), Some(first.id.as_str()));
    let worker = bed.worker().await;
    assert_eq!(worker.order.resume.as_ref().unwrap().session_id, session_id);
    assert_eq!(fetch(&worker, "bundle", worker.order.result_token.expose()).await, (StatusCode::OK, work));
}

/// Work alone is gone on with too, in a conversation that begins anew, which is told.
#[tokio::test]
async fn a_task_that_left_no_session_file_is_gone_on_with_without_one() {
    let mut bed = Bed::start().await;
    let first = bed.client.submit(&task("first", None), "one").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    assert_eq!(put(&worker, "bundle", bundle("a.txt", "work", "m", "o")).await, 204);
    let head = Some("a".repeat(40));
    worker.finish(Collected { head: head.clone(), bundle: true, ..Collected::default() }).await;
    over(&bed, &first).await;

    let second = bed.client.resume(&first.id, &next("second"), "two").await.unwrap();
    assert_eq!(second.resumes.as_deref(), Some(first.id.as_str()));
    let worker = bed.worker().await;
    let resume = worker.order.resume.clone().unwrap();
    assert_eq!((resume.transcript, resume.head), (None, head));
    assert_eq!(fetch(&worker, "bundle", worker.order.result_token.expose()).await.0, 200);
    let mut log = bed.client.events_so_far(&second.id, 0);
    let mut warnings = Vec::new();
    while let Some(line) = log.next().await.unwrap() {
        if let Some(MayflyEvent::Warning { text }) = Event::parse(&line).unwrap().event {
            warnings.push(text);
        }
    }
    assert!(matches!(&warnings[..], [text] if text.contains("the conversation begins anew")), "{warnings:?}");
}

/// What is missing is named, and what to do instead.
#[tokio::test]
async fn a_task_that_left_nothing_to_go_on_with_is_not_resumed() {
    let mut bed = Bed::start().await;
    let resumed =
        async |bed: &Bed, task: &Task| refusal(bed.client.resume(&task.id, &next("go on"), &task.id).await);

    let cancelled = bed.client.submit(&task("cancelled", None), "cancelled").await.unwrap();
    let _machine = bed.worker().await;
    bed.client.cancel(&cancelled.id, true).await.unwrap();
    over(&bed, &cancelled).await;
    let refused = resumed(&bed, &cancelled).await;
    assert_eq!((refused.status, refused.kind.as_str()), (409, "not-resumable"));
    let words = format!(
        "task {0} cannot be resumed: nothing came out of a machine of it; `mayfly retry {0}` begins it anew",
        cancelled.short
    );
    assert_eq!(refused.detail, words);

    let silent = bed.client.submit(&task("silent", None), "silent").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    worker.finish(Collected::default()).await;
    over(&bed, &silent).await;
    let refused = resumed(&bed, &silent).await;
    assert!(
        refused.detail.contains("neither work nor a session file of `claude` came out of its machine"),
        "{}",
        refused.detail
    );

    let withheld = bed.client.submit(&task("withheld", None), "withheld").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    assert_eq!(put(&worker, "bundle", bundle("a.txt", CANARY, "m", "o")).await, 422);
    assert_eq!(put(&worker, "transcript", "session".into()).await, 204);
    let head = Some("a".repeat(40));
    worker.finish(Collected { head: head.clone(), transcript: true, ..Collected::default() }).await;
    over(&bed, &withheld).await;
    let refused = resumed(&bed, &withheld).await;
    assert!(refused.detail.contains("its work is withheld"), "{}", refused.detail);

    let lost = bed.client.submit(&task("lost", None), "lost").await.unwrap();
    end(&mut bed, &lost, "session", Collected { head, ..Collected::default() }).await;
    let refused = resumed(&bed, &lost).await;
    assert!(refused.detail.contains("its work did not come out of its machine"), "{}", refused.detail);

    let whole = bed.client.submit(&task("whole", None), "whole").await.unwrap();
    end(&mut bed, &whole, "session", Collected::default()).await;
    let empty = refusal(bed.client.resume(&whole.id, &next(" "), "empty").await);
    assert_eq!((empty.status, empty.kind.as_str()), (422, "invalid-task"));
    let none = refusal(bed.client.resume("deadbeef", &next("go on"), "none").await);
    assert_eq!((none.status, none.kind.as_str()), (404, "no-such-task"));
    bed.client.resume(&whole.id, &next("go on"), "whole-again").await.unwrap();
}
