//! The door of each attempt: there before its machine, gone after it, and open again after a restart.

use std::time::Duration;

use mayfly_core::{Attempt, AttemptId};
use mayfly_engine::Doors as _;
use mayfly_testkit::{OnCreate, TestEngine, task};

use crate::{LONG, minutes, seconds};

const NOBODY: &str = "0193b2c4-0000-7000-8000-0123456789ab.1";
/// The first pause after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// G5: the same order as the machine's own: what was opened is closed, whatever comes between.
#[tokio::test]
async fn a_door_is_there_before_its_machine_and_goes_after_it() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.hold(true);
    let id = mayfly.submit(task("x")).await;
    mayfly.machines.until(|seen| seen.creates == 1).await;
    let open = vec![id.attempt(Attempt(1))];
    assert_eq!(mayfly.doors.open_now(), open);
    mayfly.machines.hold(false);
    mayfly.machines.destroys_unclear(1);
    let mut machine = mayfly.machines.next().await;
    assert_eq!(machine.spec.way_out, mayfly.doors.open(open[0]).unwrap());
    machine.succeeds(&mayfly.engine).await;
    mayfly.clock.sleeper_for(RETRY_FIRST).await;
    assert_eq!(mayfly.doors.open_now(), open, "the machine may still be there");
    mayfly.clock.advance(RETRY_FIRST);
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
    assert_eq!(mayfly.doors.list().unwrap(), []);
}

#[tokio::test]
async fn a_machine_that_was_refused_leaves_no_door() {
    let mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.on_create([OnCreate::Refused("no user namespaces: enable them")]);
    let id = mayfly.submit(task("x")).await;
    assert_eq!(mayfly.outcome(id).await.0, "refused");
    assert_eq!(mayfly.doors.list().unwrap(), []);
}

/// A full disk may be emptied.
#[tokio::test]
async fn a_door_that_cannot_be_opened_or_removed_is_tried_again() {
    let mut mayfly = TestEngine::start(|config| config.rules.launch_max = LONG).await;
    mayfly.doors.opens_fail(10);
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.clock.run(minutes(1), mayfly.machines.next()).await;
    assert_eq!(mayfly.machines.seen().creates, 1, "no machine without its door");
    mayfly.doors.closes_fail(2);
    machine.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.clock.run(seconds(1), mayfly.outcome(id)).await.0, "succeeded");
    assert_eq!(mayfly.doors.list().unwrap(), []);
}

/// R03: a worker that dials again finds its door, and a folder that is nobody's does not stay.
#[tokio::test]
async fn after_a_restart_the_doors_of_live_attempts_are_open_and_no_other_is_left() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    let nobody: AttemptId = NOBODY.parse().unwrap();
    mayfly.doors.put(nobody);
    mayfly.restart().await;
    let open = [id.attempt(Attempt(1))];
    assert_eq!((mayfly.doors.open_now(), mayfly.doors.list().unwrap()), (open.to_vec(), open.to_vec()));
}

#[tokio::test]
async fn a_door_that_cannot_be_opened_again_after_a_restart_is_tried_until_it_can() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    mayfly.doors.opens_fail(3);
    mayfly.restart().await;
    assert_eq!(mayfly.doors.open_now(), []);
    mayfly.clock.run(seconds(1), mayfly.doors.until_open(id.attempt(Attempt(1)))).await;
    machine.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
    assert_eq!(mayfly.doors.list().unwrap(), []);
}
