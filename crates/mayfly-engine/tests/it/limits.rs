use std::time::Duration;

use mayfly_core::{Outcome, TaskId};
use mayfly_testkit::{ManualClock, SimMachine, TestEngine, task};
use mayfly_wire::api::CreateTask;
use mayfly_wire::worker::{Down, Source};

use crate::{minutes, seconds};

async fn started(mayfly: &mut TestEngine, task: CreateTask) -> (TaskId, SimMachine) {
    let id = mayfly.submit(task).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    machine.starts().await;
    (id, machine)
}

async fn ends_with(mayfly: &TestEngine, id: TaskId, machine: &mut SimMachine, name: &str, words: &str) {
    assert!(matches!(machine.told().await, Down::Collect));
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await, (name.to_owned(), Some(words.to_owned())));
    assert_eq!(mayfly.machines.left(), []);
}

/// S60
#[tokio::test]
async fn a_task_that_takes_too_long_brings_its_work_out() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let task = CreateTask { timeout_ms: Some(90_000), ..task("x") };
    let (id, mut machine) = started(&mut mayfly, task).await;
    mayfly.clock.sleeper_for(seconds(90)).await;
    mayfly.clock.advance(seconds(89));
    machine.says("busy").await;
    assert_eq!(mayfly.task(id).await.state, "running");
    mayfly.clock.sleeper_for(seconds(1)).await;
    mayfly.clock.advance(seconds(1));
    ends_with(&mayfly, id, &mut machine, "timeout", "not done within 1m 30s").await;
}

/// S60, R35
#[tokio::test]
async fn a_task_whose_claude_is_silent_brings_its_work_out() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = started(&mut mayfly, task("x")).await;
    mayfly.clock.sleeper_for(minutes(10)).await;
    mayfly.clock.advance(minutes(10));
    ends_with(&mayfly, id, &mut machine, "idle-timeout", "nothing heard from claude for 10m").await;
}

/// A set-up command that prints nothing for long is as good as another.
#[tokio::test]
async fn silence_before_claude_was_started_is_not_held_against_it() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    mayfly.clock.sleeper_for(minutes(30)).await;
    mayfly.clock.advance(minutes(15));
    machine.starts().await;
    mayfly.clock.sleeper_for(minutes(10)).await;
    assert_eq!(mayfly.task(id).await.state, "running");
    mayfly.clock.advance(minutes(10));
    ends_with(&mayfly, id, &mut machine, "idle-timeout", "nothing heard from claude for 10m").await;
}

/// R35
#[tokio::test]
async fn what_a_machine_says_moves_the_limit_of_silence() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let task = CreateTask { idle_timeout_ms: Some(300_000), ..task("x") };
    let (id, mut machine) = started(&mut mayfly, task).await;
    mayfly.clock.sleeper_for(minutes(5)).await;
    mayfly.clock.advance(minutes(4));
    machine.says("busy").await;
    mayfly.clock.advance(minutes(1));
    mayfly.clock.sleeper_for(minutes(4)).await;
    assert_eq!(mayfly.task(id).await.state, "running");
    mayfly.clock.advance(minutes(4));
    ends_with(&mayfly, id, &mut machine, "idle-timeout", "nothing heard from claude for 5m").await;
}

/// R07: while the link is cut nothing can be heard, and `claude` may be as busy as ever.
#[tokio::test]
async fn silence_without_a_link_is_not_held_against_claude() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = started(&mut mayfly, task("x")).await;
    mayfly.clock.sleeper_for(minutes(10)).await;
    machine.unplug();
    mayfly
        .clock
        .sleepers(|now, deadlines| !deadlines.contains(&(now + jiff::SignedDuration::from_mins(10))))
        .await;
    mayfly.clock.advance(minutes(15));
    machine.boot(&mayfly.engine).await;
    mayfly.clock.sleeper_for(minutes(10)).await;
    assert_eq!(mayfly.task(id).await.state, "running");
    mayfly.clock.advance(minutes(10));
    ends_with(&mayfly, id, &mut machine, "idle-timeout", "nothing heard from claude for 10m").await;
}

#[tokio::test]
async fn work_that_is_not_brought_out_in_time_is_left_behind_and_said_so() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = started(&mut mayfly, task("x")).await;
    machine.ends(Outcome::Succeeded).await;
    mayfly.clock.sleeper_for(minutes(2)).await;
    mayfly.clock.advance(minutes(2));
    let words = "its work was not brought out within 2m";
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), Some(words.to_owned())));
    assert_eq!((mayfly.machines.left(), mayfly.task(id).await.result), (vec![], None));
}

/// G11: the reason of the ending stays, and what became of the work is told beside it.
#[tokio::test]
async fn work_left_behind_is_told_of_beside_the_reason_of_the_ending() {
    type Lose = fn(&mut SimMachine, &ManualClock);
    let lose: [(Lose, &str); 2] = [
        (|_, clock| clock.advance(minutes(2)), "its work was not brought out within 2m"),
        (|machine, _| machine.vanish(), "its machine is gone"),
    ];
    for (lose, words) in lose {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = started(&mut mayfly, task("x")).await;
        mayfly.clock.sleeper_for(minutes(10)).await;
        mayfly.clock.advance(minutes(10));
        mayfly.until_state(id, "collecting").await;
        mayfly.clock.sleeper_for(minutes(2)).await;
        lose(&mut machine, &mayfly.clock);
        let reason = "nothing heard from claude for 10m";
        assert_eq!(mayfly.outcome(id).await, ("idle-timeout".to_owned(), Some(reason.to_owned())));
        assert_eq!(
            mayfly.warnings(id).await,
            [format!("the work in the machine was not brought out: {words}")]
        );
    }
}

/// What is stored already says nothing about now.
#[tokio::test]
async fn records_that_come_again_do_not_move_the_limit_of_silence() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = started(&mut mayfly, task("x")).await;
    let said = machine.record(Source::Claude, "hello");
    machine.send(vec![said.clone()]).await.unwrap();
    mayfly.clock.sleeper_for(minutes(10)).await;
    mayfly.clock.advance(minutes(9));
    machine.send(vec![said]).await.unwrap();
    machine.send(Vec::new()).await.unwrap();
    mayfly.clock.advance(minutes(1));
    tokio::select! {
        collecting = mayfly.until_state(id, "collecting") => drop(collecting),
        () = mayfly.clock.sleeper_for(minutes(9)) => panic!("the limit was moved"),
    }
    ends_with(&mayfly, id, &mut machine, "idle-timeout", "nothing heard from claude for 10m").await;
}

/// An orchestrator's own words on limits may be absurd; those of a task have a bound.
#[tokio::test]
async fn limits_beyond_the_end_of_time_never_run_out() {
    let mut mayfly = TestEngine::start(|config| {
        (config.rules.timeout, config.rules.idle_timeout) = (Duration::MAX, Duration::MAX);
    })
    .await;
    let absurd = CreateTask { timeout_ms: Some(u64::MAX), ..task("x") };
    let refused = mayfly.engine.submit(absurd, None).await.unwrap_err().to_string();
    assert!(refused.contains("`timeout_ms` must be at most 604800000"), "{refused}");
    let (id, mut machine) = started(&mut mayfly, task("x")).await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
}
