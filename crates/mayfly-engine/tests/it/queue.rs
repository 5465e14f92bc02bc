//! Who comes next, and who comes again.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use mayfly_core::{Attempt, Failure, Outcome, TaskId};
use mayfly_engine::{Clock as _, SubmitError};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api::{CreateTask, Retry};
use mayfly_wire::event::{Event, MayflyEvent};
use mayfly_wire::worker::Down;
use tokio::task::JoinSet;

use crate::{at_once, minutes, seconds};

fn anew() -> Retry {
    Retry { credential: task("x").credential, ..Retry::default() }
}

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

/// What was told of the attempts that another followed, with the pause in seconds.
async fn requeued(mayfly: &TestEngine, id: TaskId) -> Vec<(u32, String, i64)> {
    let log = mayfly.log(id, 0).await;
    let events = log.lines().map(|line| Event::parse(line).expect("an event"));
    let requeued = events.filter_map(|event| match event.event? {
        MayflyEvent::Requeued { detail, due_at } => {
            let pause = due_at.map_or(0, |due| due.duration_since(event.at).as_secs());
            Some((event.attempt, detail, pause))
        }
        _ => None,
    });
    requeued.collect()
}

/// A task whose attempt has failed, and that waits for `pause` from then on.
async fn put_off(mayfly: &mut TestEngine, retries: u32, pause: Duration) -> TaskId {
    let id = mayfly.submit(retried(retries)).await;
    ends(mayfly, Outcome::Failed(Failure::Api)).await.collected().await;
    mayfly.until_state(id, "queued").await;
    mayfly.clock.sleeper_for(pause).await;
    id
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

/// G2: as often as was asked for, later each time, and the last attempt decides.
#[tokio::test]
async fn a_task_that_fails_is_tried_again_after_growing_pauses_if_its_owner_asked_for_it() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = put_off(&mut mayfly, 2, seconds(5)).await;
    let waits = mayfly.task(id).await;
    assert_eq!((waits.attempt, waits.due_at), (1, Some(mayfly.clock.now() + seconds(5))));
    mayfly.clock.advance(seconds(4));
    mayfly.clock.sleeper_for(seconds(1)).await;
    assert_eq!(mayfly.machines.seen().made, 1);
    mayfly.clock.advance(seconds(1));
    ends(&mut mayfly, Outcome::Failed(Failure::Api)).await.collected().await;
    mayfly.clock.sleeper_for(seconds(10)).await;
    mayfly.clock.advance(seconds(10));
    let mut last = ends(&mut mayfly, Outcome::Failed(Failure::Killed)).await;
    assert_eq!((last.attempt(), mayfly.task(id).await.due_at), (id.attempt(Attempt(3)), None));
    last.collected().await;
    assert_eq!(mayfly.outcome(id).await, ("killed".to_owned(), None));
    let told = |attempt, pause| (attempt, "api-error".to_owned(), pause);
    assert_eq!(requeued(&mayfly, id).await, [told(1, 5), told(2, 10)]);
    assert_eq!(mayfly.task(id).await.result_attempt, Some(3));
}

/// A slot is not kept for it, and neither does its priority hold up others.
#[tokio::test]
async fn who_waits_to_be_tried_again_lets_others_go_first() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    let first = mayfly.submit(CreateTask { priority: 5, ..retried(1) }).await;
    let second = mayfly.submit(task("y")).await;
    ends(&mut mayfly, Outcome::Failed(Failure::Api)).await.collected().await;
    let mut machine = mayfly.machines.next().await;
    assert_eq!(machine.attempt().task, second);
    mayfly.clock.advance(seconds(5));
    machine.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.machines.next().await.attempt(), first.attempt(Attempt(2)));
}

/// R01: the pause is neither begun anew nor forgotten.
#[tokio::test]
async fn a_pause_goes_on_whoever_ends_meanwhile() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = put_off(&mut mayfly, 1, seconds(5)).await;
    mayfly.restart_after(seconds(3)).await;
    mayfly.clock.sleeper_for(seconds(2)).await;
    assert_eq!((mayfly.machines.seen().made, mayfly.task(id).await.state.as_str()), (1, "queued"));
    mayfly.restart_after(seconds(30)).await;
    mayfly.machines.next().await.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
}

/// R32
#[tokio::test]
async fn a_task_that_waits_to_be_tried_again_can_be_cancelled() {
    for force in [false, true] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let id = put_off(&mut mayfly, 1, seconds(5)).await;
        mayfly.engine.cancel(id, force).await.unwrap();
        let cancelled = ("cancelled".to_owned(), Some("cancelled by its owner".to_owned()));
        assert_eq!(mayfly.outcome(id).await, cancelled);
        assert_eq!((mayfly.task(id).await.attempt, mayfly.task(id).await.due_at), (1, None));
        mayfly.clock.advance(minutes(10));
        mayfly.restart().await;
        assert_eq!((mayfly.machines.seen().made, mayfly.machines.left()), (1, vec![]));
    }
}

#[tokio::test]
async fn a_task_that_was_cancelled_in_the_queue_had_no_attempt() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    mayfly.submit(task("x")).await;
    let _running = mayfly.machines.next().await;
    let id = mayfly.submit(task("y")).await;
    assert_eq!(mayfly.task(id).await.attempt, 0);
    mayfly.engine.cancel(id, false).await.unwrap();
    let task = mayfly.task(id).await;
    assert_eq!((task.attempt, task.state.as_str()), (0, "finished"));
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
            mayfly.clock.sleeper_for(seconds(5)).await;
            mayfly.clock.advance(seconds(5));
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
    ends(&mut mayfly, Outcome::Failed(Failure::MaxTokens)).await.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "max-tokens");
    assert_eq!(mayfly.machines.seen().made, 1);
}

/// R32: while the work of an attempt is brought out.
#[tokio::test]
async fn a_cancelled_task_is_not_tried_again() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    let id = mayfly.submit(retried(3)).await;
    let mut machine = ends(&mut mayfly, Outcome::Failed(Failure::Api)).await;
    mayfly.engine.cancel(id, false).await.unwrap();
    machine.collected().await;
    let cancelled = ("cancelled".to_owned(), Some("cancelled by its owner".to_owned()));
    assert_eq!(mayfly.outcome(id).await, cancelled);
}

/// G6: what is over stays so; its like is a new task.
#[tokio::test]
async fn a_task_that_is_over_can_be_asked_for_again_as_a_new_one() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(CreateTask { max_turns: Some(7), ..task("fix it") }).await;
    let again = mayfly.engine.retry(id, anew(), None).await;
    assert!(matches!(again, Err(SubmitError::NotOver(_))), "{again:?}");
    ends(&mut mayfly, Outcome::Failed(Failure::Api)).await.collected().await;
    mayfly.outcome(id).await;
    let again = mayfly.engine.retry(id, anew(), None).await.unwrap().unwrap();
    assert_ne!(again.id, id.to_string());
    let mut machine = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = machine.boot(&mayfly.engine).await else { panic!("no welcome") };
    assert_eq!((order.prompt.as_str(), order.max_turns), ("fix it", Some(7)));
    assert_eq!(mayfly.task(id).await.outcome.unwrap().name, "api-error");
    let nobody = "0193b2c4-0000-7000-8000-0123456789ab".parse().unwrap();
    assert!(mayfly.engine.retry(nobody, anew(), None).await.unwrap().is_none());
}

/// G7, R38: of a long queue never more are alive, whatever ends and starts meanwhile, and whoever leaves it; and nobody
/// overtakes one of a higher priority, or an older one of the same.
#[tokio::test]
async fn of_ten_thousand_tasks_never_more_than_five_are_alive() {
    const TASKS: usize = 10_000;
    /// Those that run, of more than one priority. The others are cancelled in the end.
    const RUN: usize = 2500;
    const SLOTS: usize = 5;
    let mut mayfly = TestEngine::start(|_| {}).await;
    let submits = (0..TASKS).map(|n| {
        let (engine, priority) = (mayfly.engine.clone(), priority_of(n));
        tokio::spawn(async move { engine.submit(CreateTask { priority, ..task("x") }, None).await.unwrap() })
    });
    let mut ids: Vec<TaskId> = Vec::new();
    for submit in submits.collect::<Vec<_>>() {
        ids.push(submit.await.unwrap().id.parse().unwrap());
    }
    let mut order: Vec<(i32, TaskId)> = ids.iter().enumerate().map(|(n, id)| (priority_of(n), *id)).collect();
    // The first of all have begun before the others came.
    order.sort_unstable_by_key(|(priority, id)| (Reverse(*priority), *id));
    let places: HashMap<TaskId, usize> =
        order.iter().enumerate().map(|(place, (_, id))| (*id, place)).collect();
    let mut running = JoinSet::new();
    for n in 0..RUN {
        let (mut machine, engine) = (mayfly.machines.next().await, mayfly.engine.clone());
        // Whoever comes out of turn has had a slot before his betters came, or has one beside them.
        let place = places[&machine.attempt().task];
        assert!(n < SLOTS || place < n + SLOTS, "{place} comes as number {n}");
        running.spawn(async move { machine.succeeds(&engine).await });
        if n % 250 == 249 {
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

fn priority_of(n: usize) -> i32 {
    i32::try_from(n % 7).unwrap()
}
