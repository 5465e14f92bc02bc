//! G2, G5, R01 to R03: an engine that ends in any state leaves enough for the next one to go on.

use mayfly_core::{Attempt, Outcome, TaskId};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::worker::Down;
use tokio::task::JoinSet;

use crate::{LOOK_FIRST, at_once, minutes, seconds};

async fn running(mayfly: &mut TestEngine) -> (TaskId, SimMachine) {
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    (id, machine)
}

async fn assert_one_machine_and_success(mayfly: &TestEngine, id: TaskId) {
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), None));
    mayfly.all_finished().await;
    let seen = mayfly.machines.seen();
    assert_eq!((seen.made, seen.alive, mayfly.machines.left()), (1, 0, vec![]));
}

/// R25, G10: an engine that is about to stop.
#[tokio::test]
async fn a_drain_ends_with_the_last_machine_and_claims_nothing_more() {
    let mut mayfly = TestEngine::start(at_once(2)).await;
    let (first, mut machine) = running(&mut mayfly).await;
    mayfly.engine.drain().await;
    let waiting = mayfly.submit(task("y")).await;
    assert_eq!(mayfly.engine.alive().await.expect("a store that works"), 1);
    let (drained, ()) = tokio::join!(mayfly.engine.drained(), machine.succeeds(&mayfly.engine));
    drained.expect("a store that works");
    assert_eq!(mayfly.outcome(first).await.0, "succeeded");
    assert_eq!((mayfly.machines.seen().made, mayfly.machines.seen().alive), (1, 0));
    assert_eq!(mayfly.task(waiting).await.state, "queued");
    mayfly.restart().await;
    assert_eq!(mayfly.machines.next().await.attempt(), waiting.attempt(Attempt(1)));
}

#[tokio::test]
async fn a_waiting_task_waits_on() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    let (first, mut machine) = running(&mut mayfly).await;
    let waiting = mayfly.submit(task("y")).await;
    mayfly.restart().await;
    assert_eq!(*mayfly.engine.unfinished().borrow(), 2);
    machine.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(first).await.0, "succeeded");
    assert_eq!(mayfly.machines.next().await.attempt(), waiting.attempt(Attempt(1)));
}

/// R37: every machine and every reader is there again after a restart, and each goes on where it was.
#[tokio::test]
async fn a_hundred_machines_and_their_readers_go_on_after_a_restart() {
    const MACHINES: u32 = 100;
    let mut mayfly = TestEngine::start(at_once(MACHINES)).await;
    let mut machines = Vec::new();
    for _ in 0..MACHINES {
        mayfly.submit(task("x")).await;
        let mut machine = mayfly.machines.next().await;
        machine.boot(&mayfly.engine).await;
        machine.starts().await;
        machines.push(machine);
    }
    let mut heads = Vec::new();
    for machine in &machines {
        heads.push(mayfly.task(machine.attempt().task).await.last_seq);
    }
    mayfly.restart().await;
    let mut readers = JoinSet::new();
    for (machine, head) in machines.iter().zip(heads) {
        let reader = mayfly.engine.events(machine.attempt().task, head, true).await;
        let mut reader = reader.expect("a store that works").expect("a task that is there");
        readers.spawn(async move {
            let (mut next, mut events) = (head + 1, 0);
            while let Some(run) = reader.next().await.expect("a store that works") {
                assert_eq!(run.first_seq, next);
                events += run.last_seq + 1 - run.first_seq;
                next = run.last_seq + 1;
            }
            events
        });
    }
    for machine in &mut machines {
        machine.boot(&mayfly.engine).await;
        machine.says("{}").await;
        machine.ends(Outcome::Succeeded).await;
        machine.collected().await;
    }
    // The line, `collecting`, `collected`, `releasing` and `finished`.
    assert_eq!(readers.join_all().await, vec![5; machines.len()]);
    mayfly.all_finished().await;
    let seen = mayfly.machines.seen();
    assert_eq!((seen.made, seen.alive, mayfly.machines.left()), (machines.len(), 0, vec![]));
}

/// R02: the intent is stored before the machine is asked for.
#[tokio::test]
async fn a_machine_that_was_being_asked_for_is_asked_for_again() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.hold(true);
    let id = mayfly.submit(task("x")).await;
    mayfly.machines.until(|seen| seen.creates == 1).await;
    mayfly.restart().await;
    mayfly.machines.until(|seen| seen.creates == 2).await;
    mayfly.machines.hold(false);
    mayfly.machines.next().await.succeeds(&mayfly.engine).await;
    assert_one_machine_and_success(&mayfly, id).await;
}

#[tokio::test]
async fn a_machine_that_was_made_is_waited_for() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    mayfly.restart().await;
    machine.succeeds(&mayfly.engine).await;
    assert_one_machine_and_success(&mayfly, id).await;
}

/// It could not be heard while there was no engine.
#[tokio::test]
async fn a_machine_that_was_made_long_ago_still_has_its_time_to_say_hello() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    mayfly.restart_after(minutes(10)).await;
    mayfly.clock.sleeper_for(minutes(1)).await;
    machine.succeeds(&mayfly.engine).await;
    assert_one_machine_and_success(&mayfly, id).await;
}

/// R06, R02: the next engine need not wait for a hello that cannot come.
#[tokio::test]
async fn a_machine_that_ended_unheard_while_nobody_looked_is_made_anew() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    // By now its making is known to be over.
    mayfly.clock.sleeper_for(LOOK_FIRST).await;
    mayfly.engine.stop().await;
    machine.vanish();
    mayfly.restart().await;
    mayfly.clock.sleeper_for(LOOK_FIRST).await;
    mayfly.clock.advance(LOOK_FIRST);
    let mut second = mayfly.machines.next().await;
    assert_eq!(second.attempt(), id.attempt(Attempt(2)));
    second.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), None));
}

/// R03: the worker dials again, and goes on where it was.
#[tokio::test]
async fn a_running_worker_is_adopted() {
    for started in [false, true] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = running(&mut mayfly).await;
        machine.says("a").await;
        if started {
            machine.starts().await;
        }
        let log = mayfly.log(id, 0).await;
        mayfly.restart_after(minutes(5)).await;
        let sent = machine.sent;
        let welcome = machine.boot(&mayfly.engine).await;
        assert!(matches!(welcome, Down::Welcome { stored, .. } if stored == sent), "{welcome:?}");
        assert_eq!(mayfly.log(id, 0).await, log, "the same bytes, and no word about the restart");
        machine.ends(Outcome::Succeeded).await;
        machine.collected().await;
        assert_one_machine_and_success(&mayfly, id).await;
    }
}

/// R07: longer than the longest silence allowed to `claude`, which was not silent.
#[tokio::test]
async fn a_worker_that_could_not_be_heard_is_not_held_to_have_been_silent() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    mayfly.restart_after(minutes(20)).await;
    machine.boot(&mayfly.engine).await;
    mayfly.clock.sleeper_for(minutes(10)).await;
    machine.says("as busy as ever").await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    assert_one_machine_and_success(&mayfly, id).await;
}

/// The whole run has one clock, which goes on.
#[tokio::test]
async fn the_limit_of_the_whole_run_is_not_moved_by_a_restart() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    mayfly.restart_after(minutes(29)).await;
    machine.boot(&mayfly.engine).await;
    mayfly.clock.sleeper_for(minutes(1)).await;
    mayfly.clock.advance(minutes(1));
    assert!(matches!(machine.told().await, Down::Collect));
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "timeout");
}

/// R06
#[tokio::test]
async fn a_machine_that_went_while_nobody_looked_is_lost() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    mayfly.engine.stop().await;
    machine.vanish();
    mayfly.restart().await;
    assert_eq!(mayfly.outcome(id).await.0, "lost");
    assert_eq!(mayfly.machines.seen().made, 1);
}

/// R06: and is followed by another if `claude` had not started.
#[tokio::test]
async fn a_seeding_machine_that_went_while_nobody_looked_is_made_anew() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    mayfly.engine.stop().await;
    machine.vanish();
    mayfly.restart().await;
    let mut second = mayfly.machines.next().await;
    assert_eq!(second.attempt(), id.attempt(Attempt(2)));
    second.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
}

/// G11: the outcome is kept, and the work still has its time to be brought out.
#[tokio::test]
async fn work_that_was_being_brought_out_still_is() {
    for away in [seconds(1), minutes(30)] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = running(&mut mayfly).await;
        machine.starts().await;
        machine.ends(Outcome::Succeeded).await;
        mayfly.restart_after(away).await;
        mayfly.clock.sleeper_for(minutes(2)).await;
        machine.boot(&mayfly.engine).await;
        assert!(matches!(machine.told().await, Down::Collect));
        machine.collected().await;
        assert_one_machine_and_success(&mayfly, id).await;
    }
}

/// R30
#[tokio::test]
async fn a_machine_that_was_being_unmade_is_unmade() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.destroys_unclear(1);
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.machines.until(|seen| seen.destroys == 1).await;
    assert_eq!(mayfly.task(id).await.state, "releasing");
    mayfly.restart().await;
    assert_one_machine_and_success(&mayfly, id).await;
    assert_eq!(mayfly.machines.seen().destroys, 2);
}

#[tokio::test]
async fn a_lost_attempt_that_was_being_unmade_is_still_followed_by_another() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.destroys_unclear(1);
    let (id, mut machine) = running(&mut mayfly).await;
    machine.vanish();
    mayfly.machines.until(|seen| seen.destroys == 1).await;
    mayfly.restart().await;
    assert_eq!(mayfly.machines.next().await.attempt(), id.attempt(Attempt(2)));
}

#[tokio::test]
async fn a_finished_task_stays_as_it_is() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.outcome(id).await;
    let (task, log) = (mayfly.task(id).await, mayfly.log(id, 0).await);
    mayfly.restart().await;
    assert_eq!((mayfly.task(id).await, mayfly.log(id, 0).await), (task, log));
    assert_eq!(*mayfly.engine.unfinished().borrow(), 0);
}
