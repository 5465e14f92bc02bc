//! Who gets a machine, and when.

use std::time::Duration;

use mayfly_engine::SubmitError;
use mayfly_testkit::{TestEngine, create};
use mayfly_wire::event::MayflyEvent;

#[tokio::test]
async fn a_task_goes_from_the_queue_to_its_end() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("fix it").await;
    test.machines.next().await.boot(&test.engine).await.succeeds().await;
    assert_eq!(test.outcome(task).await, ("succeeded".to_owned(), String::new()));
    let story = test.story(task).await;
    let expected = [
        "queued",
        "launching",
        "running",
        "started",
        "ready",
        "collecting",
        "collected",
        "releasing",
        "finished",
    ];
    assert_eq!(story, expected);
    assert_eq!(test.machines.left(), 0);
}

/// G7: the count is of machines that were really there.
#[tokio::test]
async fn fifty_tasks_never_have_more_machines_than_allowed_and_go_in_order() {
    let mut test = TestEngine::start(|rules| rules.policy.machines_max = 3.try_into().unwrap()).await;
    let mut tasks = Vec::new();
    for number in 0..50 {
        tasks.push(test.submit(&format!("task {number}")).await);
    }
    let mut order = Vec::new();
    for number in 0..50 {
        let machine = test.machines.next().await;
        order.push(machine.spec.attempt.task);
        machine.boot(&test.engine).await.succeeds().await;
        if number % 20 == 10 {
            test.restart().await;
        }
    }
    for &task in &tasks {
        assert_eq!(test.outcome(task).await.0, "succeeded");
    }
    assert_eq!(test.machines.most(), 3);
    // Three are made side by side, so two neighbours may change places; nobody is overtaken by more.
    for (place, task) in order.iter().enumerate() {
        let rank = tasks.iter().position(|other| other == task).unwrap();
        assert!(rank.abs_diff(place) < 3, "task {rank} came as number {place}");
    }
    assert_eq!(test.machines.left(), 0);
}

#[tokio::test]
async fn a_slot_is_free_only_when_the_machine_is_gone() {
    let mut test = TestEngine::start(|rules| rules.policy.machines_max = 1.try_into().unwrap()).await;
    let (first, second) = (test.submit("first").await, test.submit("second").await);
    let machine = test.machines.next().await;
    let worker = machine.boot(&test.engine).await;
    test.machines.answer([mayfly_testkit::Answer::Unclear]);
    worker.succeeds().await;
    test.until(first, |event| *event == MayflyEvent::Releasing).await;
    assert_eq!(test.task(second).await.state, "queued");
    test.clock.pass(Duration::from_millis(100)).await;
    assert_eq!(test.outcome(first).await.0, "succeeded");
    test.machines.next().await.boot(&test.engine).await.succeeds().await;
    assert_eq!(test.outcome(second).await.0, "succeeded");
    assert_eq!(test.machines.most(), 1);
}

/// R39, G1.
#[tokio::test]
async fn fifty_who_submit_with_one_key_get_one_task() {
    let test = TestEngine::start(|rules| rules.policy.machines_max = 1.try_into().unwrap()).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let engine = test.engine.clone();
        asked.spawn(async move { engine.submit(create("once"), Some("key".to_owned())).await.unwrap().id });
    }
    let ids = asked.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(test.engine.tasks().await.unwrap().len(), 1);
    assert_eq!(*test.engine.unfinished().borrow(), 1);
    let other = test.engine.submit(create("other"), Some("key".to_owned())).await;
    assert!(matches!(other, Err(SubmitError::KeyConflict)), "{other:?}");
}

#[tokio::test]
async fn what_cannot_be_a_task_is_refused_with_the_fields_name() {
    let test = TestEngine::start(|_| {}).await;
    let workspace = |id: &str, name: &str, base: &str| mayfly_wire::api::Workspace {
        id: id.to_owned(),
        name: name.to_owned(),
        base: base.to_owned(),
    };
    let (id, base) = ("a".repeat(64), "b".repeat(40));
    let mut bad = Vec::new();
    for prompt in [String::new(), " \n".to_owned(), "a\0b".to_owned(), "x".repeat((1 << 20) + 1)] {
        bad.push(("prompt", create(&prompt)));
    }
    for (field, id, name, base) in [
        ("workspace.id", "../x", "repo", &*base),
        ("workspace.name", &*id, "..", &*base),
        ("workspace.name", &*id, "a/b", &*base),
        ("workspace.base", &*id, "repo", "HEAD"),
        ("workspace.id", &*id, "repo", &*base),
    ] {
        let mut task = create("x");
        task.workspace = Some(workspace(id, name, base));
        bad.push((field, task));
    }
    let mut with = |field, adjust: fn(&mut mayfly_wire::api::CreateTask)| {
        let mut task = create("x");
        adjust(&mut task);
        bad.push((field, task));
    };
    with("model", |task| task.model = Some("-x".to_owned()));
    with("timeout_ms", |task| task.timeout_ms = Some(0));
    with("idle_timeout_ms", |task| task.idle_timeout_ms = Some(0));
    with("max_turns", |task| task.max_turns = Some(0));
    with("max_budget_usd", |task| task.max_budget_usd = Some(f64::NAN));
    for (expected, task) in bad {
        match test.engine.submit(task, None).await {
            Err(SubmitError::Invalid { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(test.engine.tasks().await.unwrap(), []);
}

/// R32.
#[tokio::test]
async fn a_task_can_be_cancelled_in_every_state_and_twice() {
    let mut test = TestEngine::start(|rules| rules.policy.machines_max = 1.try_into().unwrap()).await;
    let cancel = |id| {
        let engine = test.engine.clone();
        async move { engine.cancel(id, false).await.unwrap().unwrap() }
    };
    let (launching, queued) = (test.submit("a").await, test.submit("b").await);
    let machine = test.machines.next().await;
    assert_eq!(cancel(queued).await.state, "finished");
    cancel(launching).await;
    cancel(launching).await;
    assert_eq!(test.outcome(launching).await.0, "cancelled");
    drop(machine);

    let running = test.submit("c").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    cancel(running).await;
    assert!(matches!(worker.hears().await, mayfly_wire::worker::Down::Collect));
    assert_eq!(cancel(running).await.state, "collecting");
    worker.ends("succeeded", None).await;
    worker.collected().await;
    assert_eq!(test.outcome(running).await.0, "cancelled", "the first ending wins");
    assert_eq!(cancel(running).await.state, "finished");
    assert_eq!(test.machines.left(), 0);
    let nobody = "0193b2c4-0000-7000-8000-0123456789ab".parse().unwrap();
    assert_eq!(test.engine.cancel(nobody, true).await.unwrap(), None);
}

#[tokio::test]
async fn a_forced_end_waits_for_no_work() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    test.engine.cancel(task, true).await.unwrap();
    assert_eq!(test.outcome(task).await, ("cancelled".to_owned(), "cancelled by its owner".to_owned()));
    assert_eq!(test.machines.left(), 0);
}
