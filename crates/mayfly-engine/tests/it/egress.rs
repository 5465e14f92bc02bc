//! Where the machines of a task may go: durable, of one task, and on record.

use mayfly_core::egress::{Refusal, Verdict};
use mayfly_core::host::Target;
use mayfly_core::{AttemptId, Outcome, TaskId};
use mayfly_engine::{AllowError, Asked, SubmitError};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api::{ALLOWED_MAX, Allowed, CreateTask, Retry};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::{Down, WorkOrder};

fn to(hosts: &[&str]) -> CreateTask {
    CreateTask { allow: hosts.iter().map(|&host| host.to_owned()).collect(), ..task("x") }
}

fn with_credential() -> Retry {
    Retry { credential: task("x").credential, ..Retry::default() }
}

fn more(host: &str) -> Allowed {
    Allowed { hosts: vec![host.to_owned()] }
}

async fn running(mayfly: &mut TestEngine, task: CreateTask) -> (TaskId, SimMachine, WorkOrder) {
    let id = mayfly.submit(task).await;
    let mut machine = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = machine.boot(&mayfly.engine).await else { panic!("no welcome") };
    (id, machine, *order)
}

async fn may(mayfly: &TestEngine, attempt: AttemptId, target: &str) -> bool {
    let target = Target::parse(target, None).expect("a target");
    mayfly.engine.may_go(attempt, &target).await.expect("a store that works")
}

fn denied(host: &str, port: u16) -> Asked {
    let verdict = Verdict::Denied(Refusal::NotListed);
    Asked { host: host.to_owned(), port, verdict, words: "no".to_owned() }
}

/// I2, S25: nothing is nothing, and what is no host is no rule.
#[tokio::test]
async fn only_what_was_allowed_is() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, machine, _) = running(&mut mayfly, to(&[])).await;
    assert!(!may(&mayfly, machine.attempt(), "a.test:443").await);
    let (_, machine, _) = running(&mut mayfly, to(&["A.test.", "*.b.test:8443"])).await;
    assert!(may(&mayfly, machine.attempt(), "a.test:443").await);
    assert!(may(&mayfly, machine.attempt(), "x.b.test:8443").await);
    for target in ["a.test:8443", "b.test:8443", "x.b.test:443", "a.test.b.test:443", "xa.test:443"] {
        assert!(!may(&mayfly, machine.attempt(), target).await, "{target}");
    }
    for bad in ["", "*", "10.0.0.1", "http://a.test", "a.test:0", "a,b.test"] {
        let refused = mayfly.engine.submit(to(&["a.test", bad]), None).await.expect_err(bad);
        assert!(
            matches!(&refused, SubmitError::Invalid { field: "allow", reason } if reason.contains("number 2")),
            "{refused}"
        );
    }
    let many: Vec<String> = (0..=ALLOWED_MAX).map(|i| format!("h{i}.test")).collect();
    let refused =
        mayfly.engine.submit(CreateTask { allow: many, ..task("x") }, None).await.expect_err("many");
    assert!(refused.to_string().contains("10000 are the most"), "{refused}");
}

/// S25: ten thousand rules, and as many as there may be.
#[tokio::test]
async fn a_task_has_as_many_rules_as_it_may() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let allow: Vec<String> = (0..ALLOWED_MAX).map(|i| format!("h{i}.test")).collect();
    let (id, machine, _) = running(&mut mayfly, CreateTask { allow, ..task("x") }).await;
    assert!(may(&mayfly, machine.attempt(), "h9999.test:443").await);
    assert!(!may(&mayfly, machine.attempt(), "h10000.test:443").await);
    let full = mayfly.engine.allow(id, &more("one.test")).await.expect_err("full");
    assert!(matches!(full, AllowError::TooMany), "{full}");
    assert!(!may(&mayfly, machine.attempt(), "one.test:443").await);
    // What is there already is no more.
    mayfly.engine.allow(id, &more("H1.test")).await.expect("known");
}

/// A rule that was accepted holds over a restart, for its task alone, until that is over; a retry has it too.
#[tokio::test]
async fn what_is_allowed_while_a_task_runs_is_durable_and_its_own() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine, order) = running(&mut mayfly, to(&["a.test"])).await;
    let (_, neighbour, _) = running(&mut mayfly, to(&[])).await;
    let all = mayfly.engine.allow(id, &more("B.test:8443")).await.expect("running");
    assert_eq!(all.hosts, ["a.test", "b.test:8443"]);
    mayfly.restart().await;
    assert!(may(&mayfly, machine.attempt(), "b.test:8443").await);
    assert!(!may(&mayfly, neighbour.attempt(), "b.test:8443").await);
    let token = order.egress_token.expect("one");
    assert_eq!(mayfly.engine.admit_egress(token.expose()).await, Ok(machine.attempt()));

    machine.boot(&mayfly.engine).await;
    machine.starts().await;
    machine.ends(Outcome::Cancelled).await;
    assert!(!may(&mayfly, machine.attempt(), "a.test:443").await, "only while it runs");
    mayfly.engine.admit_egress(token.expose()).await.expect_err("over");
    machine.collected().await;
    mayfly.until_state(id, "finished").await;
    assert!(matches!(mayfly.engine.allow(id, &more("c.test")).await, Err(AllowError::Over(_))));
    let again = mayfly.engine.retry(id, with_credential(), None).await.expect("over").expect("there");
    let again: TaskId = again.id.parse().expect("an id");
    let allowed = mayfly.engine.allowed(again).await.expect("a store that works").expect("there");
    assert_eq!(allowed.hosts, ["a.test", "b.test:8443"]);
}

/// R14: what was asked for at first is kept with the task, whatever else of it is gone.
#[tokio::test]
async fn a_retry_of_what_is_old_may_go_where_it_was_asked_for() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(to(&["a.test"])).await;
    mayfly.machines.next().await.succeeds(&mayfly.engine).await;
    mayfly.outcome(id).await;
    mayfly.engine.stop().await;
    let store = mayfly_engine::Store::open(&mayfly.file()).expect("a store");
    store.begin_to_prune(id).await.expect("a store that works");
    while store.prune_step(id).await.expect("a store that works") {}
    assert!(store.allowed(id).await.expect("a store that works").is_empty());
    drop(store);
    mayfly.restart().await;
    let again = mayfly.engine.retry(id, with_credential(), None).await;
    let again: TaskId = again.expect("over").expect("there").id.parse().expect("an id");
    let allowed = mayfly.engine.allowed(again).await.expect("a store that works").expect("there");
    assert_eq!(allowed.hosts, ["a.test"]);
}

/// S40: the token of one route opens no other.
#[tokio::test]
async fn the_token_for_elsewhere_opens_nothing_else() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (_, machine, order) = running(&mut mayfly, to(&[])).await;
    let elsewhere = order.egress_token.expect("one");
    assert!(mayfly.engine.admit_model(elsewhere.expose()).await.is_err());
    assert!(mayfly.engine.admit_result(elsewhere.expose()).await.is_err());
    for token in
        [order.model_token.expose(), order.result_token.expose(), machine.hello().ticket.expose(), ""]
    {
        assert!(mayfly.engine.admit_egress(token).await.is_err(), "{token}");
    }
}

/// Each decision has a row, up to a bound for each kind; the first refusal of each host is told.
#[tokio::test]
async fn the_record_is_whole_as_far_as_it_goes() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, machine, _) = running(&mut mayfly, to(&[])).await;
    let keep =
        async |asked| mayfly.engine.keep_asked(machine.attempt(), asked).await.expect("a store that works");
    for port in [443, 80] {
        keep(denied("a.test", port)).await.expect("a row");
    }
    for _ in 0..1000 {
        drop(mayfly.engine.keep_asked(machine.attempt(), denied("b.test", 1)));
    }
    assert_eq!(keep(denied("c.test", 1)).await, None, "no room for more of this kind");
    let allowed = Asked { verdict: Verdict::Allowed, ..denied("d.test", 443) };
    let row = keep(allowed).await.expect("there is room for the others");
    mayfly.engine.keep_bytes(row, 3, 4).await.expect("a store that works");
    let record = mayfly.engine.egress(id).await.expect("a store that works").expect("there");
    assert_eq!((record.entries.len(), record.dropped), (1001, 3));
    let last = record.entries.last().expect("some");
    assert_eq!(
        (last.host.as_str(), last.decision.as_str(), last.sent, last.received),
        ("d.test", "allowed", 3, 4)
    );
    let told = mayfly.told(id).await.into_iter().filter_map(|(_, event)| match event {
        MayflyEvent::Denied { tool, message, host } => Some((tool, message, host)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    let first = |host: &str| ("network".to_owned(), "no".to_owned(), Some(host.to_owned()));
    assert_eq!(told, [first("a.test:443"), first("b.test:1")]);
    let [warned] = &mayfly.warnings(id).await[..] else { panic!("one") };
    assert!(warned.starts_with("1000 requests to other hosts were refused"), "{warned}");
}

/// S30: a secret that a machine asks for as a host is in no record and no event.
#[tokio::test]
async fn a_secret_in_the_name_of_a_host_is_masked() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, machine, order) = running(&mut mayfly, to(&[])).await;
    mayfly
        .engine
        .admit_model(order.model_token.expose())
        .await
        .expect("its credential is known from here on");
    let asked = Asked { words: "no Qmade-up-key.a.test".to_owned(), ..denied("Qmade-up-key.a.test", 443) };
    mayfly.engine.keep_asked(machine.attempt(), asked).await.expect("a store that works");
    let record = mayfly.engine.egress(id).await.expect("a store that works").expect("there");
    assert_eq!(record.entries[0].host, "************.a.test");
    let log = mayfly.log(id, 0).await;
    assert!(log.contains("************.a.test") && !log.contains("Qmade-up-key"), "{log}");
}
