//! What is old goes, by the engine's clock.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mayfly_core::TaskId;
use mayfly_engine::{KeepError, LogError, SubmitError};
use mayfly_library::{Library, Lock, Wishes};
use mayfly_testkit::{TestEngine, task};
use mayfly_wire::api::{CreateTask, Retry, Workspace};

use crate::{at_once, minutes};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = minutes(60);

async fn start() -> TestEngine {
    TestEngine::start(|config| {
        at_once(1)(config);
        config.rules.keep_finished = 2 * DAY;
        fs::create_dir_all(&config.workspaces).unwrap();
    })
    .await
}

fn bundle(mayfly: &TestEngine, letter: &str) -> PathBuf {
    mayfly.config.workspaces.join(format!("{}.bundle", letter.repeat(64)))
}

/// Puts a bundle there as if it had been handed over long ago.
fn put_bundle(mayfly: &TestEngine, letter: &str) {
    let file = File::create(bundle(mayfly, letter)).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

fn on(letter: &str) -> CreateTask {
    let workspace = Workspace {
        id: letter.repeat(64),
        name: "r".to_owned(),
        base: "b".repeat(40),
        on: None,
        origin: None,
    };
    CreateTask { workspace: Some(workspace), ..task("x") }
}

async fn finished(mayfly: &mut TestEngine, task: CreateTask) -> TaskId {
    let id = mayfly.submit(task).await;
    mayfly.machines.next().await.succeeds(&mayfly.engine).await;
    mayfly.outcome(id).await;
    let folder = mayfly.config.results.join(id.to_string());
    fs::create_dir_all(folder.join("1")).unwrap();
    fs::write(folder.join("1/bundle"), "work").unwrap();
    id
}

/// Lets the time pass, and the look for what is old that comes then.
async fn pass(mayfly: &TestEngine, span: Duration) {
    mayfly.clock.sleeper_for(HOUR).await;
    mayfly.clock.advance(span);
    mayfly.clock.sleeper_for(HOUR).await;
}

/// R14
#[tokio::test]
async fn a_task_that_was_over_long_ago_keeps_its_end_and_nothing_else() {
    let mut mayfly = start().await;
    let old = finished(&mut mayfly, task("old")).await;
    pass(&mayfly, DAY).await;
    let young = finished(&mut mayfly, task("young")).await;
    let (log, task) = (mayfly.log(young, 0).await, mayfly.task(old).await);
    assert!(!task.pruned && mayfly.config.results.join(old.to_string()).exists());
    pass(&mayfly, DAY + HOUR).await;
    let gone = mayfly.engine.events(old, 0, true).await.unwrap_err();
    assert!(matches!(gone, LogError::Gone { first } if first == task.last_seq + 1), "{gone:?}");
    assert!(mayfly.engine.events(old, task.last_seq, true).await.unwrap().unwrap().is_over());
    assert!(!mayfly.config.results.join(old.to_string()).exists());
    assert_eq!(mayfly.task(old).await, mayfly_wire::api::Task { pruned: true, ..task });
    assert_eq!(mayfly.log(young, 0).await, log);
    assert!(mayfly.config.results.join(young.to_string()).join("1/bundle").exists());
}

/// What an engine was in the middle of when it ended is gone on with, whatever is left of it.
#[tokio::test]
async fn the_next_engine_goes_on_where_the_last_one_was() {
    let mut mayfly = start().await;
    let id = finished(&mut mayfly, task("x")).await;
    mayfly.engine.stop().await;
    let store = mayfly_engine::Store::open(&mayfly.file()).unwrap();
    store.begin_to_prune(id).await.unwrap();
    drop(store);
    mayfly.restart_after(2 * DAY + HOUR).await;
    mayfly.clock.sleeper_for(HOUR).await;
    assert!(!mayfly.config.results.join(id.to_string()).exists());
    assert!(matches!(mayfly.engine.events(id, 0, true).await, Err(LogError::Gone { .. })));
}

#[tokio::test]
async fn code_goes_with_the_last_task_that_names_it_and_not_while_somebody_may_ask_for_it() {
    let mut mayfly = start().await;
    for letter in ["a", "b", "c"] {
        put_bundle(&mayfly, letter);
    }
    // Of an upload that nobody has gone on with.
    let part = mayfly.config.workspaces.join(format!("{}.part", "d".repeat(64)));
    File::create(&part).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    finished(&mut mayfly, on("a")).await;
    pass(&mayfly, DAY).await;
    assert!(!part.exists());
    let there = |mayfly: &TestEngine| ["a", "b", "c"].map(|letter| bundle(mayfly, letter).exists());
    assert_eq!(there(&mayfly), [true, false, false], "those that nobody names and nobody asked for");
    put_bundle(&mayfly, "b");
    let waits = mayfly.submit(on("b")).await;
    pass(&mayfly, DAY + HOUR).await;
    assert_eq!(there(&mayfly), [false, true, false]);
    let refused = mayfly.engine.submit(on("a"), None).await.unwrap_err().to_string();
    assert!(refused.contains("upload it first"), "{refused}");
    mayfly.engine.cancel(waits, true).await.unwrap();
}

/// Who reads a log while it goes is told so, and gets no part of it as if it were the whole.
#[tokio::test]
async fn a_reader_of_a_log_that_goes_is_told() {
    let mut mayfly = start().await;
    let id = finished(&mut mayfly, task("x")).await;
    let mut reader = mayfly.engine.events(id, 0, true).await.unwrap().unwrap();
    pass(&mayfly, 2 * DAY + HOUR).await;
    assert!(matches!(reader.next().await, Err(LogError::Gone { .. })));
}

/// A file of the library.
fn put(mayfly: &TestEngine, path: &str, text: &str) {
    let path = mayfly.config.library.folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// How many archives are kept.
fn archives(mayfly: &TestEngine) -> usize {
    fs::read_dir(&mayfly.config.library.archives).map_or(0, Iterator::count)
}

#[tokio::test]
async fn what_a_task_had_of_the_library_goes_with_the_last_task_that_names_it() {
    let mut mayfly = start().await;
    put(&mayfly, "rules/_global/style/style.md", "Be brief.");
    put(&mayfly, "rules/_global/more/more.md", "Be kind.");
    let old = finished(&mut mayfly, task("old")).await;
    let lock = serde_json::from_str::<Lock>(&mayfly.engine.lock_of(old).await.unwrap().unwrap()).unwrap();
    let half = File::create(mayfly.config.library.archives.join(".tmp-half")).unwrap();
    half.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    pass(&mayfly, DAY).await;
    put(&mayfly, "rules/_global/style/style.md", "Be very brief.");
    let young = finished(&mut mayfly, task("young")).await;
    assert_eq!(archives(&mayfly), 3, "what was half made is gone");
    pass(&mayfly, DAY + HOUR).await;
    assert!(mayfly.task(old).await.pruned && !mayfly.task(young).await.pruned);
    let left = mayfly.engine.lock_of(young).await.unwrap().unwrap();
    let left: Lock = serde_json::from_str(&left).unwrap();
    let there = |sha256: &str| mayfly.config.library.archives.join(format!("{sha256}.tar")).exists();
    assert!(left.resources.iter().all(|locked| there(&locked.sha256)), "the other task has both");
    assert_eq!(archives(&mayfly), 2);
    assert_eq!(mayfly.engine.lock_of(old).await.unwrap(), None);
    let named = CreateTask { lock: Some(lock.sha256()), ..task("again") };
    let refused = mayfly.engine.submit(named, None).await.unwrap_err().to_string();
    assert!(refused.contains("names no lock that is kept here: `POST /v1/locks` keeps one"), "{refused}");
}

/// What waits or runs keeps what it was accepted with, however old that is.
#[tokio::test]
async fn a_task_that_is_not_over_keeps_what_it_is_to_run_with() {
    let mayfly = start().await;
    put(&mayfly, "rules/_global/style/style.md", "Be brief.");
    let waits = mayfly.submit(task("x")).await;
    fs::remove_dir_all(&mayfly.config.library.folder).unwrap();
    pass(&mayfly, 5 * DAY).await;
    assert_eq!(archives(&mayfly), 1);
    assert!(mayfly.engine.lock_of(waits).await.unwrap().is_some());
    mayfly.engine.cancel(waits, true).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_was_handed_over_waits_for_its_tasks_and_not_for_ever() {
    let mut mayfly = start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir_all(elsewhere.path().join("rules/_global/r")).unwrap();
    fs::write(elsewhere.path().join("rules/_global/r/r.md"), "r").unwrap();
    let resolution = Library::at(elsewhere.path()).resolve(&Wishes::default(), &|_| None).unwrap();
    let (resource, _) = &resolution.resources[0];
    let content = resource.sha256.clone();
    assert!(!mayfly.engine.has_resource(content.clone()).await);
    mayfly.engine.keep_resource(content.clone(), resource.archive()).await.unwrap();
    let lock = mayfly.engine.keep_lock(resolution.lock()).await.unwrap();
    pass(&mayfly, DAY).await;
    assert!(mayfly.engine.has_resource(content.clone()).await, "who asks for it has it as long again");
    pass(&mayfly, DAY + HOUR).await;
    let named = CreateTask { lock: Some(lock.clone()), ..task("x") };
    finished(&mut mayfly, named.clone()).await;
    pass(&mayfly, 2 * DAY + HOUR).await;
    pass(&mayfly, HOUR).await;
    assert!(!mayfly.engine.has_resource(content).await);
    assert!(mayfly.engine.submit(named, None).await.unwrap_err().to_string().contains("names no lock"));
}

/// A tree that was fetched long ago, and a server that runs it.
fn put_tree(mayfly: &TestEngine, server: &str) -> String {
    let trees = mayfly.config.library.folder.join(".tools");
    let tree = trees.join("new");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("main.js"), server).unwrap();
    let sha256 = mayfly_library::tool::sha256(&tree).unwrap();
    fs::rename(&tree, trees.join(&sha256)).unwrap();
    File::open(trees.join(&sha256)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let tool = serde_json::json!({server: {"package": server, "resolved": server, "sha256": sha256,
        "program": "node", "path": "main.js"}});
    put(
        mayfly,
        &format!("mcp/_global/{server}/mcp.json"),
        r#"{"command": "npx", "args": ["SERVER"]}"#.replace("SERVER", server).as_str(),
    );
    put(mayfly, &format!("mcp/_global/{server}/tools.json"), &tool.to_string());
    sha256
}

#[tokio::test]
async fn a_tree_goes_from_where_nobody_names_it() {
    let mut mayfly = start().await;
    let (one, other) = (put_tree(&mayfly, "one"), put_tree(&mayfly, "other"));
    finished(&mut mayfly, task("x")).await;
    let places = [mayfly.config.library.folder.join(".tools"), mayfly.config.library.tools.clone()];
    let there = |sha256: &str| places.each_ref().map(|place| place.join(sha256).is_dir());
    fs::remove_dir_all(mayfly.config.library.folder.join("mcp/_global/one")).unwrap();
    put(&mayfly, "mcp/_global/bad/mcp.json", "no JSON");
    pass(&mayfly, DAY).await;
    assert_eq!(
        (there(&one), there(&other)),
        ([true; 2], [true; 2]),
        "the bad one may name any, and a task had them"
    );
    fs::remove_dir_all(mayfly.config.library.folder.join("mcp/_global/bad")).unwrap();
    pass(&mayfly, HOUR).await;
    assert_eq!((there(&one), there(&other)), ([false, true], [true; 2]));
    pass(&mayfly, DAY + HOUR).await;
    assert_eq!((there(&one), there(&other)), ([false; 2], [true, false]), "the task is gone too");
}

/// Beside the trees only what a fetch or a look like this one made is taken away.
#[tokio::test]
async fn what_the_owner_keeps_beside_the_trees_stays() {
    let mayfly = start().await;
    let trees = mayfly.config.library.folder.join(".tools");
    let old = "0".repeat(64);
    let names = ["README.md", "notes", &old, "fetch-Ab3", ".going-0"];
    for name in names {
        fs::create_dir_all(trees.join(name)).unwrap();
        File::open(trees.join(name)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    pass(&mayfly, HOUR).await;
    assert_eq!(names.map(|name| trees.join(name).exists()), [true, true, false, false, false]);
}

/// What was pruned is not said never to have been.
#[tokio::test]
async fn a_task_whose_lock_is_gone_is_told_from_one_that_had_none() {
    let mut mayfly = start().await;
    let without = finished(&mut mayfly, task("without")).await;
    put(&mayfly, "rules/_global/style/style.md", "Be brief.");
    let with = finished(&mut mayfly, task("with")).await;
    let lock = mayfly.engine.lock_of(with).await.unwrap().unwrap();
    let sha256 = serde_json::from_str::<Lock>(&lock).unwrap().sha256();
    assert_eq!(mayfly.engine.forgotten_lock(with).await.unwrap(), None);
    pass(&mayfly, 2 * DAY + HOUR).await;
    pass(&mayfly, HOUR).await;
    assert_eq!(mayfly.engine.forgotten_lock(with).await.unwrap(), Some(sha256));
    assert_eq!(mayfly.engine.forgotten_lock(without).await.unwrap(), None);
    let retry = Retry { credential: task("x").credential, ..Retry::default() };
    let refused = mayfly.engine.retry(with, retry.clone(), None).await.unwrap_err().to_string();
    assert!(refused.contains("is not kept any more") && refused.contains("submit a new task"), "{refused}");
    mayfly.engine.retry(without, retry, None).await.unwrap().unwrap();
}

/// S12: what is handed over of a library is refused as a task is while the disk has no room for one.
#[tokio::test]
async fn nothing_is_kept_while_the_disk_is_full() {
    // It has no room for anything.
    let mayfly = TestEngine::start(|config| config.results = "/proc".into()).await;
    let lock = Lock { version: 1, project: None, agent: None, resources: Vec::new() };
    let archive = mayfly_library::pack::pack(&[]);
    let refused = [
        mayfly.engine.keep_lock(lock).await.unwrap_err(),
        mayfly.engine.keep_resource(mayfly_library::pack::sha256(&archive), archive).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, KeepError::NoRoom(SubmitError::DiskFull { .. })), "{error}");
    }
}
