//! Who is let in, and for how long.

use std::fs;

use mayfly_engine::{IngestError, JoinError};
use mayfly_testkit::TestEngine;
use mayfly_wire::Secret;
use mayfly_wire::worker::{Down, Source};

/// S27: a ticket is good for the one worker that used it first.
#[tokio::test]
async fn a_ticket_seen_elsewhere_opens_nothing() {
    let mut test = TestEngine::start(|_| {}).await;
    test.submit("a").await;
    test.submit("b").await;
    let (machine, other) = (test.machines.next().await, test.machines.next().await);
    machine.boot(&test.engine).await;
    let refused = |hello| {
        let engine = test.engine.clone();
        async move { engine.join(hello).await.expect_err("not let in") }
    };
    assert!(matches!(refused(machine.hello("a thief")).await, JoinError::Spent));
    let mut foreign = machine.hello("a worker");
    foreign.attempt = other.spec.attempt.to_string();
    assert!(matches!(refused(foreign).await, JoinError::Ticket));
    let mut made_up = machine.hello("a worker");
    made_up.ticket = Secret::from("mayfly-ticket-x".to_owned());
    assert!(matches!(refused(made_up).await, JoinError::Ticket));
    let mut old = machine.hello("a worker");
    old.protocol = 0;
    assert!(matches!(refused(old).await, JoinError::Protocol(0)));
    let mut bare = other.hello("");
    bare.link = Secret::from(String::new());
    assert!(matches!(refused(bare).await, JoinError::Ticket));
}

/// R11: of two links the newer counts, and the older is told.
#[tokio::test]
async fn a_newer_link_fences_the_older() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let mut old = machine.boot(&test.engine).await;
    old.starts().await;
    let new = machine.boot(&test.engine).await;
    assert!(matches!(old.hears().await, Down::Reject { .. }));
    let late = old.record(Source::Claude, "{}".into());
    assert!(matches!(old.sends(vec![late]).await, Err(IngestError::Over)));
    // The older link's end says nothing about the machine.
    drop(old);
    let mut new = new;
    new.ends("succeeded", None).await;
    new.collected().await;
    assert_eq!(test.outcome(task).await.0, "succeeded");
}

/// I7: a token dies with its attempt.
#[tokio::test]
async fn tokens_open_their_route_while_their_attempt_runs() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let machine = test.machines.next().await;
    let mut worker = machine.boot(&test.engine).await;
    let Down::Welcome { order, .. } = worker.welcome() else { panic!("no welcome") };
    let (model, result) = (order.model_token.expose(), order.result_token.expose());
    let engine = &test.engine;
    let access = engine.admit_model(model).await.unwrap();
    assert_eq!(access.credential.secret.expose(), "canary-credential");
    assert_eq!(engine.admit_result(result).await.unwrap(), machine.spec.attempt);
    for wrong in [result, "", "mayfly-model-x"] {
        assert!(engine.admit_model(wrong).await.is_err());
    }
    assert!(engine.admit_result(model).await.is_err());
    worker.starts().await;
    worker.ends("succeeded", None).await;
    assert!(engine.admit_model(model).await.is_err(), "collecting needs no model");
    assert!(engine.admit_result(result).await.is_ok());
    worker.collected().await;
    test.outcome(task).await;
    assert!(engine.admit_result(result).await.is_err());
    let late = engine.join(machine.hello("a worker")).await;
    assert!(matches!(late, Err(JoinError::Over)), "{late:?}");
}

/// The gate opens with the worker's word that `claude` runs as it was asked to, and not before.
#[tokio::test]
async fn the_gate_opens_only_when_claude_is_ready() {
    let mut test = TestEngine::start(|_| {}).await;
    test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    let Down::Welcome { order, .. } = worker.welcome() else { panic!("no welcome") };
    let mut gate = test.engine.admit_model(order.model_token.expose()).await.unwrap().gate;
    worker.reports(&mayfly_wire::worker::Report::Started).await;
    worker.says("{}").await;
    {
        let opened = gate.opened();
        let mut opened = std::pin::pin!(opened);
        assert!(futures_pending(opened.as_mut()).await, "it must be shut");
        worker.reports(&mayfly_wire::worker::Report::Ready { version: "1".into(), model: "m".into() }).await;
        opened.await.unwrap();
    }
    let mut later = test.engine.admit_model(order.model_token.expose()).await.unwrap().gate;
    later.opened().await.unwrap();
    worker.ends("succeeded", None).await;
    later.opened().await.unwrap_err();
}

/// Whether a future is not ready when it is polled once.
async fn futures_pending<F: Future + Unpin>(mut future: F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut future).poll(context).is_pending())
    })
    .await
}

/// S32: the credential is in memory alone, and goes with its task.
#[tokio::test]
async fn the_credential_is_in_no_file() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    test.machines.next().await.boot(&test.engine).await.succeeds().await;
    test.outcome(task).await;
    for file in fs::read_dir(test.dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"canary"), "{path:?}");
        }
    }
}
