//! A machine's way to other hosts, through its door: what its owner allows holds from the answer on, and no other.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use mayfly_core::host::Target;
use mayfly_server::{Network, Resolve};
use mayfly_wire::api::{Allowed, EgressEntry, Problem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

use crate::bed::{Bed, Worker, raw, task};

/// Every name leads to the one site.
#[derive(Debug)]
struct One(SocketAddr);

#[async_trait]
impl Resolve for One {
    async fn resolve(&self, _: &Target) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0])
    }
}

/// An orchestrator in whose network each of `names` leads to a site that says `hi`.
async fn bed(names: &[&str]) -> Bed {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = listener.local_addr().unwrap();
    let app = Router::new().fallback(async || "hi");
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
    Bed::start_with(move |config| config.network = Network::new(Arc::new(One(site)), names.clone())).await
}

/// Becomes a connection to the proxy.
async fn join(door: &Path, token: &str) -> Result<UnixStream, String> {
    let mut stream = UnixStream::connect(door).await.unwrap();
    let request = format!(
        "GET /v1/egress HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: mayfly-egress\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("HTTP/1.1 101") { Ok(stream) } else { Err(head) }
}

fn token(worker: &Worker) -> &str {
    worker.order.egress_token.as_ref().unwrap().expose()
}

/// The status of a request to `host`.
async fn status(worker: &Worker, host: &str) -> String {
    let mut stream = join(&worker.door, token(worker)).await.unwrap();
    let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer[9..12].to_owned()
}

async fn entries(bed: &Bed, id: &str) -> Vec<EgressEntry> {
    bed.client.egress(id).await.unwrap().entries
}

/// S25: a thousand edits while the task runs, and after each what is not on the list is still refused; so it is with as many
/// rules as a task may have.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_edits_let_nothing_else_through() {
    const EDITS: usize = 1000;
    const RULES_MAX: usize = 10_000;
    let mut bed = bed(&["a.test", "bad.test"]).await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let worker = bed.worker().await;
    let mut leaks = 0;
    for edit in 0..EDITS {
        let host = format!("h{edit}.bad.test");
        let allowed = bed.client.allow(&id, &Allowed { hosts: vec![host] }).await.unwrap();
        assert_eq!(allowed.hosts.len(), edit + 1);
        leaks += usize::from(status(&worker, "bad.test").await != "403");
    }
    assert_eq!(leaks, 0, "of {EDITS}");
    assert_eq!(status(&worker, "a.test").await, "403");
    bed.client.allow(&id, &Allowed { hosts: vec!["a.test".to_owned()] }).await.unwrap();
    assert_eq!(status(&worker, "a.test").await, "200");
    let rest = (EDITS + 1..RULES_MAX).map(|n| format!("x{n}.bad.test")).collect();
    assert_eq!(bed.client.allow(&id, &Allowed { hosts: rest }).await.unwrap().hosts.len(), RULES_MAX);
    let one_more = Allowed { hosts: vec!["one.test".to_owned()] };
    assert!(bed.client.allow(&id, &one_more).await.is_err(), "there are as many as there may be");
    for denied in ["bad.test", "one.test", "x.bad.test", "x9999.bad.test.test"] {
        assert_eq!(status(&worker, denied).await, "403", "{denied}");
    }
    assert_eq!(status(&worker, "a.test").await, "200");
    let kept = entries(&bed, &id).await;
    assert!(kept.iter().all(|entry| (entry.host == "a.test") || entry.decision == "denied"), "{kept:?}");
}

/// S27, S40: the way is open to the token of its route and attempt, through the door of that, while it runs.
#[tokio::test]
async fn the_way_is_open_to_its_own_token_alone() {
    let mut bed = bed(&["a.test"]).await;
    let allow = |mut task: mayfly_wire::api::CreateTask| {
        task.allow = vec!["a.test".to_owned()];
        task
    };
    bed.client.submit(&allow(task("p", None)), "one").await.unwrap();
    let mut worker = bed.worker().await;
    bed.client.submit(&task("q", None), "two").await.unwrap();
    let neighbour = bed.worker().await;
    assert_eq!(
        (status(&worker, "a.test").await.as_str(), status(&neighbour, "a.test").await.as_str()),
        ("200", "403")
    );
    let (ticket, order) = (worker.hello.ticket.expose(), &worker.order);
    for wrong in [ticket, order.model_token.expose(), order.result_token.expose(), token(&neighbour), "x"] {
        let refused = join(&worker.door, wrong).await.unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    }
    let own = token(&worker).to_owned();
    worker.ready().await;
    worker.end("succeeded").await;
    let refused = match UnixStream::connect(&worker.door).await {
        Ok(_) => join(&worker.door, &own).await.unwrap_err(),
        Err(gone) => gone.to_string(),
    };
    assert!(!refused.starts_with("HTTP/1.1 101"), "{refused}");
}

/// S33: what goes through a tunnel ends with its attempt, and its bytes are on record.
#[tokio::test]
async fn a_connection_ends_with_its_attempt() {
    let mut bed = bed(&["a.test"]).await;
    let mut asked = task("p", None);
    asked.allow = vec!["a.test".to_owned()];
    let id = bed.client.submit(&asked, "one").await.unwrap().id;
    let mut worker = bed.worker().await;
    let mut stream = join(&worker.door, token(&worker)).await.unwrap();
    stream.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    worker.ready().await;
    worker.end("succeeded").await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    bed.nobody_but(0).await;
    let kept = entries(&bed, &id).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!((kept[0].host.as_str(), kept[0].port, kept[0].decision.as_str()), ("a.test", 80, "allowed"));
}

#[tokio::test]
async fn what_cannot_be_allowed_is_told_in_words() {
    let bed = bed(&[]).await;
    let owner = raw(&bed.server.socket());
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let ask = async |body: String| {
        let request = owner
            .post(format!("http://mayfly/v1/tasks/{id}/allow"))
            .header("content-type", "application/json");
        let answer = request.body(body).send().await.unwrap();
        let problem: Problem = answer.json().await.unwrap();
        (problem.status, problem.kind, problem.detail)
    };
    let (status, kind, detail) = ask(r#"{"hosts":["a.test","127.0.0.1"]}"#.to_owned()).await;
    assert_eq!((status, kind.as_str()), (422, "invalid-host"));
    assert!(detail.contains("number 2") && detail.contains("an address is none"), "{detail}");
    for bad in ["{}", r#"{"hosts":"a.test"}"#, r#"{"hosts":[1]}"#, r#"{"hosts":[],"x":1}"#] {
        assert_eq!(ask(bad.to_owned()).await.0, 422, "{bad}");
    }
    assert_eq!(bed.client.allowed(&id).await.unwrap().hosts, [""; 0], "nothing of a bad list is taken");
}
