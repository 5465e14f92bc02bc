//! The engine dies at each state, and another takes over.

use mayfly_testkit::{SimMachine, TestEngine};
use mayfly_wire::worker::Down;

async fn at_its_end(test: &TestEngine, machine: &SimMachine, started: bool) {
    let mut worker = machine.boot(&test.engine).await;
    if !started {
        worker.starts().await;
    }
    worker.ends("succeeded", None).await;
    worker.collected().await;
}

/// R01, R02, G1, G2: in every state, once.
#[tokio::test]
async fn a_task_survives_a_restart_in_every_state() {
    let mut test = TestEngine::start(|rules| rules.policy.machines_max = 1.try_into().unwrap()).await;
    let (task, waiting) = (test.submit("a").await, test.submit("b").await);
    let machine = test.machines.next().await;
    assert_eq!(test.task(task).await.state, "launching");
    test.restart().await;
    assert_eq!(test.task(waiting).await.state, "queued");

    let worker = machine.boot(&test.engine).await;
    drop(worker);
    test.restart().await;
    assert_eq!(test.task(task).await.state, "running");

    let mut worker = machine.boot(&test.engine).await;
    worker.starts().await;
    worker.says("{}").await;
    drop(worker);
    test.restart().await;
    at_its_end(&test, &machine, true).await;
    assert_eq!(test.outcome(task).await.0, "succeeded");

    let machine = test.machines.next().await;
    at_its_end(&test, &machine, false).await;
    assert_eq!(test.outcome(waiting).await.0, "succeeded");
    assert_eq!((test.machines.made(), test.machines.most(), test.machines.left()), (2, 1, 0));
    let log = test.log(task).await;
    assert_eq!(log.matches(r#""type":"started""#).count(), 1);
    test.restart().await;
    assert_eq!(test.log(task).await, log, "a finished task keeps its log");
}

#[tokio::test]
async fn a_worker_that_comes_back_while_collecting_is_told_again() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let mut worker = machine.boot(&test.engine).await;
    worker.starts().await;
    test.engine.cancel(task, false).await.unwrap();
    assert!(matches!(worker.hears().await, Down::Collect));
    drop(worker);
    test.restart().await;
    let mut worker = machine.boot(&test.engine).await;
    assert!(matches!(worker.hears().await, Down::Collect));
    worker.collected().await;
    assert_eq!(test.outcome(task).await.0, "cancelled");
}

#[tokio::test]
async fn a_machine_that_was_being_destroyed_is_destroyed() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let worker = machine.boot(&test.engine).await;
    test.machines.answer([mayfly_testkit::Answer::Unclear]);
    worker.succeeds().await;
    test.until(task, |event| *event == mayfly_wire::event::MayflyEvent::Releasing).await;
    test.restart().await;
    assert_eq!(test.outcome(task).await.0, "succeeded");
    assert_eq!(test.machines.left(), 0);
}

/// A machine that died while no engine was there.
#[tokio::test]
async fn a_machine_that_died_meanwhile_is_lost() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let mut worker = machine.boot(&test.engine).await;
    worker.starts().await;
    drop(worker);
    test.engine.stop().await;
    machine.vanish();
    test.restart().await;
    assert_eq!(test.outcome(task).await.0, "lost");
    assert_eq!(test.machines.left(), 0);
}
