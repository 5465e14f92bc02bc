//! What a lost machine's last checkpoint becomes.

use std::io;

use mayfly_core::{Attempt, AttemptId, Failure, Outcome};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api::{Collected, CreateTask};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::Report;

const LATER: &str = "what was changed after the checkpoint";

fn checkpoint(head: &str) -> Collected {
    let unsaved = vec![LATER.to_owned()];
    Collected { head: Some(head.to_owned()), bundle: true, transcript: true, unsaved, ..Collected::default() }
}

/// A task whose `claude` runs, and that has a checkpoint.
async fn checkpointed(mayfly: &mut TestEngine, retries: u32) -> (AttemptId, SimMachine) {
    let id = mayfly.submit(CreateTask { retries, ..task("x") }).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    machine.starts().await;
    let attempt = machine.attempt();
    assert_eq!(attempt, id.attempt(Attempt(1)));
    mayfly.checkpoints.put(attempt, Ok(checkpoint("c1")));
    (attempt, machine)
}

async fn collected(mayfly: &TestEngine, attempt: AttemptId) -> Vec<(u32, Collected)> {
    let told = mayfly.told(attempt.task).await.into_iter();
    told.filter_map(|(attempt, event)| match event {
        MayflyEvent::Collected { result } => Some((attempt, result)),
        _ => None,
    })
    .collect()
}

/// G11: of a machine that is lost the last checkpoint is the result, told before the task is over.
#[tokio::test]
async fn a_lost_machine_leaves_what_its_last_checkpoint_holds() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    machine.vanish();
    assert_eq!(mayfly.outcome(attempt.task).await.0, "lost");
    let task = mayfly.task(attempt.task).await;
    assert_eq!((task.result_attempt, task.result), (Some(1), Some(checkpoint("c1"))));
    assert_eq!(collected(&mayfly, attempt).await, [(1, checkpoint("c1"))]);
    assert_eq!(mayfly.checkpoints.attempts(), []);
}

/// Whatever lets the machine go: its owner's insisting too.
#[tokio::test]
async fn a_machine_that_is_ended_by_force_leaves_it_as_well() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, _machine) = checkpointed(&mut mayfly, 0).await;
    mayfly.engine.cancel(attempt.task, true).await.expect("a store that works");
    assert_eq!(mayfly.outcome(attempt.task).await.0, "cancelled");
    assert_eq!(mayfly.task(attempt.task).await.result, Some(checkpoint("c1")));
}

#[tokio::test]
async fn what_the_worker_brought_out_counts_before_a_checkpoint() {
    let brought = Collected { head: Some("h".to_owned()), bundle: true, ..Collected::default() };
    let said = vec!["the session file: it cannot be read".to_owned()];
    let unchanged = Collected { unsaved: said, ..Collected::default() };
    for result in [brought, Collected::default(), unchanged] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
        machine.ends(Outcome::Succeeded).await;
        machine.reports(Report::Collected(result.clone())).await;
        assert_eq!(mayfly.outcome(attempt.task).await.0, "succeeded");
        assert_eq!(mayfly.task(attempt.task).await.result, Some(result));
        assert_eq!(mayfly.checkpoints.attempts(), [], "it is of no use any more");
    }
}

/// The worker could bring out less than the checkpoint holds: the outcome is its word, the work is the checkpoint's.
#[tokio::test]
async fn work_that_did_not_come_out_is_the_checkpoint_s() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    machine.ends(Outcome::Succeeded).await;
    let said = vec!["the work: the time for collecting ran out".to_owned()];
    let failed = Collected { head: Some("h".to_owned()), unsaved: said.clone(), ..Collected::default() };
    machine.reports(Report::Collected(failed)).await;
    assert_eq!(mayfly.outcome(attempt.task).await.0, "succeeded");
    let unsaved = vec![said[0].clone(), LATER.to_owned()];
    assert_eq!(mayfly.task(attempt.task).await.result, Some(Collected { unsaved, ..checkpoint("c1") }));
}

/// Each attempt has its own, and the last that has one gives the result.
#[tokio::test]
async fn a_lost_attempt_s_checkpoint_is_not_the_next_one_s() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 1).await;
    machine.vanish();
    let waits = mayfly.until(attempt.task, |task| task.due_at.is_some() && task.result.is_some()).await;
    assert_eq!((waits.result_attempt, waits.result), (Some(1), Some(checkpoint("c1"))));
    mayfly.clock.advance(std::time::Duration::from_secs(5));
    let mut second = mayfly.machines.next().await;
    second.boot(&mayfly.engine).await;
    second.starts().await;
    second.ends(Outcome::Failed(Failure::Api)).await;
    second.collected().await;
    assert_eq!(mayfly.outcome(attempt.task).await.0, "api-error");
    let task = mayfly.task(attempt.task).await;
    assert_eq!((task.result_attempt, task.result), (Some(2), Some(Collected::default())));
}

/// A session that has come out is less than the work that an earlier attempt left.
#[tokio::test]
async fn a_later_attempt_that_is_lost_with_less_does_not_take_the_place_of_work() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 1).await;
    machine.vanish();
    mayfly.until(attempt.task, |task| task.due_at.is_some() && task.result.is_some()).await;
    mayfly.clock.advance(std::time::Duration::from_secs(5));
    let mut second = mayfly.machines.next().await;
    second.boot(&mayfly.engine).await;
    second.starts().await;
    let less =
        Collected { transcript: true, unsaved: vec!["the work: gone".to_owned()], ..Collected::default() };
    mayfly.checkpoints.put(second.attempt(), Ok(less));
    second.vanish();
    assert_eq!(mayfly.outcome(attempt.task).await.0, "lost");
    let task = mayfly.task(attempt.task).await;
    assert_eq!((task.result_attempt, task.result), (Some(1), Some(checkpoint("c1"))));
    let warnings = mayfly.warnings(attempt.task).await;
    assert!(warnings.iter().any(|warning| warning.contains("the work: gone")), "{warnings:?}");
}

/// Some of the work came out; what did not may be in a checkpoint.
#[tokio::test]
async fn beside_work_that_came_out_in_part_the_checkpoints_are_kept() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    machine.ends(Outcome::Succeeded).await;
    let unsaved = vec!["uncommitted work: git add: too slow".to_owned()];
    let partial = Collected { head: Some("h".to_owned()), bundle: true, unsaved, ..Collected::default() };
    machine.reports(Report::Collected(partial.clone())).await;
    assert_eq!(mayfly.outcome(attempt.task).await.0, "succeeded");
    assert_eq!(mayfly.task(attempt.task).await.result, Some(partial));
    assert_eq!(mayfly.checkpoints.attempts(), [attempt]);
    let (warnings, kept) =
        (mayfly.warnings(attempt.task).await, format!("results/{}/1/checkpoints", attempt.task));
    assert!(warnings.iter().any(|warning| warning.contains(&kept)), "{warnings:?}");
}

/// R01: an engine that comes later finds the machine gone, and what it left.
#[tokio::test]
async fn an_orchestrator_that_was_away_finds_the_checkpoint_of_a_machine_that_is_gone() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    mayfly.engine.stop().await;
    machine.vanish();
    mayfly.restart().await;
    assert_eq!(mayfly.outcome(attempt.task).await.0, "lost");
    assert_eq!(collected(&mayfly, attempt).await, [(1, checkpoint("c1"))], "told once");
}

/// It stays where it is, and that is said.
#[tokio::test]
async fn a_checkpoint_that_cannot_be_made_a_result_is_kept() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    mayfly.checkpoints.put(attempt, Err(io::ErrorKind::InvalidData));
    machine.vanish();
    assert_eq!(mayfly.outcome(attempt.task).await.0, "lost");
    assert_eq!(mayfly.task(attempt.task).await.result, None);
    assert_eq!(mayfly.checkpoints.attempts(), [attempt]);
    let warnings = mayfly.warnings(attempt.task).await;
    let kept = format!("results/{}/1/checkpoints", attempt.task);
    assert!(warnings.iter().any(|warning| warning.contains(&kept)), "{warnings:?}");
}
