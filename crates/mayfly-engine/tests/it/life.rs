use mayfly_core::{Attempt, Outcome, TaskId};
use mayfly_engine::Engine;
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api;
use mayfly_wire::event::MayflyEvent::{self, *};
use mayfly_wire::worker::{Down, Report};

use crate::{at_once, minutes};

#[tokio::test]
async fn the_log_tells_each_step_of_a_task_that_succeeds() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("fix the flaky test\nplease")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    machine.starts().await;
    machine.says(r#"{"type":"result"}"#).await;
    machine.ends(Outcome::Succeeded).await;
    assert!(matches!(machine.told().await, Down::Collect));
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), None));

    let outcome = || api::Outcome { name: "succeeded".to_owned(), detail: None };
    let first = |event: MayflyEvent| (1, event);
    let expected = [
        (0, Queued),
        first(Launching { provider: "sim".to_owned() }),
        first(Running),
        first(Started),
        first(Ready { version: "2".to_owned(), model: "sonnet".to_owned() }),
        first(Collecting { outcome: outcome() }),
        first(Collected { result: api::Collected::default() }),
        first(Releasing),
        first(Finished { outcome: outcome() }),
    ];
    assert_eq!(mayfly.told(id).await, expected);

    let task = mayfly.task(id).await;
    assert_eq!((task.title.as_str(), task.attempt, task.last_seq), ("fix the flaky test", 1, 10));
    assert!(task.finished_at.is_some() && task.result == Some(api::Collected::default()));
    assert_eq!(mayfly.machines.left(), []);
    mayfly.all_finished().await;
}

#[tokio::test]
async fn a_worker_is_told_that_its_attempt_is_over_once_its_work_is_safe() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.succeeds(&mayfly.engine).await;
    assert!(matches!(machine.told().await, Down::Reject { .. }));
}

/// R38, G7: neither many tasks nor restarts in their midst make one machine too many.
#[tokio::test]
async fn never_more_than_allowed_are_alive_also_across_restarts() {
    let mut mayfly = TestEngine::start(at_once(4)).await;
    let mut tasks = Vec::new();
    for n in 0..50 {
        tasks.push(mayfly.submit(task(&format!("task {n}"))).await);
    }
    for n in 0..50 {
        let mut machine = mayfly.machines.next().await;
        machine.boot(&mayfly.engine).await;
        machine.starts().await;
        if n % 10 == 5 {
            mayfly.restart().await;
            machine.boot(&mayfly.engine).await;
        }
        machine.ends(Outcome::Succeeded).await;
        machine.collected().await;
    }
    mayfly.all_finished().await;
    for id in tasks {
        assert_eq!(mayfly.outcome(id).await.0, "succeeded");
    }
    let seen = mayfly.machines.seen();
    assert_eq!((seen.alive_most, seen.made, seen.alive), (4, 50, 0), "{seen:?}");
}

#[tokio::test]
async fn the_oldest_task_comes_first_and_keeps_its_place_when_its_machine_is_lost() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    let mut tasks: Vec<TaskId> = Vec::new();
    for n in 0..5 {
        tasks.push(mayfly.submit(task(&format!("task {n}"))).await);
    }
    let first = mayfly.machines.next().await;
    assert_eq!(first.attempt(), tasks[0].attempt(Attempt(1)));
    mayfly.clock.sleeper_for(minutes(1)).await;
    mayfly.clock.advance(minutes(1));
    for (n, id) in tasks.iter().enumerate() {
        let mut machine = mayfly.machines.next().await;
        assert_eq!(machine.attempt(), id.attempt(Attempt(if n == 0 { 2 } else { 1 })));
        machine.succeeds(&mayfly.engine).await;
    }
    mayfly.all_finished().await;
}

#[tokio::test]
async fn the_newest_tasks_are_listed_first() {
    let mayfly = TestEngine::start(at_once(1)).await;
    let (first, second) = (mayfly.submit(task("a")).await, mayfly.submit(task("b")).await);
    let listed: Vec<String> =
        mayfly.engine.tasks(crate::ALL).await.unwrap().into_iter().map(|task| task.id).collect();
    assert_eq!(listed, [second.to_string(), first.to_string()]);
}

/// One of several fates, by the task's place in the queue and its attempt.
async fn play(engine: Engine, mut machine: SimMachine, place: usize) {
    let attempt = machine.attempt();
    // Any of these may come after the attempt is over, which is part of the test.
    if machine.dial(&engine).await.is_err() {
        return;
    }
    match (place % 5, attempt.attempt.0) {
        (0, 1) => machine.vanish(),
        (1, _) => drop(tokio::join!(engine.cancel(attempt.task, false), say_all(&mut machine))),
        (2, _) => drop(tokio::join!(engine.cancel(attempt.task, true), say_all(&mut machine))),
        _ => say_all(&mut machine).await,
    }
    // Its link stays until the engine has heard all: a machine is not lost for want of one.
    while !matches!(machine.told().await, Down::Reject { .. }) {}
}

async fn say_all(machine: &mut SimMachine) {
    let ended = Report::Ended { outcome: "succeeded".to_owned(), detail: None };
    for report in [Report::Started, ended, Report::Collected(api::Collected::default())] {
        let record = machine.report(&report);
        if machine.send(vec![record]).await.is_err() {
            return;
        }
    }
}

/// G6, G7, R32: on several threads, with everything at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_fates_at_once_give_each_task_one_end() {
    let mut mayfly = TestEngine::start(at_once(7)).await;
    let mut tasks = Vec::new();
    for n in 0..60 {
        tasks.push(mayfly.submit(task(&format!("task {n}"))).await);
    }
    let mut unfinished = mayfly.engine.unfinished();
    loop {
        tokio::select! {
            machine = mayfly.machines.next() => {
                let place = tasks.iter().position(|id| *id == machine.attempt().task).unwrap();
                tokio::spawn(play(mayfly.engine.clone(), machine, place));
            }
            _ = unfinished.wait_for(|count| *count == 0) => break,
        }
    }
    for (place, id) in tasks.into_iter().enumerate() {
        let told = mayfly.told(id).await;
        let is_end = |event: &MayflyEvent| matches!(event, Finished { .. });
        assert_eq!(told.iter().filter(|(_, event)| is_end(event)).count(), 1, "{told:?}");
        assert!(is_end(&told.last().unwrap().1), "{told:?}");
        let (outcome, _) = mayfly.outcome(id).await;
        let may = if matches!(place % 5, 1 | 2) { &["cancelled", "succeeded"][..] } else { &["succeeded"] };
        assert!(may.contains(&outcome.as_str()), "{place}: {outcome}");
    }
    let seen = mayfly.machines.seen();
    assert_eq!((seen.alive, mayfly.machines.left()), (0, vec![]));
    assert!(seen.alive_most <= 7, "{seen:?}");
}
