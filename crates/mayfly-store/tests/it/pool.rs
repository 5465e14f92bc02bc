use mayfly_store::{NewTask, Pooled, Sealed, StoreError, Submitted, Whose};

use crate::{AT, id, new, open};

fn pooled(name: &str, sealed: &[u8]) -> Pooled {
    Pooled { name: name.to_owned(), sealed: sealed.to_vec(), created: AT, for_model: true }
}

fn uses(number: u32, name: Option<&str>) -> NewTask {
    NewTask { credential: Whose::Pool(name.map(str::to_owned)), ..new(number, None) }
}

#[tokio::test]
async fn a_name_is_taken_once_and_taken_over_where_that_is_asked_for() {
    let (store, _dir) = open();
    assert!(store.put_into_pool(pooled("b", b"1"), false).await.unwrap());
    assert!(store.put_into_pool(pooled("a", b"2"), true).await.unwrap());
    assert!(!store.put_into_pool(pooled("b", b"3"), false).await.unwrap());
    assert_eq!(store.pool().await.unwrap(), [pooled("a", b"2"), pooled("b", b"1")]);
    assert!(store.put_into_pool(pooled("b", b"3"), true).await.unwrap());
    assert!(store.remove_from_pool("a".to_owned()).await.unwrap());
    assert!(!store.remove_from_pool("a".to_owned()).await.unwrap());
    assert_eq!(store.pool().await.unwrap(), [pooled("b", b"3")]);
}

/// A task that names none gets the one called `default`, else the only one, and keeps the name.
#[tokio::test]
async fn a_task_keeps_the_name_that_it_was_submitted_with() {
    let (store, _dir) = open();
    let refused = |number, name| {
        let submit = store.submit(uses(number, name));
        async move { matches!(submit.await, Err(StoreError::NoCredential(_))) }
    };
    assert!(refused(1, None).await && refused(1, Some("work")).await, "there is none");
    store.put_into_pool(pooled("work", b"1"), false).await.unwrap();
    assert_eq!(store.submit(uses(1, None)).await.unwrap(), Submitted::New(id(1)));
    store.put_into_pool(pooled("home", b"2"), false).await.unwrap();
    assert!(refused(2, None).await, "there are two");
    store.put_into_pool(pooled("default", b"3"), false).await.unwrap();
    store.submit(uses(2, None)).await.unwrap();
    store.submit(uses(3, Some("home"))).await.unwrap();
    for (number, name) in [(1, "work"), (2, "default"), (3, "home")] {
        assert_eq!(store.task(id(number)).await.unwrap().unwrap().pooled.as_deref(), Some(name));
    }
    let found = async |number| store.credential(id(number)).await.unwrap();
    let as_now = |name: &str, sealed: Option<&[u8]>| {
        Some(Sealed::Pooled { name: name.to_owned(), sealed: sealed.map(<[u8]>::to_vec) })
    };
    assert_eq!(found(1).await, as_now("work", Some(b"1")));
    store.put_into_pool(pooled("work", b"4"), true).await.unwrap();
    assert_eq!(found(1).await, as_now("work", Some(b"4")));
    store.remove_from_pool("work".to_owned()).await.unwrap();
    assert_eq!(found(1).await, as_now("work", None));
    // What a task brings later outranks it.
    store.keep_credential(id(1), vec![5]).await.unwrap();
    assert_eq!(found(1).await, Some(Sealed::Own(vec![5])));
    assert_eq!(found(9).await, None);
}

/// Whoever asks again with the same key gets the task that is there, whatever has become of the pool.
#[tokio::test]
async fn a_task_that_is_known_needs_no_pool() {
    let (store, _dir) = open();
    store.put_into_pool(pooled("work", b"1"), false).await.unwrap();
    let same = |number| NewTask { credential: Whose::Pool(None), ..new(number, Some("key")) };
    store.submit(same(1)).await.unwrap();
    store.remove_from_pool("work".to_owned()).await.unwrap();
    assert_eq!(store.submit(same(2)).await.unwrap(), Submitted::Known(id(1)));
}

/// A secret of the library's servers is no credential for the model, whether it is named, called so or the only one.
#[tokio::test]
async fn a_secret_is_chosen_for_no_task() {
    let (store, _dir) = open();
    let secret = |name| Pooled { for_model: false, ..pooled(name, b"1") };
    let refused = async |number, name| {
        matches!(store.submit(uses(number, name)).await, Err(StoreError::NoCredential(_)))
    };
    store.put_into_pool(secret("token"), false).await.unwrap();
    assert!(refused(1, None).await && refused(1, Some("token")).await);
    store.put_into_pool(secret("default"), false).await.unwrap();
    assert!(refused(1, None).await);
    store.put_into_pool(pooled("work", b"2"), false).await.unwrap();
    store.submit(uses(1, None)).await.unwrap();
    assert_eq!(store.task(id(1)).await.unwrap().unwrap().pooled.as_deref(), Some("work"));
    assert_eq!(store.pool().await.unwrap()[0], secret("default"));
}
