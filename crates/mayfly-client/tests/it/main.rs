//! The client against an orchestrator that does as the test says, on a real unix socket.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use mayfly_client::{Bundle, Client, ClientError, RECONNECTS_MAX};
use mayfly_wire::api::{CreateTask, Problem};
use tempfile::TempDir;
use tokio::net::UnixListener;

const TASK: &str = "0193b2c4-0000-7000-8000-0123456789ab";

/// What the client asked: method, path with query, body.
type Asked = (Method, String, Bytes);

struct Orchestrator {
    client: Client,
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    dir: TempDir,
}

impl Orchestrator {
    /// Gives these answers, one after another.
    fn answering(answers: impl IntoIterator<Item = Response>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        let (answers, log) = (Arc::new(Mutex::new(answers)), asked.clone());
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            log.lock().unwrap().push((parts.method, parts.uri.to_string(), body));
            answers.lock().unwrap().pop().expect("an answer for each request")
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { client: Client::new(&socket), socket, asked, dir }
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, path, _)| path.clone()).collect()
    }
}

fn event(seq: u64) -> String {
    format!(
        r#"{{"task":"t","attempt":1,"seq":{seq},"at":"2026-01-01T00:00:00Z","source":"claude","line":{{}}}}"#
    )
}

/// A log that ends as it should after `text`.
fn whole(text: impl Into<String>) -> Response {
    text.into().into_response()
}

/// An answer whose connection breaks after `text` has been sent.
fn broken(text: impl Into<String>) -> Response {
    let text = stream::iter([Ok(text.into())]);
    let end = stream::once(async {
        tokio::task::yield_now().await;
        Err(io::Error::other("the power went"))
    });
    Body::from_stream(text.chain(end)).into_response()
}

fn problem(status: u16, kind: &str) -> Response {
    let problem =
        Problem { kind: kind.to_owned(), status, detail: format!("a detail of {kind}"), first: None };
    (StatusCode::from_u16(status).unwrap(), serde_json::to_string(&problem).unwrap()).into_response()
}

/// R12: whatever breaks, and wherever, each event is told once and in order.
#[tokio::test]
async fn a_broken_stream_goes_on_after_the_last_event() {
    let [one, two, three, four] = [1, 2, 3, 4].map(event);
    let orchestrator = Orchestrator::answering([
        broken(format!("{one}\n{}", &two[..20])),
        broken(""),
        problem(500, "internal"),
        whole(format!("{two}\n{}", &three[..1])),
        whole(format!("{three}\n{four}\n")),
    ]);
    let mut events = orchestrator.client.events(TASK, 0);
    for expected in [one, two, three, four] {
        assert_eq!(events.next().await.unwrap(), Some(expected));
    }
    assert_eq!(events.next().await.unwrap(), None);
    let asked = [0, 1, 1, 1, 2].map(|after| format!("/v1/tasks/{TASK}/events?after={after}&follow=true"));
    assert_eq!(orchestrator.paths(), asked);
}

/// One that does not follow ends where the log ends by now, also after a break.
#[tokio::test]
async fn a_log_is_read_as_far_as_it_goes_by_now() {
    let [three, four] = [3, 4].map(event);
    let orchestrator =
        Orchestrator::answering([broken(format!("{three}\n")), whole(format!("{four}\n")), whole("x")]);
    let mut events = orchestrator.client.events_so_far(TASK, 2);
    for expected in [Some(three), Some(four), None] {
        assert_eq!(events.next().await.unwrap(), expected);
    }
    orchestrator.client.workspace(TASK, &orchestrator.dir.path().join("base")).await.unwrap();
    let mut asked: Vec<_> =
        [2, 3].map(|after| format!("/v1/tasks/{TASK}/events?after={after}&follow=false")).into();
    asked.push(format!("/v1/tasks/{TASK}/workspace"));
    assert_eq!(orchestrator.paths(), asked);
}

#[tokio::test]
async fn a_line_may_come_in_pieces_and_many_in_one() {
    let [one, two, three] = [7, 8, 9].map(event);
    let text = format!("{one}\n{two}\n{three}\n");
    let bytes = text.into_bytes().into_iter().map(|byte| Ok::<_, io::Error>(vec![byte]));
    let answer = Body::from_stream(stream::iter(bytes)).into_response();
    let orchestrator = Orchestrator::answering([answer]);
    let mut events = orchestrator.client.events(TASK, 6);
    for expected in [Some(one), Some(two), Some(three), None] {
        assert_eq!(events.next().await.unwrap(), expected);
    }
}

/// R14, G8
#[tokio::test]
async fn a_log_whose_beginning_is_gone_says_where_it_begins() {
    let detail = "not kept any more".to_owned();
    let gone = Problem { kind: "gone".to_owned(), status: 410, detail, first: Some(5) };
    let answer = (StatusCode::GONE, serde_json::to_string(&gone).unwrap()).into_response();
    let orchestrator = Orchestrator::answering([answer, problem(410, "gone")]);
    let mut events = orchestrator.client.events(TASK, 2);
    let error = events.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Gone { first: 5 }), "{error:?}");
    assert!(error.to_string().contains("begins after 4"), "{error}");
    let result =
        orchestrator.client.bundle(TASK, None, &orchestrator.dir.path().join("x")).await.unwrap_err();
    assert!(matches!(result, ClientError::Refused(_)), "{result:?}");
}

#[tokio::test]
async fn an_event_that_is_missing_or_repeated_is_an_error() {
    for seq in [1, 3] {
        let text = format!("{}\n{}\n", event(1), event(seq));
        let orchestrator = Orchestrator::answering([whole(text)]);
        let mut events = orchestrator.client.events(TASK, 0);
        events.next().await.unwrap();
        let error = events.next().await.unwrap_err();
        assert!(matches!(error, ClientError::Gap { after: 1, seq: said } if said == seq), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_event_is_an_error() {
    let invalid = Response::new(Body::from(&b"{\"seq\":1,\"text\":\"\xff\"}\n"[..]));
    for answer in [whole("<html>\n"), invalid] {
        let orchestrator = Orchestrator::answering([answer]);
        let error = orchestrator.client.events(TASK, 0).next().await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol(_)), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_is_not_asked_again() {
    let orchestrator = Orchestrator::answering([problem(404, "no-such-task")]);
    let error = orchestrator.client.events(TASK, 0).next().await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.kind == "no-such-task"), "{error}");
    assert_eq!(error.to_string(), "a detail of no-such-task");
}

/// R01: asked again, as by one who has started the next orchestrator, it tries as long as before.
#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_stays_away_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let mut events = Client::new(&socket).events(TASK, 0);
    for _ in 0..2 {
        let before = tokio::time::Instant::now();
        let error = events.next().await.unwrap_err();
        assert!(matches!(&error, ClientError::Unreachable { socket: named, .. } if *named == socket));
        assert!(error.to_string().contains("api.sock"));
        let waited = before.elapsed();
        assert!((2..10).contains(&waited.as_secs()), "{RECONNECTS_MAX} waits: {waited:?}");
    }
}

/// An interrupt in the middle of a download leaves no part that looks like the whole.
#[tokio::test]
async fn a_result_that_is_given_up_half_way_leaves_nothing() {
    let (begun, wait) = tokio::sync::oneshot::channel();
    let mut begun = Some(begun);
    // More than fits into any buffer on the way: most of it was read when the rest is asked for.
    let half = stream::iter((0..256).map(|_| Ok::<_, io::Error>(vec![b'x'; 64 * 1024])));
    let rest = stream::poll_fn(move |_| {
        begun.take().map(|begun| begun.send(()));
        std::task::Poll::Pending
    });
    let orchestrator = Orchestrator::answering([Body::from_stream(half.chain(rest)).into_response()]);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    tokio::select! {
        saved = orchestrator.client.bundle(TASK, None, &to) => panic!("{saved:?}"),
        begun = wait => begun.unwrap(),
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn nobody_there_is_told_at_once_to_every_other_call() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::new(&dir.path().join("api.sock")).healthy().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_bundle_is_streamed_up_and_named() {
    let answer = || r#"{"id":"ab","name":"a b","base":"cd"}"#.into_response();
    let arrived = |bytes: usize| format!("{{\"bytes\":{bytes}}}").into_response();
    let orchestrator = Orchestrator::answering([arrived(0), answer(), arrived(200_000), answer()]);
    let file = orchestrator.dir.path().join("bundle");
    let bytes = vec![b'x'; 300_000];
    std::fs::write(&file, &bytes).unwrap();
    let bundle = Bundle::read(&file, None).await.unwrap();
    let workspace = orchestrator.client.upload_workspace("a b&c", &bundle).await.unwrap();
    assert_eq!((workspace.id.as_str(), workspace.base.as_str()), ("ab", "cd"));
    let bundle = Bundle::read(&file, Some("ef")).await.unwrap();
    orchestrator.client.upload_workspace("r", &bundle).await.unwrap();
    assert_eq!(bundle.sent.load(std::sync::atomic::Ordering::Relaxed), 300_000);
    let asked = orchestrator.asked.lock().unwrap();
    let at = asked[0].1.clone();
    assert_eq!(asked[1], (Method::PUT, format!("{at}?name=a+b%26c&from=0"), bytes.clone().into()));
    // What is there already is not sent again.
    assert_eq!(
        asked[3],
        (Method::PUT, format!("{at}?name=r&from=200000&on=ef"), bytes[..100_000].to_vec().into())
    );
}

#[tokio::test]
async fn a_bundle_that_is_not_there_is_named() {
    let orchestrator = Orchestrator::answering([]);
    let error = Bundle::read(&orchestrator.dir.path().join("nothing"), None).await.unwrap_err();
    assert!(matches!(&error, ClientError::File { .. }) && error.to_string().contains("nothing"), "{error}");
}

#[tokio::test]
async fn a_result_is_whole_or_not_there() {
    let orchestrator =
        Orchestrator::answering([whole("the work"), broken("half of it"), problem(404, "none")]);
    let to = orchestrator.dir.path().join("to");
    orchestrator.client.bundle(TASK, None, &to).await.unwrap();
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "the work");
    let to = to.with_extension("session");
    let error = orchestrator.client.transcript(TASK, None, &to).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(!to.exists());
    let error = orchestrator.client.bundle(TASK, None, &to).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(_)), "{error}");
    assert!(!to.exists());
}

#[tokio::test]
async fn a_task_is_submitted_with_its_key_and_answers_are_checked() {
    let orchestrator = Orchestrator::answering([whole("{}"), (StatusCode::BAD_GATEWAY, "?").into_response()]);
    let task: CreateTask = serde_json::from_str(r#"{"prompt":"p"}"#).unwrap();
    let error = orchestrator.client.submit(&task, "key").await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol(_)), "{error}");
    let error = orchestrator.client.cancel(TASK, true).await.unwrap_err();
    assert!(matches!(error, ClientError::Status { status: 502 }), "{error}");
    let asked = orchestrator.asked.lock().unwrap();
    assert_eq!(asked[0].2, r#"{"prompt":"p"}"#);
    assert_eq!(asked[1], (Method::POST, format!("/v1/tasks/{TASK}/cancel"), r#"{"force":true}"#.into()));
}

/// S40: an id is one segment of the path, whatever is in it.
#[tokio::test]
async fn an_id_cannot_lead_elsewhere() {
    let orchestrator = Orchestrator::answering([problem(404, "no-such-task")]);
    orchestrator.client.task("../workspaces?name=x#").await.unwrap_err();
    assert_eq!(orchestrator.paths(), ["/v1/tasks/..%2Fworkspaces%3Fname=x%23"]);
    assert!(orchestrator.socket.exists());
}

/// A process that is stopped still has its socket, and the system takes what comes there.
#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_says_nothing_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let client = Client::new(&socket);
    let task = CreateTask::default();
    let calls = [
        client.healthy().await.unwrap_err(),
        client.tasks(None, None).await.unwrap_err(),
        client.task(TASK).await.unwrap_err(),
        client.submit(&task, "key").await.unwrap_err(),
        client.cancel(TASK, true).await.unwrap_err(),
    ];
    for error in calls {
        let words = error.to_string();
        assert!(matches!(error, ClientError::Silent { waited: 30, .. }), "{error:?}");
        assert!(words.contains(socket.to_str().unwrap()) && words.contains("serve.log"), "{words}");
    }
}
