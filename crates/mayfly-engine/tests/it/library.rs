//! What tasks get of the library, and what is kept of it.

use std::fs;

use mayfly_core::{Outcome, TaskId};
use mayfly_engine::{NoModel, SubmitError, archive_of};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api::{ALLOWED_MAX, AddCredential, CreateTask, Credential, CredentialKind, Retry};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::{Down, WorkOrder};

use crate::{at_once, minutes};

const CANARY: &str = "canary-5be1c0";

fn put(mayfly: &TestEngine, path: &str, text: &str) {
    let path = mayfly.config.library.folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn running(mayfly: &mut TestEngine) -> (SimMachine, WorkOrder) {
    let mut machine = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = machine.boot(&mayfly.engine).await else { panic!("no welcome") };
    (machine, *order)
}

async fn to_its_end(mayfly: &TestEngine, id: TaskId, machine: &mut SimMachine) {
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.outcome(id).await;
}

/// The only archive that is kept.
fn archive(mayfly: &TestEngine) -> std::path::PathBuf {
    let mut entries = fs::read_dir(&mayfly.config.library.archives).unwrap();
    let one = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    one
}

/// S30: what a machine was handed stays a secret until its task is over, whatever becomes of the pool.
#[tokio::test]
async fn a_secret_of_a_server_is_masked_for_as_long_as_its_task_goes_on() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    put(&mayfly, "mcp/_global/a/mcp.json", r#"{"command": "x", "env": {"T": "${T}"}}"#);
    put(
        &mayfly,
        "mcp/_global/a/mayfly.toml",
        "secrets = { T = \"token\" }\nallow-secret-in-machine = true\n",
    );
    let credential = Credential::new(CredentialKind::Secret, CANARY.to_owned().into(), None);
    let add = AddCredential { name: "token".to_owned(), credential, replace: false };
    mayfly.engine.add_credential(add).await.unwrap();
    let id = mayfly.submit(task("x")).await;
    let (mut machine, order) = running(&mut mayfly).await;
    assert_eq!(order.library.unwrap().secrets["a"]["T"].expose(), CANARY);
    mayfly.engine.remove_credential("token").await.unwrap();
    let is_known = |mayfly: &TestEngine| mayfly.engine.redactor().redact(CANARY.as_bytes()).is_some();
    assert!(is_known(&mayfly));
    to_its_end(&mayfly, id, &mut machine).await;
    // Its end is on the disk a moment before what is in memory of it goes.
    mayfly.engine.unfinished().wait_for(|tasks| *tasks == 0).await.unwrap();
    assert!(!is_known(&mayfly));
}

/// Whoever asks again with the same key gets the task that is there, whatever has become of the library.
#[tokio::test]
async fn a_task_is_known_by_its_key_though_the_library_is_wrong_by_now() {
    let mayfly = TestEngine::start(|_| {}).await;
    let submit = async |key: &str| mayfly.engine.submit(task("x"), Some(key.to_owned())).await;
    put(&mayfly, "mcp/_global/a/mcp.json", r#"{"command": "x"}"#);
    let first = submit("k").await.unwrap();
    put(&mayfly, "mcp/_global/a/mcp.json", "no JSON");
    assert_eq!(submit("k").await.unwrap().id, first.id);
    assert!(matches!(submit("other").await, Err(SubmitError::Library(_))));
    let other = mayfly.engine.submit(task("y"), Some("k".to_owned())).await;
    assert!(matches!(other, Err(SubmitError::KeyConflict)));
}

/// An edit counts from the next task on, without a restart; one that is accepted keeps what it had, in every attempt.
#[tokio::test]
async fn an_edit_counts_for_later_tasks_alone() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    put(&mayfly, "rules/_global/a/a.md", "before");
    let first = mayfly.submit(task("x")).await;
    let lock_of = async |id| mayfly.engine.lock_of(id).await.unwrap().unwrap();
    let before = lock_of(first).await;
    put(&mayfly, "rules/_global/a/a.md", "after");
    let later = mayfly.submit(task("y")).await;
    let after = lock_of(later).await;
    assert_ne!(before, after);
    // The first machine never joins, and another takes its place.
    let lost = mayfly.machines.next().await;
    mayfly.clock.sleeper_for(minutes(1)).await;
    mayfly.clock.advance(minutes(1));
    let (mut machine, order) = running(&mut mayfly).await;
    assert_ne!(machine.attempt(), lost.attempt());
    assert_eq!(order.library.unwrap().lock, before);
    to_its_end(&mayfly, first, &mut machine).await;
    assert_eq!(running(&mut mayfly).await.1.library.unwrap().lock, after);
}

#[tokio::test]
async fn a_task_that_had_nothing_of_the_library_has_nothing_of_it_again() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let (mut machine, _) = running(&mut mayfly).await;
    to_its_end(&mayfly, id, &mut machine).await;
    put(&mayfly, "rules/_global/a/a.md", "of today");
    let retry = Retry { credential: task("x").credential, ..Retry::default() };
    mayfly.engine.retry(id, retry, None).await.unwrap().unwrap();
    let (_machine, order) = running(&mut mayfly).await;
    assert_eq!(order.library.map(|library| library.lock), None);
    mayfly.submit(task("x")).await;
    assert!(running(&mut mayfly).await.1.library.is_some());
}

/// S46: what looks as if it were for a task and does not count is told of in its log, also where nothing else is there.
#[tokio::test]
async fn what_does_not_count_is_told_to_those_whom_it_is_for() {
    let mayfly = TestEngine::start(|_| {}).await;
    put(&mayfly, "skills/_global/review/SKILL.md", "in the wrong place");
    put(&mayfly, "rules/site/loose.md", "in no folder");
    let of = |project: &str| CreateTask { project: Some(project.to_owned()), ..task("x") };
    let other = mayfly.submit(of("other")).await;
    let site = mayfly.submit(of("site")).await;
    let told = async |id| mayfly.warnings(id).await.join("\n");
    let wrong =
        "in the library, skills: is no kind of resource: these are skill, agent, mcp, hooks, rules, settings";
    assert_eq!(told(other).await, wrong);
    let loose =
        "in the library, rules/site/loose.md: does not count: a resource is a folder KIND/NAMESPACE/NAME";
    assert_eq!(told(site).await, format!("{loose}\n{wrong}"));

    put(&mayfly, "rules/_global/a/a.md", "a");
    for number in 0..7 {
        let link = mayfly.config.library.folder.join(format!("rules/_global/link{number}"));
        std::os::unix::fs::symlink("a", link).unwrap();
    }
    let many = mayfly.submit(of("other")).await;
    let warnings = mayfly.warnings(many).await;
    assert_eq!(warnings.len(), 6, "{warnings:?}");
    assert!(warnings[4].starts_with("in the library, rules/_global/link4: is a link"), "{warnings:?}");
    assert_eq!(warnings[5], "in the library, 3 more do not count: `mayfly library check` names all");
    let is_locked =
        |(_, event): &(u32, MayflyEvent)| matches!(event, MayflyEvent::Locked { resources: 1, .. });
    assert!(mayfly.told(many).await.iter().any(is_locked));
}

/// A library that cannot be read is not as good as none.
#[tokio::test]
async fn only_a_library_that_nobody_named_may_be_absent() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.submit(task("x")).await;
    let refused = async |mayfly: &TestEngine| {
        let error = mayfly.engine.submit(task("x"), None).await.unwrap_err().to_string();
        let folder = mayfly.config.library.folder.display().to_string();
        assert!(error.contains(&folder) && error.contains("cannot be read"), "{error}");
    };
    fs::write(&mayfly.config.library.folder, "no folder").unwrap();
    refused(&mayfly).await;
    fs::remove_file(&mayfly.config.library.folder).unwrap();
    mayfly.submit(task("x")).await;
    mayfly.config.library.required = true;
    mayfly.restart().await;
    refused(&mayfly).await;
    fs::create_dir(&mayfly.config.library.folder).unwrap();
    mayfly.submit(task("x")).await;
}

#[tokio::test]
async fn an_archive_that_was_spoiled_is_not_given_out_and_is_written_anew() {
    let mayfly = TestEngine::start(|_| {}).await;
    put(&mayfly, "rules/_global/a/a.md", "a");
    mayfly.submit(task("x")).await;
    let path = archive(&mayfly);
    let good = fs::read(&path).unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap();
    let found = || archive_of(&mayfly.config.library.archives, &name[..12]);
    assert_eq!(found().as_ref(), Some(&good));
    fs::write(&path, "spoiled").unwrap();
    assert_eq!(found(), None);
    mayfly.submit(task("x")).await;
    assert_eq!(found(), Some(good));
}

/// S25: a task's own places and the library's are as many as there may be, together.
#[tokio::test]
async fn the_places_of_the_library_count_as_well() {
    let mayfly = TestEngine::start(|_| {}).await;
    put(&mayfly, "mcp/_global/a/mcp.json", r#"{"command": "x"}"#);
    put(&mayfly, "mcp/_global/a/mayfly.toml", "allow = [\"h0.test\", \"more.test\"]\n");
    let to = |most| CreateTask { allow: (0..most).map(|i| format!("h{i}.test")).collect(), ..task("x") };
    let refused = mayfly.engine.submit(to(ALLOWED_MAX), None).await.unwrap_err();
    assert!(refused.to_string().contains("10001 hosts with those"), "{refused}");
    mayfly.submit(to(ALLOWED_MAX - 1)).await;
}

/// Without what bounds an agent's answers no request goes out, and why is said.
#[tokio::test]
async fn a_request_whose_bounds_cannot_be_read_is_refused_in_words() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    put(&mayfly, "agent/_global/a/agent.md", "---\nname: a\ndescription: reads\n---\nRead.\n");
    mayfly.submit(task("x")).await;
    fs::write(archive(&mayfly), "spoiled").unwrap();
    let (_machine, order) = running(&mut mayfly).await;
    let refused = mayfly.engine.admit_model(order.model_token.expose()).await.unwrap_err();
    assert_eq!(refused, NoModel::Bounds);
    assert!(refused.to_string().contains("cannot be read"));
}

/// A retry has the lock of the task that it tries again, whatever the library has become by then, and also after a restart.
#[tokio::test]
async fn a_retry_has_the_same_lock_though_the_library_has_changed() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    put(&mayfly, "rules/_global/a/a.md", "as it was");
    put(&mayfly, "rules/_global/gone/gone.md", "gone by then");
    let lock = |order: &WorkOrder| order.library.as_ref().unwrap().lock.clone();
    let id = mayfly.submit(task("x")).await;
    let (mut machine, first) = running(&mut mayfly).await;
    to_its_end(&mayfly, id, &mut machine).await;
    put(&mayfly, "rules/_global/a/a.md", "as it is");
    put(&mayfly, "rules/_global/new/new.md", "new");
    fs::remove_dir_all(mayfly.config.library.folder.join("rules/_global/gone")).unwrap();
    let retry = || Retry { credential: task("x").credential, ..Retry::default() };
    let again = mayfly.engine.retry(id, retry(), None).await.unwrap().unwrap();
    let (mut machine, second) = running(&mut mayfly).await;
    assert_eq!(lock(&second), lock(&first));
    to_its_end(&mayfly, again.id.parse().unwrap(), &mut machine).await;
    // Not even a library that cannot be read any more is in the way.
    mayfly.restart().await;
    fs::remove_dir_all(&mayfly.config.library.folder).unwrap();
    fs::write(&mayfly.config.library.folder, "no folder").unwrap();
    mayfly.engine.retry(again.id.parse().unwrap(), retry(), None).await.unwrap().unwrap();
    let (_machine, third) = running(&mut mayfly).await;
    assert_eq!(lock(&third), lock(&first));
    fs::remove_file(&mayfly.config.library.folder).unwrap();
    put(&mayfly, "rules/_global/a/a.md", "as it is");
    mayfly.submit(task("x")).await;
    assert_ne!(lock(&running(&mut mayfly).await.1), lock(&first));
}
