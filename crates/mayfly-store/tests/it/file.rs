//! The file itself: whose it is, and that it keeps what was answered.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use mayfly_core::{Event, Policy};
use mayfly_store::{Change, Store, StoreError, Submitted};

use super::{at, new_task};

#[tokio::test]
async fn a_file_keeps_what_was_answered_and_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mayfly.db");
    let store = Store::open(&path).unwrap();
    let new = new_task(1);
    assert_eq!(store.submit(new.clone()).await.unwrap(), Submitted::New(new.id));
    let before = format!("{:?}", store.task(new.id).await.unwrap());
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(format!("{:?}", store.task(new.id).await.unwrap()), before);
    for file in fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_file_of_another_program_or_of_a_newer_mayfly_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "not a database, and long enough to have a header of its own, or so one would think")
        .unwrap();
    let foreign = dir.path().join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
    drop(other);
    let newer = dir.path().join("newer.db");
    drop(Store::open(&newer).unwrap());
    let later = rusqlite::Connection::open(&newer).unwrap();
    later.pragma_update(None, "user_version", 99).unwrap();
    drop(later);
    for path in [&text, &foreign] {
        let before = fs::read(path).unwrap();
        assert!(matches!(Store::open(path), Err(StoreError::Foreign(_))), "{path:?}");
        assert_eq!(fs::read(path).unwrap(), before);
    }
    let error = Store::open(&newer).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: 1, .. }), "{error}");
}

/// Commands that share a transaction do not share their failures.
#[tokio::test]
async fn a_command_that_fails_does_not_undo_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("mayfly.db")).unwrap();
    let mut conflict = new_task(2);
    conflict.idempotency_key = Some("key".to_owned());
    let mut other = new_task(3);
    other.idempotency_key = Some("key".to_owned());
    other.spec.prompt = "b".to_owned();
    let (first, second, third, fourth) = tokio::join!(
        store.submit(new_task(1)),
        store.submit(conflict),
        store.submit(other),
        store.submit(new_task(4)),
    );
    assert!(matches!(third, Err(StoreError::KeyConflict)), "{third:?}");
    assert!(first.is_ok() && second.is_ok() && fourth.is_ok());
    assert_eq!(store.tasks(10).await.unwrap().len(), 3);
}

/// A step that the state machine does not take leaves no trace.
#[tokio::test]
async fn a_late_event_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("mayfly.db")).unwrap();
    let new = new_task(1);
    store.submit(new.clone()).await.unwrap();
    let gone = Event::Gone(mayfly_core::Attempt(1));
    let change = Change { event: gone, at: at(), detail: None, provider: "sim", policy: Policy::default() };
    let before = format!("{:?}", store.task(new.id).await.unwrap());
    assert_eq!(store.apply(new.id, change).await.unwrap(), None);
    assert_eq!(format!("{:?}", store.task(new.id).await.unwrap()), before);
    assert_eq!(store.effects().await.unwrap(), []);
}
