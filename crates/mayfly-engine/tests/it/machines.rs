use std::num::NonZeroU32;
use std::time::Duration;

use mayfly_core::{Attempt, AttemptId, Outcome, TaskId};
use mayfly_engine::EngineConfig;
use mayfly_provider::Provider as _;
use mayfly_testkit::{OnCreate, SimMachine, SimProvider, TestEngine, task};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::Down;

use crate::{LONG, LOOK_FIRST, at_once, minutes, seconds};

const STRANGER: &str = "0193b2c4-0000-7000-8000-0123456789ab.1";

async fn running(mayfly: &mut TestEngine) -> (TaskId, SimMachine) {
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    (id, machine)
}

fn requeued(detail: &str) -> MayflyEvent {
    MayflyEvent::Requeued { detail: detail.to_owned(), due_at: None }
}

#[tokio::test]
async fn a_machine_that_is_never_heard_is_made_anew_until_it_is_given_up() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    for attempt in 1..=3 {
        assert_eq!(mayfly.machines.next().await.attempt(), id.attempt(Attempt(attempt)));
        mayfly.clock.sleeper_for(minutes(1)).await;
        mayfly.clock.advance(minutes(1));
    }
    let words = "its worker was not heard within 1m";
    assert_eq!(mayfly.outcome(id).await, ("launch-timeout".to_owned(), Some(words.to_owned())));
    let told = mayfly.told(id).await;
    for attempt in 1..=2 {
        assert!(told.contains(&(attempt, requeued(words))), "{told:?}");
    }
    let seen = mayfly.machines.seen();
    assert_eq!((seen.made, seen.alive_most, seen.alive), (3, 1, 0));
}

/// R06: one that ends at once is not waited for.
#[tokio::test]
async fn a_machine_that_ends_before_it_is_heard_is_made_anew_until_it_is_given_up() {
    let kill: [fn(&mut SimMachine); 2] = [SimMachine::vanish, SimMachine::die];
    for kill in kill {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let id = mayfly.submit(task("x")).await;
        for attempt in 1..=3 {
            let mut machine = mayfly.machines.next().await;
            assert_eq!(machine.attempt(), id.attempt(Attempt(attempt)));
            mayfly.clock.sleeper_for(LOOK_FIRST).await;
            kill(&mut machine);
            mayfly.clock.advance(LOOK_FIRST);
        }
        let words = "its machine ended before its worker was heard";
        assert_eq!(mayfly.outcome(id).await, ("lost".to_owned(), Some(words.to_owned())));
        assert!(mayfly.told(id).await.contains(&(1, requeued(words))));
        assert_eq!((mayfly.machines.seen().made, mayfly.machines.left()), (3, vec![]));
    }
}

/// R24: it is looked for again and again, and that alone ends nothing.
#[tokio::test]
async fn a_machine_that_is_slow_to_be_heard_is_waited_for() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    mayfly.machines.lists_unclear(1);
    for pause in [250, 500, 1000, 2000].map(Duration::from_millis) {
        mayfly.clock.sleeper_for(pause).await;
        mayfly.clock.advance(pause);
    }
    machine.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), None));
    assert_eq!(mayfly.machines.seen().made, 1);
}

#[tokio::test]
async fn a_refused_machine_ends_the_task_with_the_providers_words() {
    let mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.on_create([OnCreate::Refused("no user namespaces: enable them")]);
    let id = mayfly.submit(task("x")).await;
    let words = "the sim provider cannot make this machine: no user namespaces: enable them";
    assert_eq!(mayfly.outcome(id).await, ("refused".to_owned(), Some(words.to_owned())));
    assert_eq!(mayfly.machines.seen().creates, 1);
}

/// R28, R30
#[tokio::test]
async fn an_unclear_answer_to_create_is_asked_again_for_as_long_as_it_takes() {
    let mut mayfly = TestEngine::start(|config| config.rules.launch_max = LONG).await;
    mayfly.machines.on_create(vec![OnCreate::Unclear; 100]);
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.clock.run(minutes(1), mayfly.machines.next()).await;
    assert_eq!(mayfly.machines.seen().creates, 101);
    machine.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
}

/// Its owner reads why once, and again at the end of its time.
#[tokio::test]
async fn why_there_is_no_machine_is_told_and_is_the_reason_in_the_end() {
    let once = |config: &mut EngineConfig| config.rules.policy.launches_max = NonZeroU32::MIN;
    let mayfly = TestEngine::start(once).await;
    mayfly.machines.on_create(vec![OnCreate::Unclear; 1000]);
    let id = mayfly.submit(task("x")).await;
    // Tried once, and to be tried again.
    mayfly.clock.sleeper_for(Duration::from_millis(100)).await;
    mayfly.clock.advance(minutes(1));
    let (name, detail) = mayfly.outcome(id).await;
    let why = "no clear answer to `create`: the answer was lost";
    assert_eq!(
        (name.as_str(), detail),
        ("launch-timeout", Some(format!("no machine could be made within 1m: {why}")))
    );
    assert_eq!(mayfly.warnings(id).await, [format!("no machine yet, and trying again: {why}")]);
}

/// G2: the machine of a lost answer is found, and not made twice.
#[tokio::test]
async fn a_machine_whose_making_was_answered_unclearly_is_found_and_noted_once() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.notes(&["memory cannot be limited here"]);
    mayfly.machines.on_create(vec![OnCreate::MadeUnclear; 2]);
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    for pause in [100, 200].map(Duration::from_millis) {
        mayfly.clock.sleeper_for(pause).await;
        mayfly.clock.advance(pause);
    }
    mayfly.until(id, |task| task.last_seq == 4).await;
    machine.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
    assert_eq!(mayfly.warnings(id).await[1..], ["memory cannot be limited here"]);
    let seen = mayfly.machines.seen();
    assert_eq!((seen.made, seen.creates), (1, 3));
}

/// G2: its worker has spoken, so there is nothing left to make, whatever becomes of the machine.
#[tokio::test]
async fn a_machine_whose_worker_was_heard_is_not_asked_for_again() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    mayfly.machines.on_create([OnCreate::MadeUnclear]);
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    mayfly.restart().await;
    machine.vanish();
    assert_eq!(mayfly.outcome(id).await.0, "lost");
    let seen = mayfly.machines.seen();
    assert_eq!((seen.made, seen.creates), (1, 1));
}

/// R30: the slot is held until the machine is known to be gone.
#[tokio::test]
async fn an_unclear_answer_to_destroy_is_asked_again_and_frees_no_slot() {
    let mut mayfly = TestEngine::start(|config| {
        at_once(1)(config);
        config.rules.launch_max = LONG;
    })
    .await;
    let (id, mut machine) = running(&mut mayfly).await;
    let second = mayfly.submit(task("y")).await;
    mayfly.machines.destroys_unclear(100);
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.clock.run(minutes(1), mayfly.machines.until(|seen| seen.destroys == 100)).await;
    assert!(mayfly.machines.none_made());
    assert_eq!(mayfly.task(second).await.state, "queued");
    mayfly.clock.run(minutes(1), mayfly.outcome(id)).await;
    assert_eq!(mayfly.machines.next().await.attempt().task, second);
    assert_eq!(mayfly.machines.seen().destroys, 101);
}

/// R06
#[tokio::test]
async fn a_machine_lost_before_claude_started_is_followed_by_another() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.vanish();
    let mut second = mayfly.machines.next().await;
    assert_eq!(second.attempt(), id.attempt(Attempt(2)));
    second.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), None));
    assert!(mayfly.told(id).await.contains(&(1, requeued("its machine is gone"))));
}

/// R06, G2
#[tokio::test]
async fn a_machine_lost_after_claude_started_ends_the_task() {
    let kill: [fn(&mut SimMachine); 2] = [SimMachine::vanish, SimMachine::die];
    for kill in kill {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = running(&mut mayfly).await;
        machine.starts().await;
        kill(&mut machine);
        assert_eq!(mayfly.outcome(id).await, ("lost".to_owned(), Some("its machine is gone".to_owned())));
        let seen = mayfly.machines.seen();
        assert_eq!((seen.made, mayfly.machines.left()), (1, vec![]));
    }
}

/// R06, G6: what `claude` came to is known already.
#[tokio::test]
async fn a_machine_lost_while_its_work_is_brought_out_does_not_change_the_outcome() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.vanish();
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), Some("its machine is gone".to_owned())));
}

/// R24, R06: without a clear answer nothing is given up.
#[tokio::test]
async fn an_unclear_answer_to_list_is_no_sign_of_death() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    mayfly.machines.lists_unclear(1);
    machine.unplug();
    mayfly.clock.sleeper_for(LOOK_FIRST).await;
    machine.boot(&mayfly.engine).await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
}

/// R07, R24: the owner is told once, and the machine stays.
#[tokio::test]
async fn a_machine_that_is_silent_is_told_of_once() {
    let mut mayfly = TestEngine::start(|config| config.rules.silent_after = seconds(20)).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    let before = mayfly.task(id).await.last_seq;
    machine.unplug();
    // Growing pauses between the looks; the last is cut short by the limit.
    for pause in [250, 500, 1000, 2000, 4000, 8000, 4250].map(Duration::from_millis) {
        mayfly.clock.sleeper_for(pause).await;
        mayfly.clock.advance(pause);
    }
    mayfly.until(id, |task| task.last_seq > before).await;
    let lists = mayfly.machines.seen().lists;
    mayfly.clock.advance(minutes(1));
    mayfly.machines.until(|seen| seen.lists > lists + 1).await;
    machine.boot(&mayfly.engine).await;
    machine.says("still here").await;
    assert_eq!(mayfly.warnings(id).await, ["nothing heard from the machine for 20s"]);
    assert_eq!(mayfly.task(id).await.state, "running");
}

/// The worker ends its machine itself by then.
#[tokio::test]
async fn a_machine_that_is_silent_for_too_long_is_given_up() {
    let mut mayfly = TestEngine::start(|config| config.rules.timeout = LONG).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.unplug();
    mayfly.clock.sleeper_for(LOOK_FIRST).await;
    mayfly.clock.advance(minutes(60));
    let words = "its machine was not heard for 1h";
    assert_eq!(mayfly.outcome(id).await, ("lost".to_owned(), Some(words.to_owned())));
    assert_eq!(mayfly.machines.left(), []);
}

/// R31: a machine with our tag that the store does not know.
#[tokio::test]
async fn a_machine_of_no_live_attempt_is_destroyed_at_the_start() {
    let (provider, machines) = SimProvider::new();
    machines.put(STRANGER.parse().unwrap(), true);
    machines.put(STRANGER.replace("ab.1", "ab.2").parse().unwrap(), false);
    let mayfly = TestEngine::start_on(provider.clone(), machines, |_| {}).await;
    mayfly.machines.until(|seen| seen.destroys == 2).await;
    assert_eq!(provider.list().await.unwrap(), []);
}

/// R31, R02: also one that appears later, such as after an unclear answer; those of live attempts stay.
#[tokio::test]
async fn a_machine_of_no_live_attempt_is_destroyed_within_a_minute() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, mut machine) = running(&mut mayfly).await;
    let stranger: AttemptId = STRANGER.parse().unwrap();
    mayfly.machines.put(stranger, true);
    mayfly.machines.destroys_unclear(1);
    mayfly.clock.sleeper_for(seconds(30)).await;
    mayfly.clock.advance(seconds(30));
    mayfly.machines.until(|seen| seen.destroys == 1).await;
    mayfly.clock.sleeper_for(seconds(30)).await;
    mayfly.clock.advance(seconds(30));
    mayfly.machines.until(|seen| seen.destroys == 2).await;
    assert_eq!(mayfly.machines.left(), [machine.attempt()]);
    machine.says("still here").await;
}

/// The lost attempt's worker may still be there, and is of no use any more.
#[tokio::test]
async fn the_worker_of_a_lost_attempt_is_turned_away() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut late = mayfly.machines.next().await;
    mayfly.clock.sleeper_for(minutes(1)).await;
    mayfly.clock.advance(minutes(1));
    let mut second = mayfly.machines.next().await;
    assert_eq!(late.dial(&mayfly.engine).await.unwrap_err().to_string(), "the attempt is over");
    assert!(matches!(second.boot(&mayfly.engine).await, Down::Welcome { stored: 0, .. }));
    assert_eq!(mayfly.task(id).await.attempt, 2);
}
