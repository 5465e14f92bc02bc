use std::time::Duration;

use mayfly_core::{Attempt, Outcome, TaskId};
use mayfly_engine::{IngestError, JoinError};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::Secret;
use mayfly_wire::api::{CreateTask, Workspace};
use mayfly_wire::worker::{BadHello, Down, Hello, PROTOCOL, Source, WorkOrder};

use crate::{LONG, LOOK_FIRST, at_once, leave, minutes, seconds};

async fn running(mayfly: &mut TestEngine) -> (TaskId, SimMachine) {
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    (id, machine)
}

fn order(welcome: Down) -> WorkOrder {
    match welcome {
        Down::Welcome { order, .. } => *order,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_is_welcomed_with_its_order() {
    let mut mayfly = TestEngine::start(|config| {
        config.rules.model = "opus".to_owned();
        config.rules.orphan_after = minutes(5);
        config.rules.claude_version = Some("2.1.0".to_owned());
        std::fs::create_dir(&config.workspaces).unwrap();
        std::fs::write(config.workspaces.join(format!("{}.bundle", "a".repeat(64))), "").unwrap();
    })
    .await;
    let workspace = Workspace {
        id: "a".repeat(64),
        name: "repo".to_owned(),
        base: "b".repeat(40),
        on: None,
        origin: None,
    };
    let asked = CreateTask {
        workspace: Some(workspace),
        max_turns: Some(7),
        max_budget_usd: Some(1.5),
        ..task("--do it")
    };
    mayfly.submit(asked).await;
    let mut machine = mayfly.machines.next().await;
    let spec = machine.spec.workspace.clone().unwrap();
    assert!(spec.code.bundle.is_file() && spec.name == "repo" && spec.code.base == "b".repeat(40));
    let order = order(machine.boot(&mayfly.engine).await);
    assert_eq!((order.prompt.as_str(), order.model.as_str()), ("--do it", "opus"));
    assert_eq!((order.max_turns, order.max_budget_usd), (Some(7), Some(1.5)));
    assert_eq!(order.claude_version.as_deref(), Some("2.1.0"));
    assert_eq!(order.workspace.unwrap().name, "repo");
    assert_eq!((order.collect_ms_max, order.orphan_after_ms), (120_000, 300_000));
}

/// R11: the newest link wins, and nothing of the older one is stored between.
#[tokio::test]
async fn an_older_link_of_the_same_worker_is_fenced() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.says("a").await;
    let mut old = machine.take_session();
    let welcome = machine.boot(&mayfly.engine).await;
    assert!(matches!(welcome, Down::Welcome { stored: 1, .. }), "{welcome:?}");
    let late = machine.record(Source::Claude, "b");
    assert!(matches!(old.ingest(vec![late.clone()]).await, Err(IngestError::Over)));
    assert!(old.next().await.is_none(), "it ends");
    assert_eq!(machine.send(vec![late]).await.unwrap(), 2);
    drop(old);
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    assert!(matches!(machine.told().await, Down::Collect), "the end of the old link is not the worker's");
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
}

/// R08: given up and replaced, a machine that is still there is unmade before another is made, and its worker is turned
/// away with all that it still has to say.
#[tokio::test]
async fn a_machine_that_was_replaced_never_runs_beside_its_successor_and_is_not_heard_again() {
    let mut mayfly = TestEngine::start(|config| config.rules.timeout = LONG).await;
    let id = mayfly.submit(CreateTask { retries: 1, ..task("x") }).await;
    let mut old = mayfly.machines.next().await;
    old.boot(&mayfly.engine).await;
    old.starts().await;
    mayfly.machines.destroys_unclear(3);
    old.unplug();
    mayfly.clock.sleeper_for(LOOK_FIRST).await;
    mayfly.clock.advance(minutes(60));
    for pause in [100, 200, 400].map(Duration::from_millis) {
        mayfly.clock.sleeper_for(pause).await;
        assert_eq!(mayfly.machines.seen().made, 1, "the old one is still there");
        mayfly.clock.advance(pause);
    }
    mayfly.until_state(id, "queued").await;
    mayfly.clock.sleeper_within(seconds(5)).await;
    mayfly.clock.advance(seconds(5));
    let mut new = mayfly.machines.next().await;
    let seen = mayfly.machines.seen();
    assert_eq!((seen.alive_most, seen.alive), (1, 1), "{seen:?}");
    let before = mayfly.log(id, 0).await;
    assert!(matches!(old.dial(&mayfly.engine).await, Err(JoinError::Over)));
    assert_eq!(mayfly.log(id, 0).await, before);
    new.succeeds(&mayfly.engine).await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
    assert!(matches!(old.dial(&mayfly.engine).await, Err(JoinError::Over)));
}

/// R08, R23: what a link still had under way when its attempt was given up is refused.
#[tokio::test]
async fn a_link_of_an_attempt_that_is_over_stores_nothing() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(CreateTask { retries: 1, ..task("x") }).await;
    let mut old = mayfly.machines.next().await;
    old.boot(&mayfly.engine).await;
    old.starts().await;
    let stale = old.record(Source::Claude, "late");
    let zombie = old.take_session();
    mayfly.engine.cancel(id, true).await.unwrap().unwrap();
    mayfly.outcome(id).await;
    let log = mayfly.log(id, 0).await;
    assert!(matches!(zombie.ingest(vec![stale]).await, Err(IngestError::Over)));
    assert_eq!(mayfly.log(id, 0).await, log);
}

/// R23: an orchestrator that stood still for hours, or whose host slept, has the machine that it had, and hears it.
#[tokio::test]
async fn an_orchestrator_that_stood_still_for_hours_goes_on_with_the_same_machine() {
    let mut mayfly = TestEngine::start(|config| {
        (config.rules.timeout, config.rules.idle_timeout) = (LONG, LONG);
    })
    .await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.says("before").await;
    // Twice the time after which one that cannot be reached is given up, and of which nobody has heard a second.
    let still = mayfly.config.rules.orphan_after * 2;
    mayfly.clock.advance(still);
    machine.says("after").await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), None));
    let seen = mayfly.machines.seen();
    assert_eq!((seen.made, seen.creates), (1, 1));
    let log = mayfly.log(id, 0).await;
    assert!(log.contains("before") && log.contains("after"), "{log}");
}

/// R26: a machine whose worker speaks another version does no work, and its task ends with a word.
#[tokio::test]
async fn a_task_whose_worker_is_of_another_version_ends() {
    for protocol in [PROTOCOL - 1, PROTOCOL + 1] {
        let mut mayfly = TestEngine::start(|config| {
            config.rules.policy.launches_max = std::num::NonZeroU32::MIN;
        })
        .await;
        let id = mayfly.submit(task("x")).await;
        let mut machine = mayfly.machines.next().await;
        let refused = mayfly.engine.join(Hello { protocol, ..machine.hello() }).await;
        assert!(matches!(refused, Err(JoinError::Hello(BadHello::Protocol(other))) if other == protocol));
        // The worker has been told so, and ends its machine.
        machine.die();
        let (name, detail) = mayfly.clock.run(minutes(60), mayfly.outcome(id)).await;
        // By who notices first: the one who looks for machines, or the one who waits for the worker.
        assert!(["lost", "launch-timeout"].contains(&name.as_str()) && detail.is_some(), "{name} {detail:?}");
        let seen = mayfly.machines.seen();
        assert_eq!((seen.made, seen.alive, mayfly.machines.left()), (1, 0, vec![]));
    }
}

/// R11: also one that waits.
#[tokio::test]
async fn an_older_link_that_waits_is_woken() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, mut machine) = running(&mut mayfly).await;
    let mut old = machine.take_session();
    let told = tokio::spawn(async move { old.next().await });
    tokio::task::yield_now().await;
    machine.boot(&mayfly.engine).await;
    assert!(told.await.unwrap().is_none());
}

/// R11: a hello of a link that its worker has given up can arrive after the newer one's. The worker is not sent away for
/// that: it dials again, and goes on.
#[tokio::test]
async fn a_hello_that_is_late_ends_the_workers_link_and_not_its_machine() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let late = mayfly.engine.join(machine.hello()).await.unwrap();
    let mut own = machine.take_session();
    assert!(own.next().await.is_none(), "nothing that would end the machine");
    machine.boot(&mayfly.engine).await;
    drop((own, late));
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "succeeded");
}

/// S27: a ticket that was seen elsewhere opens nothing, and changes nothing.
#[tokio::test]
async fn a_ticket_is_bound_to_the_worker_that_used_it_first() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let log = mayfly.log(id, 0).await;
    let thief = Hello { link: Secret::from("b".repeat(32)), ..machine.hello() };
    assert!(matches!(mayfly.engine.join(thief.clone()).await, Err(JoinError::Spent)));
    mayfly.restart().await;
    assert!(matches!(mayfly.engine.join(thief).await, Err(JoinError::Spent)));
    assert_eq!(mayfly.log(id, 0).await, log);
    machine.boot(&mayfly.engine).await;
    machine.says("still mine").await;
}

/// S27, S40: it changes nothing but how many were refused, which can be seen.
#[tokio::test]
async fn a_hello_that_is_not_the_attempts_own_is_refused() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (first, mut machine) = running(&mut mayfly).await;
    let (_, other) = running(&mut mayfly).await;
    let order = order(machine.boot(&mayfly.engine).await);
    let hello = machine.hello();
    let bad = [
        Hello { attempt: other.attempt().to_string(), ..hello.clone() },
        Hello { attempt: first.attempt(Attempt(2)).to_string(), ..hello.clone() },
        Hello { attempt: "../1".to_owned(), ..hello.clone() },
        Hello { ticket: other.hello().ticket, ..hello.clone() },
        Hello { ticket: order.model_token, ..hello.clone() },
        Hello { ticket: Secret::from(String::new()), ..hello.clone() },
        Hello { link: Secret::from("short".to_owned()), ..hello.clone() },
    ];
    for hello in bad {
        assert!(matches!(mayfly.engine.join(hello.clone()).await, Err(JoinError::Ticket)), "{hello:?}");
    }
    let old = Hello { protocol: PROTOCOL + 1, ..hello };
    assert!(matches!(mayfly.engine.join(old).await, Err(JoinError::Hello(BadHello::Protocol(_)))));
    let metrics = mayfly.engine.metrics().await.unwrap();
    assert!(metrics.contains("\nmayfly_hellos_refused_total 8\n"), "{metrics}");
    machine.says("undisturbed").await;
}

#[tokio::test]
async fn each_attempt_has_a_session_of_its_own_and_keeps_it() {
    let mut mayfly = TestEngine::start(at_once(1)).await;
    mayfly.submit(task("x")).await;
    let mut first = mayfly.machines.next().await;
    let session = order(first.boot(&mayfly.engine).await).session_id;
    assert_eq!(order(first.boot(&mayfly.engine).await).session_id, session);
    first.vanish();
    let mut second = mayfly.machines.next().await;
    assert_ne!(order(second.boot(&mayfly.engine).await).session_id, session);
}

/// A link that breaks in the middle of its hello counts as no link.
#[tokio::test]
async fn a_hello_whose_link_breaks_is_followed_up() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    leave(mayfly.engine.join(machine.hello())).await;
    let look = std::time::Duration::from_millis(250);
    mayfly.clock.sleeper_for(look).await;
    machine.vanish();
    mayfly.clock.advance(look);
    assert_eq!(mayfly.machines.next().await.attempt(), id.attempt(Attempt(2)));
}

#[tokio::test]
async fn a_worker_that_dials_again_is_told_again_to_collect() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    mayfly.engine.cancel(id, false).await.unwrap();
    assert!(matches!(machine.told().await, Down::Collect));
    machine.boot(&mayfly.engine).await;
    assert!(matches!(machine.told().await, Down::Collect));
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "cancelled");
}
