//! Who comes next, and who comes again.

use mayfly_core::{Attempt, Failure, Outcome, TaskId};
use mayfly_engine::SubmitError;
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api::CreateTask;
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::Down;
use tokio::task::JoinSet;

use crate::at_once;

fn retried(retries: u32) -> CreateTask {
    CreateTask { retries, ..task("x") }
}

/// Runs the next machine until `claude` ends so.
async fn ends(mayfly: &mut TestEngine, outcome: Outcome) -> SimMachine {
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    machine.starts().await;
    machine.ends(outcome).await;
    assert!(matches!(machine.told().await, Down::Collect));
    machine
}

async fn requeued(mayfly: &TestEngine, id: TaskId) -> Vec<(u32, String)> {
    let told = mayfly.told(id).await.into_iter();
    let requeued = told.filter_map(|(attempt, event)| match event {
        MayflyEvent::Requeued { detail } => Some((attempt, detail)),
        _ => None,
    });
    requeued.collect()
}

#[tokio::test]
async fn of_those_that_wait_the_highest_priority_comes_first_and_then_the_oldest() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    mayfly.submit(task("first")).await;
    let mut running = mayfly.machines.next().await;
    let priorities = [0, -1, 5, 5, 0];
    let mut waiting = Vec::new();
    for priority in priorities {
        waiting.push(mayfly.submit(CreateTask { priority, ..task("x") }).await);
    }
    for index in [2, 3, 0, 4, 1] {
        running.succeeds(&mayfly.engine).await;
        running = mayfly.machines.next().await;
        assert_eq!(running.attempt().task, waiting[index]);
    }
}

/// G2: as often as was asked for, and the last attempt decides.
#[tokio::test]
async fn a_task_that_fails_is_tried_again_if_its_owner_asked_for_it() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(retried(2)).await;
    for _ in 0..2 {
        ends(&mut mayfly, Outcome::Failed(Failure::Api)).await.collected().await;
    }
    let mut last = ends(&mut mayfly, Outcome::Failed(Failure::Killed)).await;
    assert_eq!(last.attempt(), id.attempt(Attempt(3)));
    last.collected().await;
    assert_eq!(mayfly.outcome(id).await, ("killed".to_owned(), None));
    let words = |attempt| (attempt, "api-error".to_owned());
    assert_eq!(requeued(&mayfly, id).await, [words(1), words(2)]);
    assert_eq!(mayfly.task(id).await.result_attempt, Some(3));
}

/// A machine that is lost after `claude` has started is a failure like any other.
#[tokio::test]
async fn a_lost_machine_is_followed_by_another_only_if_its_owner_asked_for_it() {
    for retries in [0, 1] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let id = mayfly.submit(retried(retries)).await;
        let mut machine = mayfly.machines.next().await;
        machine.boot(&mayfly.engine).await;
        machine.starts().await;
        machine.vanish();
        if retries == 1 {
            mayfly.machines.next().await.succeeds(&mayfly.engine).await;
        }
        let outcome = if retries == 1 { "succeeded" } else { "lost" };
        assert_eq!(mayfly.outcome(id).await.0, outcome);
    }
}

/// What would end the same way is not tried again.
#[tokio::test]
async fn a_failure_that_cannot_pass_is_final() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(retried(3)).await;
    ends(&mut mayfly, Outcome::Failed(Failure::MaxTurns)).await.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "max-turns");
    assert_eq!(mayfly.machines.seen().made, 1);
}

/// R32: while the work of an attempt is brought out, and while the task waits for the next.
#[tokio::test]
async fn a_cancelled_task_is_not_tried_again() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    let id = mayfly.submit(retried(3)).await;
    let mut machine = ends(&mut mayfly, Outcome::Failed(Failure::Api)).await;
    mayfly.engine.cancel(id, false).await.unwrap();
    machine.collected().await;
    let cancelled = ("cancelled".to_owned(), Some("cancelled by its owner".to_owned()));
    assert_eq!(mayfly.outcome(id).await, cancelled);

    let id = mayfly.submit(retried(3)).await;
    let mut machine = ends(&mut mayfly, Outcome::Failed(Failure::Api)).await;
    mayfly.submit(CreateTask { priority: 1, ..task("in between") }).await;
    machine.collected().await;
    mayfly.until(id, |task| task.state == "queued" && task.attempt == 1).await;
    mayfly.engine.cancel(id, false).await.unwrap();
    assert_eq!(mayfly.outcome(id).await, cancelled);
}

/// G6: what is over stays so; its like is a new task.
#[tokio::test]
async fn a_task_that_is_over_can_be_asked_for_again_as_a_new_one() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(CreateTask { max_turns: Some(7), ..task("fix it") }).await;
    let again = mayfly.engine.retry(id, None, None).await;
    assert!(matches!(again, Err(SubmitError::NotOver(_))), "{again:?}");
    ends(&mut mayfly, Outcome::Failed(Failure::Api)).await.collected().await;
    mayfly.outcome(id).await;
    let again = mayfly.engine.retry(id, None, None).await.unwrap().unwrap();
    assert_ne!(again.id, id.to_string());
    let mut machine = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = machine.boot(&mayfly.engine).await else { panic!("no welcome") };
    assert_eq!((order.prompt.as_str(), order.max_turns), ("fix it", Some(7)));
    assert_eq!(mayfly.task(id).await.outcome.unwrap().name, "api-error");
    let nobody = "0193b2c4-0000-7000-8000-0123456789ab".parse().unwrap();
    assert!(mayfly.engine.retry(nobody, None, None).await.unwrap().is_none());
}

/// G7, R38: of a long queue never more are alive, whatever ends and starts meanwhile, and whoever leaves it.
#[tokio::test]
async fn of_ten_thousand_tasks_never_more_than_five_are_alive() {
    const TASKS: usize = 10_000;
    const RUN: usize = 2000;
    let mut mayfly = TestEngine::start(|_| {}).await;
    let submits = (0..TASKS).map(|n| {
        let (engine, priority) = (mayfly.engine.clone(), i32::try_from(n % 7).unwrap());
        tokio::spawn(async move { engine.submit(CreateTask { priority, ..task("x") }, None).await.unwrap() })
    });
    let mut ids: Vec<TaskId> = Vec::new();
    for submit in submits.collect::<Vec<_>>() {
        ids.push(submit.await.unwrap().id.parse().unwrap());
    }
    let mut running = JoinSet::new();
    for n in 1..=RUN {
        let (mut machine, engine) = (mayfly.machines.next().await, mayfly.engine.clone());
        running.spawn(async move { machine.succeeds(&engine).await });
        if n % 100 == 0 {
            while running.join_next().await.is_some() {}
            // By now five others have their machines, and nobody has heard of them.
            mayfly.restart().await;
        }
    }
    let cancels = ids.into_iter().map(|id| {
        let engine = mayfly.engine.clone();
        tokio::spawn(async move { engine.cancel(id, true).await.unwrap().unwrap() })
    });
    for cancel in cancels.collect::<Vec<_>>() {
        cancel.await.unwrap();
    }
    mayfly.all_finished().await;
    let seen = mayfly.machines.seen();
    assert_eq!((seen.alive_most, seen.alive, mayfly.machines.left()), (5, 0, vec![]));
    assert!(seen.made > RUN, "{seen:?}");
}
