use mayfly_core::Outcome;
use mayfly_engine::SubmitError;
use mayfly_testkit::{TestEngine, task};
use mayfly_wire::Secret;
use mayfly_wire::api::{CreateTask, Credential, CredentialKind, PROMPT_BYTES_MAX, Workspace};

use crate::{at_once, leave};

#[expect(clippy::unnecessary_wraps, reason = "it stands where there may be none")]
fn key(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn with_workspace(adjust: impl FnOnce(&mut Workspace)) -> CreateTask {
    let mut workspace = Workspace {
        id: "a".repeat(64),
        name: "repo".to_owned(),
        base: "b".repeat(40),
        on: None,
        origin: None,
    };
    adjust(&mut workspace);
    CreateTask { workspace: Some(workspace), ..task("x") }
}

fn with_credential(secret: &str, base_url: Option<&str>) -> CreateTask {
    let (secret, base_url) = (Secret::from(secret.to_owned()), base_url.map(str::to_owned));
    CreateTask { credential: Some(Credential::new(CredentialKind::Bearer, secret, base_url)), ..task("x") }
}

/// S43
#[tokio::test]
async fn each_field_that_cannot_be_is_named() {
    let mayfly = TestEngine::start(|config| {
        std::fs::create_dir(&config.workspaces).unwrap();
        std::fs::write(config.workspaces.join(format!("{}.bundle", "a".repeat(64))), "").unwrap();
    })
    .await;
    let model = |model: &str| CreateTask { model: Some(model.to_owned()), ..task("x") };
    let budget = |usd| CreateTask { max_budget_usd: Some(usd), ..task("x") };
    let bad = vec![
        ("prompt", task("")),
        ("prompt", task(" \n\t")),
        ("prompt", task("a\0b")),
        ("prompt", task(&"x".repeat(PROMPT_BYTES_MAX + 1))),
        ("model", model("")),
        ("model", model("-p")),
        ("model", model("a b")),
        ("model", model(&"m".repeat(101))),
        ("timeout_ms", CreateTask { timeout_ms: Some(0), ..task("x") }),
        ("idle_timeout_ms", CreateTask { idle_timeout_ms: Some(0), ..task("x") }),
        ("priority", CreateTask { priority: 1001, ..task("x") }),
        ("retries", CreateTask { retries: 11, ..task("x") }),
        ("max_turns", CreateTask { max_turns: Some(0), ..task("x") }),
        ("max_budget_usd", budget(0.0)),
        ("max_budget_usd", budget(-1.0)),
        ("max_budget_usd", budget(f64::NAN)),
        ("max_budget_usd", budget(f64::INFINITY)),
        ("workspace.name", with_workspace(|workspace| workspace.name = String::new())),
        ("workspace.name", with_workspace(|workspace| workspace.name = "..".to_owned())),
        ("workspace.name", with_workspace(|workspace| workspace.name = "a/b".to_owned())),
        ("workspace.name", with_workspace(|workspace| workspace.name = "-x".to_owned())),
        ("workspace.name", with_workspace(|workspace| workspace.name = "n".repeat(101))),
        ("workspace.id", with_workspace(|workspace| workspace.id = "../a".to_owned())),
        ("workspace.id", with_workspace(|workspace| workspace.id = "A".repeat(64))),
        ("workspace.id", with_workspace(|workspace| workspace.id = "c".repeat(64))),
        ("workspace.base", with_workspace(|workspace| workspace.base = "HEAD".to_owned())),
        ("workspace.base", with_workspace(|workspace| workspace.base = "b".repeat(39))),
        ("workspace.origin", with_workspace(|workspace| workspace.origin = Some(String::new()))),
        ("workspace.origin", with_workspace(|workspace| workspace.origin = Some("ssh://a\nb".to_owned()))),
        ("workspace.origin", with_workspace(|workspace| workspace.origin = Some("u".repeat(8193)))),
        (
            "workspace.origin",
            with_workspace(|workspace| workspace.origin = Some("https://u:canary@a/b".to_owned())),
        ),
        ("artifacts", CreateTask { artifacts: vec!["../x".to_owned()], ..task("x") }),
        ("artifacts", CreateTask { artifacts: vec!["a".to_owned(); 101], ..task("x") }),
        ("credential.secret", with_credential("", None)),
        ("credential.secret", with_credential("canary7", None)),
        ("credential.secret", with_credential("canary\r\n7", None)),
        ("credential.secret", with_credential("canary-ü", None)),
        ("credential.base_url", with_credential("canary77", Some("file:///etc"))),
    ];
    for (field, task) in bad {
        match mayfly.engine.submit(task, None).await {
            Err(SubmitError::Invalid { field: named, reason }) => assert_eq!(named, field, "{reason}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    for bad in ["", &"k".repeat(101)] {
        let refused = mayfly.engine.submit(task("x"), key(bad)).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Invalid { field: "Idempotency-Key", .. }), "{refused:?}");
    }
    assert_eq!(mayfly.engine.tasks(crate::ALL).await.unwrap().len(), 0);
    assert_eq!(*mayfly.engine.unfinished().borrow(), 0);

    let good = [
        task("-p"),
        task(&"x".repeat(PROMPT_BYTES_MAX)),
        model("claude-sonnet-4-5[1m]"),
        budget(0.01),
        with_workspace(|_| {}),
        with_workspace(|workspace| workspace.base = "c".repeat(64)),
        with_credential("sk-ant-1", Some("http://127.0.0.1:1")),
    ];
    for task in good {
        mayfly.engine.submit(task, None).await.unwrap();
    }
}

/// R39, R01
#[tokio::test]
async fn fifty_who_submit_with_one_key_get_one_task() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let submits = (0..50).map(|_| {
        let engine = mayfly.engine.clone();
        tokio::spawn(async move { engine.submit(task("x"), key("one")).await.unwrap().id })
    });
    let mut ids = Vec::new();
    for submit in submits.collect::<Vec<_>>() {
        ids.push(submit.await.unwrap());
    }
    ids.dedup();
    assert_eq!((ids.len(), mayfly.engine.tasks(crate::ALL).await.unwrap().len()), (1, 1));
    assert_eq!(*mayfly.engine.unfinished().borrow(), 1);
    mayfly.machines.next().await.succeeds(&mayfly.engine).await;
    mayfly.all_finished().await;
    mayfly.restart().await;
    let again = mayfly.engine.submit(task("x"), key("one")).await.unwrap();
    assert_eq!((&again.id, again.state.as_str()), (&ids[0], "finished"));
    assert_eq!(*mayfly.engine.unfinished().borrow(), 0);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_task_is_refused() {
    let mayfly = TestEngine::start(at_once(1)).await;
    mayfly.engine.submit(task("x"), key("one")).await.unwrap();
    let refused = mayfly.engine.submit(task("y"), key("one")).await.unwrap_err();
    assert!(matches!(refused, SubmitError::KeyConflict), "{refused:?}");
    assert_eq!(*mayfly.engine.unfinished().borrow(), 1);
    let other = mayfly.engine.submit(task("y"), key("two")).await.unwrap();
    assert_eq!(other.title, "y");
}

/// G1: what is stored is run, though the one who asked has gone; and it keeps its credential.
#[tokio::test]
async fn a_task_whose_owner_left_while_it_was_stored_is_run() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    leave(mayfly.engine.submit(with_credential("a-secret", None), None)).await;
    let mut machine = mayfly.machines.next().await;
    let welcome = machine.boot(&mayfly.engine).await;
    let mayfly_wire::worker::Down::Welcome { order, .. } = welcome else { panic!("{welcome:?}") };
    assert!(mayfly.engine.admit_model(order.model_token.expose()).await.is_ok());
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.all_finished().await;
}
