//! What a lost machine's last checkpoint becomes.

use std::io;
use std::time::Duration;

use mayfly_core::{Attempt, AttemptId, Failure, Outcome};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api::{Artifacts, Collected, CreateTask};
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

/// The work is the checkpoint's, and the artifacts are those that came out.
#[tokio::test]
async fn artifacts_that_came_out_are_there_beside_the_work_of_a_checkpoint() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    machine.ends(Outcome::Succeeded).await;
    let artifacts = Some(Artifacts { files: 2, bytes: 7 });
    let said = vec!["the work: the time for collecting ran out".to_owned()];
    machine.reports(Report::Collected(Collected { artifacts, unsaved: said, ..Collected::default() })).await;
    assert_eq!(mayfly.outcome(attempt.task).await.0, "succeeded");
    let result = mayfly.task(attempt.task).await.result.expect("a result");
    assert_eq!((result.head.as_deref(), result.artifacts), (Some("c1"), artifacts));
}

/// They were asked for, and the worker did not come to tell of them.
#[tokio::test]
async fn artifacts_that_a_lost_machine_was_to_leave_are_told_of() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let artifacts = Some(Artifacts { files: 2, bytes: 7 });
    for (came, lines) in [(None, 2), (artifacts, 1)] {
        let asked = CreateTask { artifacts: vec!["dist/**".to_owned()], ..task("x") };
        let id = mayfly.submit(asked).await;
        let mut machine = mayfly.machines.next().await;
        machine.boot(&mayfly.engine).await;
        machine.starts().await;
        let left = Collected { artifacts: came, ..checkpoint("c1") };
        mayfly.checkpoints.put(machine.attempt(), Ok(left));
        machine.vanish();
        mayfly.outcome(id).await;
        let result = mayfly.task(id).await.result.expect("a result");
        let told = result.unsaved.iter().any(|line| line.starts_with("the artifacts:"));
        assert_eq!((result.artifacts, result.unsaved.len(), told), (came, lines, came.is_none()));
    }
}

/// What the worker could not hand over is there all the same: nothing of what it told of the work is so any more.
#[tokio::test]
async fn the_very_work_that_did_not_come_out_is_no_less_than_it() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    let others = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    mayfly.checkpoints.put(attempt, Ok(Collected { others: others(["b", "a"]), ..checkpoint("c1") }));
    machine.ends(Outcome::Succeeded).await;
    let unsaved = ["the work: not searched in time", "an artifact: too long"].map(str::to_owned).to_vec();
    let told = Collected {
        head: Some("c1".to_owned()),
        others: others(["a", "b"]),
        unsaved,
        notes: vec!["a note".to_owned()],
        ..Collected::default()
    };
    machine.reports(Report::Collected(told.clone())).await;
    assert_eq!(mayfly.outcome(attempt.task).await.0, "succeeded");
    let unsaved = told.unsaved[1..].to_vec();
    let result = Collected { bundle: true, transcript: true, unsaved, ..told };
    assert_eq!(mayfly.task(attempt.task).await.result, Some(result));
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

/// A full disk, for one, may be emptied.
#[tokio::test]
async fn trouble_of_the_orchestrator_s_own_does_not_end_a_task_without_its_work() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    mayfly.checkpoints.put(attempt, Err(io::ErrorKind::StorageFull));
    machine.vanish();
    mayfly.clock.sleeper_within(Duration::from_millis(100)).await;
    mayfly.clock.advance(Duration::from_millis(100));
    mayfly.clock.sleeper_for(Duration::from_millis(200)).await;
    assert_eq!(mayfly.task(attempt.task).await.outcome, None);
    mayfly.checkpoints.put(attempt, Ok(checkpoint("c1")));
    mayfly.clock.advance(Duration::from_millis(200));
    assert_eq!(mayfly.outcome(attempt.task).await.0, "lost");
    assert_eq!(mayfly.task(attempt.task).await.result, Some(checkpoint("c1")));
    let warnings = mayfly.warnings(attempt.task).await;
    let told = warnings.iter().filter(|warning| warning.contains("trying again for up to 60 minutes"));
    assert_eq!(told.count(), 1, "{warnings:?}");
}

/// It stays where it is, and that is said.
#[tokio::test]
async fn a_checkpoint_that_cannot_be_made_a_result_is_kept() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (attempt, mut machine) = checkpointed(&mut mayfly, 0).await;
    mayfly.checkpoints.put(attempt, Err(io::ErrorKind::InvalidData));
    machine.vanish();
    let outcome = mayfly.clock.run(Duration::from_secs(60), mayfly.outcome(attempt.task)).await;
    assert_eq!(outcome.0, "lost");
    assert_eq!(mayfly.task(attempt.task).await.result, None);
    assert_eq!(mayfly.checkpoints.attempts(), [attempt]);
    let warnings = mayfly.warnings(attempt.task).await;
    let kept = format!("results/{}/1/checkpoints", attempt.task);
    let is_told = |warning: &String| warning.contains(&kept) && warning.contains("git index-pack");
    assert!(warnings.iter().any(is_told), "{warnings:?}");
}
