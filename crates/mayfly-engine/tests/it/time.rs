//! Limits of time.

use std::time::Duration;

use mayfly_testkit::{TestEngine, create};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_worker_that_is_never_heard_is_replaced_twice_and_then_given_up() {
    let mut test = TestEngine::start(|rules| rules.launch_max = 60 * SECOND).await;
    let task = test.submit("a").await;
    for number in 1..=3 {
        assert_eq!(test.machines.next().await.spec.attempt.attempt.0, number);
        test.clock.pass(60 * SECOND).await;
    }
    let expected = ("launch-timeout".to_owned(), "its worker was not heard within 1m".to_owned());
    assert_eq!(test.outcome(task).await, expected);
    assert_eq!((test.machines.left(), test.machines.made()), (0, 3));
}

#[tokio::test]
async fn the_whole_time_of_a_task_runs_out() {
    let mut test = TestEngine::start(|_| {}).await;
    let mut asked = create("a");
    asked.timeout_ms = Some(90_000);
    let task = test.engine.submit(asked, None).await.unwrap().id.parse().unwrap();
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    test.clock.pass(90 * SECOND).await;
    assert!(matches!(worker.hears().await, mayfly_wire::worker::Down::Collect));
    worker.collected().await;
    assert_eq!(test.outcome(task).await, ("timeout".to_owned(), "not done within 1m 30s".to_owned()));
}

/// R35: the idle limit moves with every word, and fires once.
#[tokio::test]
async fn silence_of_claude_runs_out_and_its_words_put_it_off() {
    let mut test = TestEngine::start(|rules| rules.idle_timeout = 60 * SECOND).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    test.clock.asleep(60 * SECOND).await;
    test.clock.advance(50 * SECOND);
    worker.says("{}").await;
    // The watcher sleeps for what it knew first; then it looks again.
    test.clock.pass(10 * SECOND).await;
    test.clock.pass(50 * SECOND).await;
    assert!(matches!(worker.hears().await, mayfly_wire::worker::Down::Collect));
    worker.collected().await;
    let expected = ("idle-timeout".to_owned(), "nothing heard from claude for 1m".to_owned());
    assert_eq!(test.outcome(task).await, expected);
}

#[tokio::test]
async fn work_that_does_not_come_out_in_time_holds_nothing_up() {
    let mut test = TestEngine::start(|rules| rules.collect_max = 120 * SECOND).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    worker.ends("max-turns", Some("2 turns")).await;
    test.clock.pass(120 * SECOND).await;
    assert_eq!(test.outcome(task).await, ("max-turns".to_owned(), "2 turns".to_owned()));
    assert_eq!(test.task(task).await.result, None);
    assert_eq!(test.machines.left(), 0);
}

#[tokio::test]
async fn limits_count_on_through_a_restart() {
    let mut test = TestEngine::start(|rules| rules.timeout = 100 * SECOND).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let mut worker = machine.boot(&test.engine).await;
    worker.starts().await;
    test.clock.advance(70 * SECOND);
    drop(worker);
    test.restart().await;
    let mut worker = machine.boot(&test.engine).await;
    test.clock.pass(30 * SECOND).await;
    assert!(matches!(worker.hears().await, mayfly_wire::worker::Down::Collect));
    worker.collected().await;
    assert_eq!(test.outcome(task).await.0, "timeout");
}
