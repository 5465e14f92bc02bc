//! What a task would get of the library, and what one got, by the API.

use std::fs;

use mayfly_client::ClientError;
use mayfly_library::{Library as Folder, Wishes};
use mayfly_wire::api::{CreateTask, Library};
use serde_json::Value;

use crate::bed::{Bed, raw, task};

/// A file of the library.
fn put(bed: &Bed, path: &str, text: &str) {
    let path = bed.data().join("library").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn asked(bed: &Bed, query: &str) -> (u16, Value) {
    let url = format!("http://mayfly/v1/library{query}");
    let answer = raw(&bed.server.socket()).get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn what_a_task_would_get_is_what_it_gets() {
    let bed = Bed::start().await;
    let empty = asked(&bed, "").await;
    assert_eq!((empty.0, &empty.1["resources"]), (200, &Value::Array(vec![])));
    put(&bed, "skill/_global/review/SKILL.md", "global");
    put(&bed, "skill/site/review/SKILL.md", "of the site");
    put(&bed, "rules/_global/style/style.md", "Be brief.");
    let (status, told) = asked(&bed, "?project=site").await;
    assert_eq!(status, 200);
    let told: Library = serde_json::from_value(told).unwrap();
    let ids: Vec<_> = told.resources.iter().map(|one| (one.id.as_str(), one.from.as_str())).collect();
    assert_eq!(ids, [("skill/site/review", "project"), ("rules/_global/style", "global")]);
    assert_eq!(
        (told.shadowed, told.projects),
        (vec!["skill/_global/review".into()], vec!["site".to_owned()])
    );

    let of_site = CreateTask { project: Some("site".into()), ..task("p", None) };
    let id = bed.client.submit(&of_site, "key").await.unwrap().id;
    let lock: Value = serde_json::from_str(&bed.client.lock(&id).await.unwrap()).unwrap();
    assert_eq!(lock["resources"].as_array().unwrap().len(), 2);
    put(&bed, "rules/_global/style/style.md", "Be very brief.");
    let named = Some(told.lock);
    let again = CreateTask { lock: named.clone(), ..task("p", None) };
    let again = bed.client.submit(&again, "other").await.unwrap().id;
    let same: Value = serde_json::from_str(&bed.client.lock(&again).await.unwrap()).unwrap();
    assert_eq!(same, lock, "what was listed is named by its lock");
    assert_ne!(asked(&bed, "?project=site").await.1["lock"].as_str(), named.as_deref());
}

#[tokio::test]
async fn what_cannot_be_told_of_the_library_is_said_as_a_problem() {
    let bed = Bed::start().await;
    for (query, words) in [("?project=../x", "`project` is no such name"), ("?projects=x", "projects")] {
        let (status, problem) = asked(&bed, query).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            (status, &problem["type"]) == (400, &"bad-request".into()) && detail.contains(words),
            "{problem}"
        );
    }
    put(&bed, "mcp/site/db/mcp.json", "{\n  // the database\n}");
    let (status, problem) = asked(&bed, "?project=site").await;
    assert_eq!((status, &problem["type"]), (422, &"invalid-library".into()));
    assert!(
        problem["detail"].as_str().unwrap().contains("mcp/site/db/mcp.json:2:3: key must be a string"),
        "{problem}"
    );
    assert_eq!(asked(&bed, "").await.0, 200, "it is wrong for one project alone");
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let none = bed.client.lock(&id).await.unwrap_err();
    assert!(matches!(none, ClientError::Refused(problem) if problem.kind == "no-such-lock"));
}

/// What a library elsewhere has: two resources, and their lock.
fn elsewhere() -> (Vec<(String, Vec<u8>)>, mayfly_library::Lock) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in
        [("agent/_global/reader/agent.md", "---\ntools: Read\n---\nRead."), ("rules/_global/r/r.md", "r")]
    {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let wishes = Wishes { agent: "reader".parse().ok(), ..Wishes::default() };
    let resolution = Folder::at(dir.path()).resolve(&wishes, &|_| None).unwrap();
    let archives = resolution.resources.iter().map(|(one, _)| (one.sha256.clone(), one.archive()));
    (archives.collect(), resolution.lock())
}

/// Covers S46 for what is handed over of a library: nothing is kept but what could have been written here.
#[tokio::test]
async fn a_library_elsewhere_is_handed_over_by_content() {
    let bed = Bed::start().await;
    let (archives, lock) = elsewhere();
    let kind = |error: ClientError| match error {
        ClientError::Refused(problem) => problem.kind,
        other => panic!("{other}"),
    };
    let early = bed.client.keep_lock(&lock.to_json()).await.unwrap_err();
    assert_eq!(kind(early), "invalid-lock");
    for (sha256, archive) in &archives {
        let other = bed.client.keep_resource(&"0".repeat(64), archive).await.unwrap_err();
        assert_eq!(kind(other), "invalid-resource");
        assert!(!bed.client.has_resource(sha256).await.unwrap());
        bed.client.keep_resource(sha256, archive).await.unwrap();
        assert!(bed.client.has_resource(sha256).await.unwrap());
        bed.client.keep_resource(sha256, archive).await.unwrap();
    }
    let huge = vec![0; mayfly_library::pack::ARCHIVE_BYTES_MAX + 1];
    assert_eq!(kind(bed.client.keep_resource(&archives[0].0, &huge).await.unwrap_err()), "too-large");
    let mut away = lock.clone();
    away.resources[0].sha256 = "../../mayfly.db".to_owned();
    let mut more = lock.clone();
    more.resources[0].bytes += 1;
    let mut turned = lock.clone();
    turned.resources.reverse();
    let mut renamed = lock.clone();
    renamed.resources[0].id = "mcp/_global/reader".parse().unwrap();
    for bad in [away, more, turned, renamed] {
        let refused = bed.client.keep_lock(&bad.to_json()).await.unwrap_err();
        assert_eq!(kind(refused), "invalid-lock", "{}", bad.to_json());
    }
    let kept = bed.client.keep_lock(&lock.to_json()).await.unwrap();
    assert_eq!(kept.lock, lock.sha256());
    put(&bed, "rules/_global/own/own.md", "the orchestrator's own");
    let named = CreateTask { lock: Some(kept.lock), ..task("p", None) };
    let id = bed.client.submit(&named, "key").await.unwrap().id;
    assert_eq!(bed.client.lock(&id).await.unwrap(), lock.to_json(), "and nothing of what is here");
}
