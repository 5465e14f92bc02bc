//! Machines that are refused, lost, or nobody's.

use std::time::Duration;

use mayfly_testkit::{Answer, TestEngine};
use mayfly_wire::event::MayflyEvent;

#[tokio::test]
async fn a_refused_machine_ends_the_task_with_the_cause() {
    let test = TestEngine::start(|_| {}).await;
    test.machines.answer([Answer::Refused("no overlay here".to_owned())]);
    let task = test.submit("a").await;
    let (outcome, detail) = test.outcome(task).await;
    assert_eq!(outcome, "refused");
    assert!(detail.contains("no overlay here"), "{detail}");
}

/// R28, R30.
#[tokio::test]
async fn unclear_answers_are_asked_again_until_they_are_clear() {
    let mut test = TestEngine::start(|rules| rules.launch_max = Duration::from_secs(3600)).await;
    test.machines.answer(vec![Answer::Unclear; 20]);
    let task = test.submit("a").await;
    for wait in waits().take(20) {
        test.clock.pass(wait).await;
    }
    let worker = test.machines.next().await.boot(&test.engine).await;
    test.machines.answer(vec![Answer::Unclear; 100]);
    worker.succeeds().await;
    for wait in waits().take(100) {
        test.clock.pass(wait).await;
    }
    assert_eq!(test.outcome(task).await.0, "succeeded");
    assert_eq!((test.machines.left(), test.machines.made()), (0, 1));
}

fn waits() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(Duration::from_millis(100)), |&wait| {
        Some((wait * 2).min(Duration::from_secs(30)))
    })
}

/// G2: nothing had been done that could matter twice.
#[tokio::test]
async fn a_machine_lost_before_claude_started_is_replaced() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let worker = machine.boot(&test.engine).await;
    machine.vanish();
    drop(worker);
    let second = test.machines.next().await;
    assert_eq!(second.spec.attempt.attempt.0, 2);
    second.boot(&test.engine).await.succeeds().await;
    assert_eq!(test.outcome(task).await.0, "succeeded");
    assert!(test.story(task).await.contains(&"requeued".to_owned()));
    assert_eq!((test.machines.left(), test.machines.most()), (0, 1));
}

/// G2, R06: what `claude` has done may not be done twice.
#[tokio::test]
async fn a_machine_lost_after_claude_started_ends_the_task() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let mut worker = machine.boot(&test.engine).await;
    worker.starts().await;
    worker.says(r#"{"n":1}"#).await;
    machine.vanish();
    drop(worker);
    assert_eq!(test.outcome(task).await, ("lost".to_owned(), "its machine is gone".to_owned()));
    assert!(test.log(task).await.contains(r#""line":{"n":1}"#), "what was said is kept");
    assert_eq!((test.machines.left(), test.machines.made()), (0, 1));
}

/// R07, R24: a link that is cut, and a machine that lives.
#[tokio::test]
async fn a_worker_that_comes_back_goes_on_where_it_was() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let mut worker = machine.boot(&test.engine).await;
    worker.starts().await;
    drop(worker);
    // Looked at once, and then with pauses that grow.
    test.clock.pass(Duration::from_millis(250)).await;
    test.clock.pass(Duration::from_millis(500)).await;
    let mut again = machine.boot(&test.engine).await;
    again.says("{}").await;
    again.ends("succeeded", None).await;
    again.collected().await;
    assert_eq!(test.outcome(task).await.0, "succeeded");
}

#[tokio::test]
async fn a_long_silence_is_told_once_and_a_longer_one_ends_the_task() {
    let limits = |rules: &mut mayfly_engine::Rules| {
        rules.silent_after = Duration::from_millis(500);
        rules.orphan_after = Duration::from_secs(2);
    };
    let mut test = TestEngine::start(limits).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    drop(worker);
    for wait in [250, 500, 1000, 2000] {
        test.clock.pass(Duration::from_millis(wait)).await;
    }
    assert_eq!(test.outcome(task).await, ("lost".to_owned(), "its machine was not heard for 2s".to_owned()));
    let warnings = test.log(task).await.matches("nothing heard from the machine for 500ms").count();
    assert_eq!(warnings, 1);
    assert_eq!(test.machines.left(), 0);
}

/// R31.
#[tokio::test]
async fn a_machine_that_the_store_does_not_know_is_destroyed_at_the_start() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    test.machines.plant(task.attempt(mayfly_core::Attempt(9)));
    test.machines.plant("0193b2c4-0000-7000-8000-0123456789ab.1".parse().unwrap());
    test.restart().await;
    machine.boot(&test.engine).await.succeeds().await;
    assert_eq!(test.outcome(task).await.0, "succeeded");
    test.engine.stop().await;
    test.restart().await;
    assert_eq!(test.machines.left(), 0);
}

/// What the provider cannot give is told in the log.
#[tokio::test]
async fn a_worker_that_ends_early_says_why() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.ends("workspace", Some("no such folder")).await;
    worker.collected().await;
    assert_eq!(test.outcome(task).await, ("workspace".to_owned(), "no such folder".to_owned()));
    test.until(task, |event| matches!(event, MayflyEvent::Finished { .. })).await;
}
