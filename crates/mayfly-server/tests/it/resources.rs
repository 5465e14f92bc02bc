//! What a machine gets of the library: what its own task runs with, and nothing else of what is kept.

use std::fs;

use http::StatusCode;
use mayfly_wire::api::{AddCredential, Collected, CreateTask, Credential, CredentialKind};
use mayfly_wire::worker::RESOURCE_PATH;
use serde_json::Value;

use crate::bed::{Bed, Worker, raw, task};

const NOWHERE: &str = "http://127.0.0.1:1";

fn put(bed: &Bed, path: &str, text: &str) {
    let path = bed.data().join("library").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn submit(bed: &Bed, project: &str) {
    let task = CreateTask { project: Some(project.to_owned()), ..task("p", Some(NOWHERE.to_owned())) };
    bed.client.submit(&task, project).await.unwrap();
}

/// The content of the only resource that a worker's task has.
fn content(worker: &Worker) -> String {
    let lock: Value = serde_json::from_str(&worker.order.library.as_ref().unwrap().lock).unwrap();
    assert_eq!(lock["resources"].as_array().unwrap().len(), 1, "{lock}");
    lock["resources"][0]["sha256"].as_str().unwrap().to_owned()
}

async fn fetched(worker: &Worker, token: &str, sha256: &str) -> StatusCode {
    let url = format!("http://mayfly{RESOURCE_PATH}{sha256}");
    raw(&worker.door).get(url).bearer_auth(token).send().await.unwrap().status()
}

/// A machine gets what its own task runs with, for as long as that goes on; another's token, a content that is not in its
/// lock, and a token of another route get nothing.
#[tokio::test]
async fn a_machine_gets_the_resources_of_its_own_task_alone() {
    let mut bed = Bed::start().await;
    put(&bed, "rules/one/own/a.md", "of one");
    put(&bed, "rules/two/own/a.md", "of two");
    submit(&bed, "one").await;
    let mut one = bed.worker().await;
    submit(&bed, "two").await;
    let two = bed.worker().await;
    let token = |worker: &Worker| worker.order.result_token.expose().to_owned();
    assert_eq!(fetched(&one, &token(&one), &content(&one)).await, StatusCode::OK);
    assert_ne!(content(&one), content(&two));
    for (token, sha256) in [
        (token(&one), content(&two)),
        (token(&two), content(&two)),
        (token(&two), content(&one)),
        (one.order.model_token.expose().to_owned(), content(&one)),
        (token(&one), "0".repeat(64)),
        (token(&one), "..%2f..%2fkey".to_owned()),
    ] {
        assert_eq!(fetched(&one, &token, &sha256).await, StatusCode::UNAUTHORIZED, "{sha256}");
    }
    one.ready().await;
    one.finish(Collected::default()).await;
    while one.heard().await.is_some() {}
    assert_eq!(fetched(&two, &token(&one), &content(&one)).await, StatusCode::UNAUTHORIZED);
}

/// Each server is given its own secrets; one that is not in the pool any more is given to nobody.
#[tokio::test]
async fn a_work_order_has_the_secrets_of_its_servers() {
    let mut bed = Bed::start().await;
    let server = r#"{"mcpServers": {"a": {"command": "x", "env": {"T": "${T}"}}, "b": {"command": "x", "env": {"U": "${U}"}}}}"#;
    put(&bed, "mcp/one/both/mcp.json", server);
    let own = "secrets = { T = \"first\", U = \"second\" }\nallow-secret-in-machine = true\n";
    put(&bed, "mcp/one/both/mayfly.toml", own);
    for name in ["first", "second"] {
        let secret = format!("canary-of-{name}");
        let credential = Credential::new(CredentialKind::Secret, secret.into(), None);
        let add = AddCredential { name: name.to_owned(), credential, replace: false };
        bed.client.add_credential(&add).await.unwrap();
    }
    submit(&bed, "one").await;
    let worker = bed.worker().await;
    let secrets = serde_json::to_value(&worker.order.library.as_ref().unwrap().secrets).unwrap();
    assert_eq!(secrets, serde_json::json!({"a": {"T": "canary-of-first"}, "b": {"U": "canary-of-second"}}));
    bed.client.remove_credential("first").await.unwrap();
    let again = Worker::join(&worker.door, &worker.hello).await.unwrap();
    let secrets = serde_json::to_value(&again.order.library.as_ref().unwrap().secrets).unwrap();
    assert_eq!(secrets, serde_json::json!({"b": {"U": "canary-of-second"}}));
}
