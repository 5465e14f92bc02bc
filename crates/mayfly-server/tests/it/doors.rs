//! Who can reach what: the owner's door, the machines' door, and what each answers to strangers.

use http::{Method, StatusCode};
use mayfly_link::Frame;
use mayfly_wire::api::Problem;
use mayfly_wire::worker::{Down, Hello, PROTOCOL};

use crate::bed::{Bed, Worker, door, hello, raw, task};

const NOBODY: &str = "0193b2c4-0000-7000-8000-0123456789ab";

async fn status(client: &reqwest::Client, method: &Method, path: &str) -> StatusCode {
    let request = client.request(method.clone(), format!("http://mayfly{path}"));
    request.header("content-type", "application/json").body("{}").send().await.unwrap().status()
}

/// S40: a machine cannot ask for what is the owner's, whatever token it has.
#[tokio::test]
async fn the_owners_routes_are_not_on_the_machines_door() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let worker = bed.worker().await;
    let machine = raw(&worker.door);
    let about = format!("/v1/tasks/{}", submitted.id);
    for (method, path) in [
        (Method::GET, "/v1/tasks".to_owned()),
        (Method::POST, "/v1/tasks".to_owned()),
        (Method::GET, about.clone()),
        (Method::POST, format!("{about}/cancel")),
        (Method::GET, format!("{about}/events")),
        (Method::GET, format!("{about}/result/bundle")),
        (Method::POST, "/v1/workspaces?name=r".to_owned()),
        (Method::GET, "/healthz".to_owned()),
        (Method::GET, "/v1/worker/result/bundle".to_owned()),
    ] {
        let elsewhere = worker.order.egress_token.as_ref();
        for token in [None, Some(&worker.order.model_token), Some(&worker.order.result_token), elsewhere] {
            let mut request = machine.request(method.clone(), format!("http://mayfly{path}"));
            if let Some(token) = token {
                request = request.bearer_auth(token.expose());
            }
            assert_eq!(request.send().await.unwrap().status(), 404, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_machines_routes_are_not_on_the_owners_door() {
    let bed = Bed::start().await;
    let owner = raw(&bed.server.socket());
    for (method, path) in [
        (Method::GET, "/v1/worker"),
        (Method::PUT, "/v1/worker/result/bundle"),
        (Method::POST, "/v1/messages"),
        (Method::HEAD, "/api/hello"),
    ] {
        assert_eq!(status(&owner, &method, path).await, 404, "{method} {path}");
    }
}

/// S40: one answer for what is not there and for what cannot be.
#[tokio::test]
async fn a_guessed_id_learns_nothing() {
    let bed = Bed::start().await;
    let owner = raw(&bed.server.socket());
    let mut answers = Vec::new();
    for id in [NOBODY, "x", "..%2f..%2fkey", "%00", "0193b2c4", "%ff"] {
        for path in ["", "/events", "/events?after=18446744073709551615"] {
            let answer = owner.get(format!("http://mayfly/v1/tasks/{id}{path}")).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{id}{path}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            answers.push(answer.text().await.unwrap());
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let problem: Problem = serde_json::from_str(&answers[0]).unwrap();
    assert_eq!(problem.kind, "no-such-task");
}

/// S40: numbers that are none, and one past the end.
#[tokio::test]
async fn a_place_in_a_log_is_a_number() {
    let bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let owner = raw(&bed.server.socket());
    let events = format!("http://mayfly/v1/tasks/{}/events", submitted.id);
    for query in ["after=-1", "after=18446744073709551616", "after=x", "follow=perhaps", "before=1"] {
        let answer = owner.get(format!("{events}?{query}")).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
    }
    for past in [u64::MAX, 1 << 63, 1_000_000] {
        let answer = owner.get(format!("{events}?after={past}&follow=false")).send().await.unwrap();
        assert_eq!((answer.status(), answer.text().await.unwrap().as_str()), (StatusCode::OK, ""), "{past}");
    }
}

/// S19, S27: a token is good for its own route alone.
#[tokio::test]
async fn a_token_opens_its_own_route_and_no_other() {
    let mut bed = Bed::start().await;
    bed.client.submit(&task("p", None), "key").await.unwrap();
    let worker = bed.worker().await;
    let machine = raw(&worker.door);
    let (model, result) = (worker.order.model_token.expose(), worker.order.result_token.expose());
    for token in [None, Some(model), Some("x"), Some("")] {
        let mut request = machine.put("http://mayfly/v1/worker/result/bundle").body("work");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        assert_eq!(request.send().await.unwrap().status(), 401, "{token:?}");
    }
    let request = machine.post("http://mayfly/v1/messages").bearer_auth(result).body("{}");
    assert_eq!(request.send().await.unwrap().status(), 401);
    let results = bed.data().join("results");
    assert_eq!(std::fs::read_dir(results).unwrap().count(), 0, "nothing may be stored");
}

/// S27: what is no hello of ours gets no further.
#[tokio::test]
async fn a_worker_with_a_wrong_ticket_is_rejected() {
    let mut bed = Bed::start().await;
    bed.client.submit(&task("p", None), "key").await.unwrap();
    let spec = bed.machines.recv().await.unwrap();
    let (door, good) = (door(&spec), hello(&spec));
    let mut wrong = good.clone();
    wrong.ticket = "guessed".to_owned().into();
    let mut foreign = good.clone();
    foreign.attempt = format!("{NOBODY}.1");
    let mut none = good.clone();
    none.attempt = "..".to_owned();
    for hello in [&wrong, &foreign, &none] {
        let answer = Worker::join(&door, hello).await;
        assert!(matches!(answer, Err(Down::Reject { .. })), "{:?}", answer.err());
    }
    assert!(Worker::join(&door, &good).await.is_ok(), "the right one still may");
}

/// R26: told in words, which its log keeps, and for good: dialling again would change nothing.
#[tokio::test]
async fn a_worker_of_another_version_is_rejected_with_both_versions() {
    let mut bed = Bed::start().await;
    bed.client.submit(&task("p", None), "key").await.unwrap();
    let spec = bed.machines.recv().await.unwrap();
    let newer = Hello { protocol: PROTOCOL + 1, ..hello(&spec) };
    let Err(Down::Reject { reason }) = Worker::join(&door(&spec), &newer).await else { panic!("let in") };
    let versions = [format!("version {PROTOCOL} "), format!("worker {}", PROTOCOL + 1)];
    assert!(versions.iter().all(|version| reason.contains(version)), "{reason}");
}

/// S38: whatever is no frame of records ends the link; the worker may dial again.
#[tokio::test]
async fn a_frame_that_is_none_ends_the_link() {
    let mut bed = Bed::start().await;
    bed.client.submit(&task("p", None), "key").await.unwrap();
    let spec = bed.machines.recv().await.unwrap();
    let (door, hello) = (door(&spec), hello(&spec));
    for frame in [Frame::Text("{}".to_owned()), Frame::Binary((&b"\x01half"[..]).into())] {
        let mut worker = Worker::join(&door, &hello).await.unwrap();
        worker.send(frame).await;
        assert!(worker.heard().await.is_none());
    }
    assert!(Worker::join(&door, &hello).await.is_ok());
}
