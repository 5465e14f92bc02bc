//! The pool by the API, and the model by a machine's door: what comes out is never a secret, and what goes out is never a
//! machine's.

use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::request::Parts;
use mayfly_client::ClientError;
use mayfly_wire::api::{AddCredential, CreateTask, Credential, CredentialKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::bed::{Bed, CANARY, Worker, raw, task};

/// S33: what a task had under way ends within this time after it.
const CUT_MAX: Duration = Duration::from_secs(1);

/// A model API, and the requests that reached it, whole.
async fn model_api(answer: fn() -> Response) -> (String, mpsc::UnboundedReceiver<(Parts, Bytes)>) {
    let (reach, reached) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let record = async move |State(reach): State<mpsc::UnboundedSender<_>>, request: Request| {
        let (parts, body) = request.into_parts();
        // A body that breaks off is no request.
        if let Ok(body) = to_bytes(body, usize::MAX).await {
            let _ = reach.send((parts, body));
        }
        answer()
    };
    let api = axum::Router::new().fallback(record).with_state(reach);
    tokio::spawn(async move { axum::serve(listener, api).await });
    (base_url, reached)
}

fn add(name: &str, base_url: Option<String>) -> AddCredential {
    let credential = Credential::new(CredentialKind::ApiKey, CANARY.to_owned().into(), base_url);
    AddCredential { name: name.to_owned(), credential, replace: false }
}

/// A worker whose `claude` may be answered.
async fn ready(bed: &mut Bed, base_url: String) -> (String, Worker) {
    let id = bed.client.submit(&task("p", Some(base_url)), "key").await.unwrap().id;
    let mut worker = bed.worker().await;
    worker.ready().await;
    (id, worker)
}

/// S14, S30: what is in the pool is told, and nothing of its secrets; what is wrong with one is told without it.
#[tokio::test]
async fn a_secret_goes_in_and_never_comes_out() {
    let bed = Bed::start().await;
    let (base_url, mut reached) = model_api(|| "{}".into_response()).await;
    let owner = raw(&bed.server.socket());
    let ask = async |method: &str, path: &str, body: String| {
        let request = owner.request(method.parse().unwrap(), format!("http://mayfly{path}"));
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(!text.contains("canary"), "{method} {path}: {text}");
        (status, text)
    };
    let body = |add: &AddCredential| serde_json::to_string(add).unwrap();
    let work = add("work", Some(base_url));
    assert_eq!(ask("POST", "/v1/credentials", body(&work)).await.0, 201);
    let again = ask("POST", "/v1/credentials", body(&work)).await;
    assert!(again.0 == 409 && again.1.contains("name-taken"), "{again:?}");
    let listed = ask("GET", "/v1/credentials", String::new()).await;
    assert!(
        listed.0 == 200 && listed.1.contains(r#""name":"work""#) && listed.1.contains("api-key"),
        "{listed:?}"
    );
    let tested = ask("POST", "/v1/credentials/work/test", String::new()).await;
    assert!(tested.0 == 200 && tested.1.contains(r#""accepted":true"#), "{tested:?}");
    assert_eq!(reached.recv().await.unwrap().0.headers["x-api-key"], CANARY);
    for bad in [
        r#"{"name":"x","credential":"canary"}"#,
        r#"{"name":"x","credential":{"kind":"canary","secret":"canary"}}"#,
        r#"{"name":"x","credential":{"kind":"api-key","secret":"canary canary"}}"#,
        r#"{"name":"x","credential":{"kind":"api-key","secret":"canary77","base_url":"canary"}}"#,
        r#"{"name":"-","credential":{"kind":"api-key","secret":"canary77"}}"#,
    ] {
        assert_eq!(ask("POST", "/v1/credentials", bad.to_owned()).await.0, 422, "{bad}");
    }
    for (method, path) in [("DELETE", "/v1/credentials/nobody"), ("POST", "/v1/credentials/nobody/test")] {
        assert_eq!(ask(method, path, String::new()).await.0, 404);
    }
    assert_eq!(ask("GET", "/v1/credentials/work", String::new()).await.0, 405, "there is no way to read one");
    assert_eq!(ask("DELETE", "/v1/credentials/work", String::new()).await.0, 204);
    let unreached = add("gone", Some("http://127.0.0.1:1".to_owned()));
    bed.client.add_credential(&unreached).await.unwrap();
    let error = bed.client.test_credential("gone").await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.kind == "no-model"), "{error}");
}

/// A task that brings none is told of at its submit, and uses the pool's at its requests.
#[tokio::test]
async fn a_task_that_brings_none_uses_the_pools() {
    let mut bed = Bed::start().await;
    let (base_url, mut reached) = model_api(|| "answered".into_response()).await;
    let without = CreateTask { credential: None, ..task("p", None) };
    let error = bed.client.submit(&without, "key").await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.kind == "no-credential"), "{error}");
    bed.client.add_credential(&add("work", Some(base_url))).await.unwrap();
    let submitted = bed.client.submit(&without, "key").await.unwrap();
    assert_eq!(submitted.credential_name.as_deref(), Some("work"));
    let mut worker = bed.worker().await;
    worker.ready().await;
    let ask = || {
        raw(&worker.door)
            .post("http://mayfly/v1/messages")
            .body("{}")
            .bearer_auth(worker.order.model_token.expose())
    };
    assert_eq!(ask().send().await.unwrap().text().await.unwrap(), "answered");
    assert_eq!(reached.recv().await.unwrap().0.headers["x-api-key"], CANARY);
    bed.client.remove_credential("work").await.unwrap();
    let answer = ask().send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let text = answer.text().await.unwrap();
    assert!(text.contains("`work` is not in the pool any more"), "{text}");
}

/// S33: whatever ends a task, the answer that its machine is being given breaks off within a second, and the next request
/// is refused.
#[tokio::test]
async fn a_tasks_token_dies_with_it_in_the_middle_of_an_answer() {
    let endless = || {
        let first = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"event: one\n")) });
        Body::from_stream(futures_util::StreamExt::chain(first, stream::pending())).into_response()
    };
    for force in [false, true] {
        let mut bed = Bed::start().await;
        let (base_url, _reached) = model_api(endless).await;
        let (id, worker) = ready(&mut bed, base_url).await;
        let ask = || {
            raw(&worker.door)
                .post("http://mayfly/v1/messages")
                .body("{}")
                .bearer_auth(worker.order.model_token.expose())
        };
        let mut answer = ask().send().await.unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "event: one\n");
        bed.client.cancel(&id, force).await.unwrap();
        let cut = timeout(CUT_MAX, answer.chunk()).await.expect("in time");
        assert!(cut.is_err(), "{cut:?}");
        let next = ask().send().await;
        assert!(next.is_err() || next.is_ok_and(|answer| answer.status() == 401), "force: {force}");
    }
}

/// Sends bytes to a door, and reads until it hangs up.
async fn send(door: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(door).await.unwrap();
    // It may hang up before all is read.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// S19: however a request is put together, the model API gets one request of the routes that are open, with the owner's
/// credential and no other, or none at all.
#[tokio::test]
async fn no_request_is_smuggled_past_the_gateway() {
    let mut bed = Bed::start().await;
    let (base_url, mut reached) = model_api(|| "{}".into_response()).await;
    let (_, worker) = ready(&mut bed, base_url.clone()).await;
    let token = worker.order.model_token.expose();
    let own = format!("host: x\r\nauthorization: Bearer {token}\r\n");
    let second = "GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: attacker\r\n\r\n";
    let post = "POST /v1/messages HTTP/1.1\r\n";
    let many = "x-many: 1\r\n".repeat(200);
    let long = format!("x-long: {}\r\n", "a".repeat(40 * 1024));
    let requests = [
        (
            "two lengths",
            format!("{post}{own}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}{second}"),
            false,
        ),
        ("a signed length", format!("{post}{own}content-length: +2\r\n\r\n{{}}{second}"), false),
        ("an odd coding", format!("{post}{own}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{second}"), false),
        (
            "chunked not last",
            format!("{post}{own}transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n{second}"),
            false,
        ),
        (
            "a space in a name",
            format!("{post}{own}x-api-key : attacker\r\ncontent-length: 2\r\n\r\n{{}}"),
            false,
        ),
        (
            "a folded line",
            format!("{post}{own}x-a: b\r\n x-api-key: attacker\r\ncontent-length: 2\r\n\r\n{{}}"),
            false,
        ),
        (
            "a bare return",
            format!("{post}{own}x-a: b\rx-api-key: attacker\r\ncontent-length: 2\r\n\r\n{{}}"),
            false,
        ),
        ("a nul", format!("{post}{own}x-a: b\0c\r\ncontent-length: 2\r\n\r\n{{}}"), false),
        (
            "a line end in the path",
            format!("POST /v1/messages?a\nx-evil: 1 HTTP/1.1\r\n{own}content-length: 2\r\n\r\n{{}}"),
            false,
        ),
        ("many headers", format!("{post}{own}{many}content-length: 2\r\n\r\n{{}}"), false),
        ("a long header", format!("{post}{own}{long}content-length: 2\r\n\r\n{{}}"), false),
        ("another route", format!("GET /v1/models HTTP/1.1\r\n{own}\r\n"), false),
        ("a tunnel", format!("CONNECT api.example:443 HTTP/1.1\r\n{own}\r\n"), false),
        (
            "an upgrade",
            format!("{post}{own}connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\n{{}}"),
            true,
        ),
        ("a second request", format!("{post}{own}content-length: 2\r\n\r\n{{}}{second}"), true),
        (
            "length and coding",
            format!(
                "{post}{own}content-length: 99\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{second}"
            ),
            true,
        ),
        (
            "another authority",
            format!("POST http://evil.example/v1/messages HTTP/1.1\r\n{own}content-length: 2\r\n\r\n{{}}"),
            true,
        ),
        (
            "two credentials",
            format!(
                "{post}{own}authorization: Bearer attacker\r\nx-api-key: attacker\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            true,
        ),
        (
            "headers of the hop",
            format!(
                "{post}{own}connection: x-api-key, authorization, host\r\nx-api-key: attacker\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            true,
        ),
    ];
    for (what, request, passes) in requests {
        let answer = send(&worker.door, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count().max(1), 1, "{what}: {answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 200"), passes, "{what}: {answer}");
        assert!(!answer.contains(CANARY) && !answer.contains(token), "{what}: {answer}");
        let seen: Vec<_> = std::iter::from_fn(|| reached.try_recv().ok()).collect();
        assert_eq!(seen.len(), usize::from(passes), "{what}: {seen:?}");
        for (parts, body) in seen {
            assert_eq!((parts.uri.path(), &body[..]), ("/v1/messages", &b"{}"[..]), "{what}");
            assert_eq!(parts.headers["host"], base_url.trim_start_matches("http://"), "{what}");
            let whole = format!("{parts:?}");
            assert!(!whole.contains("attacker") && !whole.contains(token), "{what}: {whole}");
            assert_eq!(parts.headers.get_all("x-api-key").iter().collect::<Vec<_>>(), [CANARY], "{what}");
            assert!(!parts.headers.contains_key("authorization"), "{what}");
        }
    }
}
