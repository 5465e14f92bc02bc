//! What set-up commands made: who may take it, who may hand it over, and by which key.

use std::fs;

use http::StatusCode;
use mayfly_client::{Bundle, ClientError};
use mayfly_wire::api::{CreateTask, Setup, Workspace};
use mayfly_wire::worker::SETUP_PATH;

use crate::bed::{Bed, Worker, git, raw, task};

const NOWHERE: &str = "http://127.0.0.1:1";

fn setup(repository: Option<&str>) -> Setup {
    Setup {
        commands: vec!["true".to_owned()],
        lock_files: Vec::new(),
        keep: vec!["deps".to_owned()],
        repository: repository.map(str::to_owned),
        timeout_ms: 1000,
    }
}

async fn handed_over(bed: &Bed) -> Workspace {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| git(dir.path(), args);
    run(&["init", "-q", "-b", "main"]);
    run(&["commit", "-q", "--allow-empty", "-m", "first"]);
    run(&["bundle", "create", "-q", "b", "main"]);
    let bundle = Bundle::read(&dir.path().join("b"), None).await.unwrap();
    bed.client.upload_workspace("repo", &bundle).await.unwrap()
}

/// The worker of a new task on this workspace, of this repository.
async fn worker(bed: &mut Bed, workspace: &Workspace, repository: &str) -> Worker {
    let prompt = task("p", Some(NOWHERE.to_owned()));
    let (workspace, setup) = (Some(workspace.clone()), Some(setup(Some(repository))));
    let before = bed.client.tasks(None, None).await.unwrap().len();
    bed.client.submit(&CreateTask { workspace, setup, ..prompt }, &before.to_string()).await.unwrap();
    bed.worker().await
}

async fn put(worker: &Worker, key: &str, bytes: &'static str) -> StatusCode {
    let put = raw(&worker.door).put(format!("http://mayfly{SETUP_PATH}{key}"));
    put.bearer_auth(worker.order.result_token.expose()).body(bytes).send().await.unwrap().status()
}

async fn get(worker: &Worker, key: &str) -> (StatusCode, String) {
    let get = raw(&worker.door).get(format!("http://mayfly{SETUP_PATH}{key}"));
    let answer = get.bearer_auth(worker.order.result_token.expose()).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// I6: by its name alone one repository does not get what another's commands made, and no machine is told where it is.
#[tokio::test]
async fn what_is_kept_is_for_one_repository_and_one_key_of_each_machine() {
    let mut bed = Bed::start().await;
    let workspace = handed_over(&bed).await;
    let [key, other] = ["a", "b"].map(|digit| digit.repeat(64));
    let mut first = worker(&mut bed, &workspace, "/home/me/app").await;
    assert_eq!(first.order.setup.as_ref().unwrap().repository, None);
    assert_eq!(get(&first, &key).await.0, StatusCode::NOT_FOUND);
    assert_eq!(put(&first, &key, "made").await, StatusCode::NO_CONTENT);
    // What runs in it may ask for anything, as often as it likes.
    assert_eq!(put(&first, &other, "more").await, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&first, &other).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&first, &key).await, (StatusCode::OK, "made".to_owned()));
    first.ready().await;
    assert_eq!(put(&first, &key, "an agent's").await, StatusCode::UNAUTHORIZED);

    let same = worker(&mut bed, &workspace, "/home/me/app").await;
    assert_eq!(get(&same, &key).await, (StatusCode::OK, "made".to_owned()));
    let another = worker(&mut bed, &workspace, "/home/me/other/app").await;
    assert_eq!(get(&another, &key).await.0, StatusCode::NOT_FOUND);
    let kept = fs::read_dir(bed.data().join("workspaces")).unwrap();
    let kept = kept.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "setup"));
    assert_eq!(kept.count(), 1);
}

#[tokio::test]
async fn a_set_up_that_keeps_something_says_for_which_repository() {
    let bed = Bed::start().await;
    let workspace = Some(handed_over(&bed).await);
    let asked = CreateTask { workspace, setup: Some(setup(None)), ..task("p", Some(NOWHERE.to_owned())) };
    let refused = bed.client.submit(&asked, "k").await.unwrap_err();
    let ClientError::Refused(problem) = refused else { panic!("{refused:?}") };
    assert!(problem.detail.contains("setup.repository"), "{problem:?}");
}
