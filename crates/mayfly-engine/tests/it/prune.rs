//! What is old goes, by the engine's clock.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mayfly_core::TaskId;
use mayfly_engine::LogError;
use mayfly_testkit::{TestEngine, task};
use mayfly_wire::api::{CreateTask, Workspace};

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
    let workspace = Workspace { id: letter.repeat(64), name: "r".to_owned(), base: "b".repeat(40), on: None };
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
    finished(&mut mayfly, on("a")).await;
    pass(&mayfly, DAY).await;
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
