use std::num::NonZeroU32;

use mayfly_core::{Outcome, TaskId};
use mayfly_testkit::{OnCreate, SimMachine, TestEngine, task};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::Down;

use crate::{at_once, leave};

const WORDS: &str = "cancelled by its owner";

async fn cancel(mayfly: &TestEngine, id: TaskId, force: bool) -> String {
    mayfly.engine.cancel(id, force).await.unwrap().unwrap().state
}

/// How often the log says that the task is over; and nothing may follow it.
async fn ends(mayfly: &TestEngine, id: TaskId) -> usize {
    let told = mayfly.told(id).await;
    assert!(matches!(told.last(), Some((_, MayflyEvent::Finished { .. }))), "{told:?}");
    told.iter().filter(|(_, event)| matches!(event, MayflyEvent::Finished { .. })).count()
}

async fn running(mayfly: &mut TestEngine) -> (TaskId, SimMachine) {
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    (id, machine)
}

/// R32
#[tokio::test]
async fn a_waiting_task_is_over_at_once_and_never_gets_a_machine() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    let (_, mut machine) = running(&mut mayfly).await;
    let waiting = mayfly.submit(task("y")).await;
    assert_eq!(cancel(&mayfly, waiting, false).await, "finished");
    assert_eq!(cancel(&mayfly, waiting, true).await, "finished");
    assert_eq!(mayfly.outcome(waiting).await, ("cancelled".to_owned(), Some(WORDS.to_owned())));
    assert_eq!(ends(&mayfly, waiting).await, 1);
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.all_finished().await;
    assert_eq!(mayfly.machines.seen().made, 1);
}

/// R32
#[tokio::test]
async fn a_task_whose_machine_is_being_made_ends_once_that_is_answered() {
    for force in [false, true] {
        let mayfly = TestEngine::start(|_| {}).await;
        mayfly.machines.hold(true);
        let id = mayfly.submit(task("x")).await;
        mayfly.machines.until(|seen| seen.creates == 1).await;
        assert_eq!(cancel(&mayfly, id, force).await, "releasing");
        assert_eq!(cancel(&mayfly, id, force).await, "releasing");
        mayfly.machines.hold(false);
        assert_eq!(mayfly.outcome(id).await, ("cancelled".to_owned(), Some(WORDS.to_owned())));
        assert_eq!((mayfly.machines.left(), ends(&mayfly, id).await), (vec![], 1));
    }
}

/// R32: the pause between two tries is not waited for.
#[tokio::test]
async fn a_task_whose_machine_cannot_be_made_ends_at_once() {
    let mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.on_create(vec![OnCreate::Unclear; 9]);
    let id = mayfly.submit(task("x")).await;
    mayfly.clock.sleeper_for(std::time::Duration::from_millis(100)).await;
    cancel(&mayfly, id, false).await;
    assert_eq!(mayfly.outcome(id).await.0, "cancelled");
    assert_eq!(mayfly.machines.seen().creates, 1);
}

/// G11: what was not brought out is said, whether the owner insisted or the machine went.
#[tokio::test]
async fn work_that_stays_in_the_machine_is_told_of() {
    type Lose = fn(&mut SimMachine);
    let lose: [(Option<Lose>, &str, &str); 2] =
        [(None, "cancelled", WORDS), (Some(SimMachine::vanish), "lost", "its machine is gone")];
    for (lose, name, why) in lose {
        for started in [false, true] {
            let mut mayfly =
                TestEngine::start(|config| config.rules.policy.launches_max = NonZeroU32::MIN).await;
            let (id, mut machine) = running(&mut mayfly).await;
            if started {
                machine.starts().await;
            }
            match lose {
                Some(lose) => lose(&mut machine),
                None => drop(cancel(&mayfly, id, true).await),
            }
            assert_eq!(mayfly.outcome(id).await, (name.to_owned(), Some(why.to_owned())));
            let expected = format!("the work in the machine was not brought out: {why}");
            let expected = if started { vec![expected] } else { vec![] };
            assert_eq!(mayfly.warnings(id).await, expected, "there is none before claude");
        }
    }
}

/// R32, G11: with its work, whether or not `claude` has started.
#[tokio::test]
async fn a_running_task_is_told_to_bring_its_work_out() {
    for started in [false, true] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = running(&mut mayfly).await;
        if started {
            machine.starts().await;
        }
        assert_eq!(cancel(&mayfly, id, false).await, "collecting");
        assert_eq!(cancel(&mayfly, id, false).await, "collecting");
        assert!(matches!(machine.told().await, Down::Collect));
        machine.collected().await;
        assert_eq!(mayfly.outcome(id).await, ("cancelled".to_owned(), Some(WORDS.to_owned())));
        assert_eq!((mayfly.machines.left(), ends(&mayfly, id).await), (vec![], 1));
    }
}

#[tokio::test]
async fn by_force_a_running_task_ends_without_its_work() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    cancel(&mayfly, id, true).await;
    assert!(matches!(machine.told().await, Down::Reject { .. }));
    assert_eq!(mayfly.outcome(id).await.0, "cancelled");
    assert_eq!((mayfly.machines.left(), mayfly.task(id).await.result), (vec![], None));
}

/// R32, G6: the first ending wins.
#[tokio::test]
async fn a_task_that_has_ended_keeps_its_outcome() {
    for force in [false, true] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = running(&mut mayfly).await;
        machine.starts().await;
        machine.ends(Outcome::Succeeded).await;
        let state = cancel(&mayfly, id, force).await;
        if !force {
            assert_eq!(state, "collecting");
            machine.collected().await;
        }
        assert_eq!(mayfly.outcome(id).await.0, "succeeded");
        assert_eq!(ends(&mayfly, id).await, 1);
    }
}

/// R32
#[tokio::test]
async fn a_task_whose_machine_is_being_unmade_keeps_its_outcome() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.destroys_unclear(1);
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.machines.until(|seen| seen.destroys == 1).await;
    for force in [false, true] {
        assert_eq!(cancel(&mayfly, id, force).await, "releasing");
    }
    mayfly.clock.sleeper_for(std::time::Duration::from_millis(100)).await;
    mayfly.clock.advance(std::time::Duration::from_millis(100));
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), None));
    assert_eq!(cancel(&mayfly, id, true).await, "finished");
    assert_eq!((mayfly.outcome(id).await.0.as_str(), ends(&mayfly, id).await), ("succeeded", 1));
}

/// R32: a lost machine is still being unmade, and would be followed by another.
#[tokio::test]
async fn a_task_that_was_about_to_be_launched_again_is_cancelled_for_the_owners_reason() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.destroys_unclear(1);
    let (id, mut machine) = running(&mut mayfly).await;
    machine.vanish();
    mayfly.machines.until(|seen| seen.destroys == 1).await;
    cancel(&mayfly, id, false).await;
    mayfly.clock.sleeper_for(std::time::Duration::from_millis(100)).await;
    mayfly.clock.advance(std::time::Duration::from_millis(100));
    assert_eq!(mayfly.outcome(id).await, ("cancelled".to_owned(), Some(WORDS.to_owned())));
    assert_eq!(mayfly.machines.seen().made, 1);
}

/// R32: whichever comes first, there is one ending.
#[tokio::test]
async fn cancelling_as_claude_ends_gives_one_outcome() {
    for cancel_first in [false, true] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = running(&mut mayfly).await;
        machine.starts().await;
        let engine = mayfly.engine.clone();
        let cancelling = async { engine.cancel(id, false).await.unwrap() };
        if cancel_first {
            tokio::join!(biased; cancelling, machine.ends(Outcome::Succeeded));
        } else {
            tokio::join!(biased; machine.ends(Outcome::Succeeded), cancelling);
        }
        machine.collected().await;
        let expected = if cancel_first { "cancelled" } else { "succeeded" };
        assert_eq!(mayfly.outcome(id).await.0, expected);
        assert_eq!(ends(&mayfly, id).await, 1);
    }
}

#[tokio::test]
async fn a_task_that_is_not_there_cannot_be_cancelled() {
    let mayfly = TestEngine::start(|_| {}).await;
    let nobody = "00000000-0000-7000-8000-000000000000".parse().unwrap();
    assert!(mayfly.engine.cancel(nobody, true).await.unwrap().is_none());
}

/// What is committed is followed up, though the one who asked has gone.
#[tokio::test]
async fn a_cancel_whose_caller_leaves_reaches_the_worker() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    leave(mayfly.engine.cancel(id, false)).await;
    assert!(matches!(machine.told().await, Down::Collect));
    leave(mayfly.engine.cancel(id, true)).await;
    assert_eq!(mayfly.outcome(id).await.0, "cancelled");
    mayfly.all_finished().await;
}

/// The link may break while the last word is being stored.
#[tokio::test]
async fn work_that_is_safe_lets_the_machine_go_though_its_link_broke() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    let last =
        machine.report(&mayfly_wire::worker::Report::Collected(mayfly_wire::api::Collected::default()));
    leave(machine.send(vec![last])).await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
    assert_eq!(mayfly.machines.left(), []);
}
