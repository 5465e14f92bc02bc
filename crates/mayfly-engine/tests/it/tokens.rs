use std::path::Path;

use mayfly_core::{Outcome, Secrets, TaskId};
use mayfly_engine::{Engine, NoModel, Store};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::Secret;
use mayfly_wire::api::{CreateTask, Credential, CredentialKind};
use mayfly_wire::worker::{Down, Report, WorkOrder};

const CANARY: &str = "canary-4f1b0c";

fn task_with_credential() -> CreateTask {
    let secret = Secret::from(CANARY.to_owned());
    CreateTask { credential: Some(Credential::new(CredentialKind::ApiKey, secret, None)), ..task("x") }
}

async fn running(mayfly: &mut TestEngine) -> (TaskId, SimMachine, WorkOrder) {
    let id = mayfly.submit(task_with_credential()).await;
    let mut machine = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = machine.boot(&mayfly.engine).await else { panic!("no welcome") };
    (id, machine, *order)
}

async fn model(engine: &Engine, order: &WorkOrder) -> Result<String, NoModel> {
    let access = engine.admit_model(order.model_token.expose()).await?;
    Ok(access.credential.secret.expose().to_owned())
}

async fn result(engine: &Engine, order: &WorkOrder) -> bool {
    engine.admit_result(order.result_token.expose()).await.is_ok()
}

/// S40: each opens its own route.
#[tokio::test]
async fn a_token_opens_its_own_route_alone() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, machine, order) = running(&mut mayfly).await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok(CANARY));
    assert_eq!(mayfly.engine.admit_result(order.result_token.expose()).await, Ok(machine.attempt()));
    let ticket = machine.hello().ticket;
    for token in [order.result_token.expose(), ticket.expose(), "", "mayfly-model-"] {
        assert!(mayfly.engine.admit_model(token).await.is_err(), "{token}");
    }
    for token in [order.model_token.expose(), ticket.expose(), ""] {
        assert!(mayfly.engine.admit_result(token).await.is_err(), "{token}");
    }
}

/// S27, S40: what `claude` may not use any more is closed first; results while they are brought out.
#[tokio::test]
async fn tokens_die_with_their_attempt() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine, order) = running(&mut mayfly).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    assert!(model(&mayfly.engine, &order).await.is_err());
    assert!(result(&mayfly.engine, &order).await);
    machine.collected().await;
    assert!(!result(&mayfly.engine, &order).await);
    mayfly.outcome(id).await;
    assert!(model(&mayfly.engine, &order).await.is_err() && !result(&mayfly.engine, &order).await);
}

/// S40: nor do those of a lost attempt open anything of the next.
#[tokio::test]
async fn tokens_of_an_earlier_attempt_open_nothing() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, mut machine, old) = running(&mut mayfly).await;
    machine.vanish();
    let mut second = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = second.boot(&mayfly.engine).await else { panic!("no welcome") };
    assert!(model(&mayfly.engine, &old).await.is_err() && !result(&mayfly.engine, &old).await);
    assert!(model(&mayfly.engine, &order).await.is_ok() && result(&mayfly.engine, &order).await);
}

#[tokio::test]
async fn the_gate_opens_once_claude_runs_as_it_was_asked_to() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, mut machine, order) = running(&mut mayfly).await;
    let mut gate = mayfly.engine.admit_model(order.model_token.expose()).await.unwrap().gate;
    machine.reports(Report::Started).await;
    crate::leave(gate.opened()).await;
    machine.says(r#"{"type":"system","subtype":"init"}"#).await;
    crate::leave(gate.opened()).await;
    machine.reports(Report::Ready { version: "2".to_owned(), model: "m".to_owned() }).await;
    gate.opened().await.unwrap();

    // It stays open for this attempt, also after a restart.
    let mut later = mayfly.engine.admit_model(order.model_token.expose()).await.unwrap().gate;
    later.opened().await.unwrap();
}

/// A request that waits is let go, whatever ends the attempt.
#[tokio::test]
async fn the_gate_closes_when_the_attempt_ends() {
    for force in [false, true] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, _machine, order) = running(&mut mayfly).await;
        let mut gate = mayfly.engine.admit_model(order.model_token.expose()).await.unwrap().gate;
        let waiting = tokio::spawn(async move { gate.opened().await });
        tokio::task::yield_now().await;
        mayfly.engine.cancel(id, force).await.unwrap();
        assert!(waiting.await.unwrap().is_err());
    }
}

/// A worker that called itself ready and was lost opens nothing for the next attempt.
#[tokio::test]
async fn the_next_attempts_gate_is_closed_again() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine, _) = running(&mut mayfly).await;
    let _watched = mayfly.engine.events(id, 0, true).await.unwrap();
    machine.reports(Report::Ready { version: "2".to_owned(), model: "m".to_owned() }).await;
    machine.vanish();
    let mut second = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = second.boot(&mayfly.engine).await else { panic!("no welcome") };
    let mut gate = mayfly.engine.admit_model(order.model_token.expose()).await.unwrap().gate;
    crate::leave(gate.opened()).await;
}

/// S32: it is sealed there, and no longer there than its task runs.
#[tokio::test]
async fn a_credential_is_never_in_the_file() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine, order) = running(&mut mayfly).await;
    machine.starts().await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok(CANARY));
    assert_no_canary(&mayfly.file());
    let store = Store::open(&mayfly.file()).unwrap();
    assert!(store.credential(id).await.unwrap().is_some());
    assert!(!format!("{:?}", mayfly.engine).contains(CANARY));
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.outcome(id).await;
    assert_no_canary(&mayfly.file());
    let store = Store::open(&mayfly.file()).unwrap();
    assert_eq!(store.credential(id).await.unwrap(), None, "it was not the pool's");
}

/// R03: the next engine can go on with it; with another key it could not.
#[tokio::test]
async fn a_credential_waits_for_the_next_engine_with_the_same_key() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, mut machine, order) = running(&mut mayfly).await;
    mayfly.restart().await;
    machine.boot(&mayfly.engine).await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok(CANARY));
    assert_no_canary(&mayfly.file());
    mayfly.config.key = [8; 32];
    mayfly.restart().await;
    assert!(model(&mayfly.engine, &order).await.is_err());
}

/// S17: what a machine hands over after a restart is searched for its own credential, used since or not.
#[tokio::test]
async fn a_credential_is_a_secret_before_a_result_is_taken() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, _machine, order) = running(&mut mayfly).await;
    mayfly.config.secrets = Secrets::default();
    mayfly.restart().await;
    let knows = |mayfly: &TestEngine| mayfly.engine.redactor().redact(CANARY.as_bytes()).is_some();
    assert!(!knows(&mayfly));
    mayfly.engine.admit_result(order.result_token.expose()).await.unwrap();
    assert!(knows(&mayfly));
}

/// Whoever asks again, with the same key, may have a newer one.
#[tokio::test]
async fn a_task_that_is_asked_for_again_takes_the_new_credential() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let key = || Some("key".to_owned());
    let first = mayfly.engine.submit(task("x"), key()).await.unwrap();
    let Down::Welcome { order, .. } = mayfly.machines.next().await.boot(&mayfly.engine).await else {
        panic!("no welcome")
    };
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok("Qmade-up-key"));
    let again = mayfly.engine.submit(task_with_credential(), key()).await.unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok(CANARY));
}

fn assert_no_canary(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let wal = file.with_extension("db-wal");
    bytes.extend(std::fs::read(wal).unwrap());
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("launching"), "these are the files");
    assert!(!has(CANARY));
}
