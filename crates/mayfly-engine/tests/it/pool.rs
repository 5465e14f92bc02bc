//! The pool of credentials, and the tasks that use it.

use mayfly_core::{Outcome, TaskId};
use mayfly_engine::{Engine, NoCredential, NoModel, PoolError, SubmitError};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::api::{AddCredential, CreateTask, Credential, CredentialKind, CredentialMode, Retry};
use mayfly_wire::worker::{Down, WorkOrder};

const CANARY: &str = "canary-91d2e7";

fn add(name: &str, secret: &str, mode: CredentialMode) -> AddCredential {
    let credential = Credential::new(CredentialKind::OauthToken, secret.to_owned().into(), None);
    AddCredential { name: name.to_owned(), credential: Credential { mode, ..credential }, replace: false }
}

async fn has(mayfly: &TestEngine, name: &str, secret: &str) {
    let added = AddCredential { replace: true, ..add(name, secret, CredentialMode::Broker) };
    mayfly.engine.add_credential(added).await.unwrap();
}

fn uses(name: Option<&str>) -> CreateTask {
    CreateTask { credential: None, credential_name: name.map(str::to_owned), ..task("x") }
}

async fn running(mayfly: &mut TestEngine, task: CreateTask) -> (TaskId, SimMachine, WorkOrder) {
    let id = mayfly.submit(task).await;
    let mut machine = mayfly.machines.next().await;
    let Down::Welcome { order, .. } = machine.boot(&mayfly.engine).await else { panic!("no welcome") };
    (id, machine, *order)
}

async fn model(engine: &Engine, order: &WorkOrder) -> Result<String, NoModel> {
    let access = engine.admit_model(order.model_token.expose()).await?;
    Ok(access.credential.secret.expose().to_owned())
}

/// R41: what is in the pool counts whenever it is asked, over a restart too.
#[tokio::test]
async fn each_request_uses_what_the_pool_has_then() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    has(&mayfly, "work", "secret-one").await;
    let (id, _machine, order) = running(&mut mayfly, uses(None)).await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok("secret-one"));
    assert_eq!(mayfly.task(id).await.credential_name.as_deref(), Some("work"));
    has(&mayfly, "work", "secret-two").await;
    has(&mayfly, "default", "secret-another").await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok("secret-two"));
    mayfly.restart().await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok("secret-two"));
    mayfly.engine.remove_credential("work").await.unwrap();
    let removed = NoModel::Credential(NoCredential::Removed("work".to_owned()));
    assert_eq!(model(&mayfly.engine, &order).await, Err(removed));
    has(&mayfly, "work", "secret-three").await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok("secret-three"));
}

/// S32: with another key nothing of it can be read, and whoever asks is told why.
#[tokio::test]
async fn a_pool_that_was_sealed_with_another_key_says_so() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    has(&mayfly, "work", CANARY).await;
    let (_, _machine, order) = running(&mut mayfly, uses(None)).await;
    for file in ["mayfly.db", "mayfly.db-wal"] {
        let bytes = std::fs::read(mayfly.file().with_file_name(file)).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()), "{file}");
    }
    let pool = format!("{:?} {:?}", mayfly.engine, mayfly.engine.credentials().await.unwrap());
    assert!(pool.contains("work") && !pool.contains(CANARY));
    let old = mayfly.config.key;
    mayfly.config.key = [8; 32];
    mayfly.restart().await;
    let [one] = &mayfly.engine.credentials().await.unwrap()[..] else { panic!("one") };
    assert_eq!((one.name.as_str(), &one.about), ("work", &None));
    let tried = mayfly.engine.pooled_credential("work").await.unwrap_err();
    assert!(tried.to_string().contains("another key"), "{tried}");
    mayfly.config.key = old;
    mayfly.restart().await;
    assert_eq!(model(&mayfly.engine, &order).await.as_deref(), Ok(CANARY));
}

/// A seal is good for the name that it was made for: a row that was moved in the file opens nothing.
#[tokio::test]
async fn a_seal_under_another_name_is_not_opened() {
    let mayfly = TestEngine::start(|_| {}).await;
    has(&mayfly, "work", CANARY).await;
    let store = mayfly_engine::Store::open(&mayfly.file()).unwrap();
    let mut pooled = store.pool().await.unwrap().remove(0);
    pooled.name = "other".to_owned();
    store.put_into_pool(pooled, false).await.unwrap();
    assert!(matches!(mayfly.engine.pooled_credential("other").await, Err(PoolError::OtherKey(_))));
    assert!(mayfly.engine.pooled_credential("work").await.is_ok());
}

/// S15: a machine gets nothing of a credential but where its mode says so.
#[tokio::test]
async fn a_machine_is_handed_a_credential_only_by_its_mode() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    for (name, mode, by_descriptor) in [
        ("broker", CredentialMode::Broker, None),
        ("inject", CredentialMode::Inject, Some(false)),
        ("descriptor", CredentialMode::InjectDescriptor, Some(true)),
    ] {
        mayfly.engine.add_credential(add(name, CANARY, mode)).await.unwrap();
        let (_, mut machine, order) = running(&mut mayfly, uses(Some(name))).await;
        let handed = order.credential.as_ref();
        assert_eq!(handed.map(|handed| handed.by_descriptor), by_descriptor, "{name}");
        assert!(handed.is_none_or(|handed| handed.secret.expose() == CANARY));
        assert!(!format!("{order:?}").contains(CANARY));
        machine.starts().await;
        machine.ends(Outcome::Succeeded).await;
        machine.collected().await;
    }
}

/// What a task that is over used is used again, unless it is said otherwise.
#[tokio::test]
async fn a_retry_keeps_the_choice() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    has(&mayfly, "default", "the-usual").await;
    has(&mayfly, "work", "the-chosen").await;
    let (id, mut machine, _) = running(&mut mayfly, uses(Some("work"))).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.outcome(id).await;
    let other = Retry { credential_name: Some("default".to_owned()), ..Retry::default() };
    let own = Retry { credential: task("x").credential, ..Retry::default() };
    for (retry, name) in [(Retry::default(), Some("work")), (other, Some("default")), (own, None)] {
        let again = mayfly.engine.retry(id, retry, None).await.unwrap().unwrap();
        assert_eq!(again.credential_name.as_deref(), name);
    }
    mayfly.engine.remove_credential("work").await.unwrap();
    let gone = mayfly.engine.retry(id, Retry::default(), None).await.unwrap_err();
    assert!(matches!(&gone, SubmitError::NoCredential(why) if why.contains("`work`")), "{gone}");
}

/// S30: the reason never repeats the secret.
#[tokio::test]
async fn what_cannot_be_in_the_pool_is_named() {
    let mayfly = TestEngine::start(|_| {}).await;
    let refused = async |adding: AddCredential| {
        let error = mayfly.engine.add_credential(adding).await.unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
        error
    };
    let broker = CredentialMode::Broker;
    assert!(refused(add("-x", CANARY, broker)).await.contains("a credential's name"));
    assert!(refused(add("x", "canary canary", broker)).await.contains("credential.secret"));
    assert!(refused(add("x", "", broker)).await.contains("credential.secret"));
    let mut bearer = add("x", CANARY, CredentialMode::InjectDescriptor);
    bearer.credential.kind = CredentialKind::Bearer;
    assert!(refused(bearer).await.contains("credential.mode"));
    let mut nowhere = add("x", CANARY, broker);
    nowhere.credential.base_url = Some("file:///canary".to_owned());
    assert!(refused(nowhere).await.contains("credential.base_url"));
    assert!(mayfly.engine.credentials().await.unwrap().is_empty());
    for n in 0..100 {
        mayfly.engine.add_credential(add(&format!("n{n}"), CANARY, broker)).await.unwrap();
    }
    assert!(refused(add("one-more", CANARY, broker)).await.contains("already"));
    assert!(refused(add("n7", CANARY, broker)).await.contains("of this name"));
    has(&mayfly, "n7", CANARY).await;
    let both = CreateTask { credential_name: Some("n7".to_owned()), ..task("x") };
    let both = mayfly.engine.submit(both, None).await.unwrap_err();
    assert!(both.to_string().contains("credential_name"), "{both}");
}

/// R41: once for each attempt, however often `claude` asks.
#[tokio::test]
async fn a_refused_credential_is_told_once() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    has(&mayfly, "work", CANARY).await;
    let (id, machine, _) = running(&mut mayfly, uses(None)).await;
    for _ in 0..3 {
        mayfly.engine.credential_refused(machine.attempt()).await.unwrap();
    }
    mayfly.engine.cancel(id, true).await.unwrap();
    mayfly.outcome(id).await;
    mayfly.engine.credential_refused(machine.attempt()).await.unwrap();
    let warnings = mayfly.warnings(id).await;
    assert!(
        matches!(&warnings[..], [text] if text.contains("refused the credential `work` (401)")),
        "{warnings:?}"
    );
}

/// S30: of those who change the pool at once, nobody's older list takes the place of a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_the_pool_at_once_all_that_is_in_it_is_known() {
    let mayfly = TestEngine::start(|_| {}).await;
    for round in 0..40 {
        let change = async |n| has(&mayfly, "work", &format!("made-up-secret-{round}-{n}-x")).await;
        tokio::join!(change(0), change(1), change(2), change(3), change(4), change(5), change(6), change(7));
        let there = mayfly.engine.pooled_credential("work").await.unwrap();
        let known = mayfly.engine.redactor().redact(there.secret.expose().as_bytes());
        assert!(known.is_some(), "round {round}");
    }
}
