//! What is old goes, in steps, and what is missing is named.

use jiff::Timestamp;
use mayfly_core::{Attempt, Event};
use mayfly_store::{LogError, NewTask, Resumed, Store, StoreError, Submitted};

use crate::feed::{running, say};
use crate::{AT, change, id, log, new, open, policy, submit};

async fn end(store: &Store, number: u32) {
    for event in [Event::Aborted, Event::Gone(Attempt(1))] {
        store.apply(id(number), change(event)).await.unwrap().unwrap();
    }
}

async fn gone(store: &Store, number: u32, after: u64) -> u64 {
    match store.log(id(number), after, usize::MAX).await {
        Err(LogError::Gone { first }) => first,
        other => panic!("{other:?}"),
    }
}

/// R14: the log goes from its beginning, and whoever asks for what is gone is told what is left.
#[tokio::test]
async fn a_log_goes_in_steps_and_its_end_last() {
    let (store, dir) = open();
    running(&store, 1).await;
    for _ in 0..10 {
        say(&store, 1, &["x".repeat(900_000)]).await;
    }
    end(&store, 1).await;
    let whole = log(&store, id(1), 0).await;
    store.begin_to_prune(id(1)).await.unwrap();
    assert!(store.task(id(1)).await.unwrap().unwrap().pruned);
    assert_eq!(log(&store, id(1), 0).await, whole, "only marked");
    assert!(store.prune_step(id(1)).await.unwrap());
    let first = gone(&store, 1, 0).await;
    assert!(first > 4 && first < 12, "{first}");
    assert!(
        matches!(store.check_kept(id(1), first - 2).await, Err(LogError::Gone { first: f }) if f == first)
    );
    store.check_kept(id(1), first - 1).await.unwrap();
    let kept = usize::try_from(first).unwrap() - 1;
    assert_eq!(log(&store, id(1), first - 1).await, whole[kept..]);
    drop(store);
    let store = Store::open(&dir.path().join("db")).unwrap();
    assert_eq!(store.expired(Timestamp::MAX, 9).await.unwrap(), [id(1)], "to be gone on with");
    while store.prune_step(id(1)).await.unwrap() {}
    let last = whole.len() as u64;
    assert_eq!(gone(&store, 1, 0).await, last + 1);
    assert_eq!(store.log(id(1), last, usize::MAX).await.unwrap(), None);
    assert_eq!(store.expired(Timestamp::MAX, 9).await.unwrap(), []);
    let task = store.task(id(1)).await.unwrap().unwrap();
    assert_eq!((task.last_seq, task.state.name(), task.pruned), (last, "finished", true));
}

/// R14: a reader of all tasks learns how much is missing, and no position is given twice.
#[tokio::test]
async fn positions_that_are_gone_are_counted_and_never_given_again() {
    let (store, dir) = open();
    running(&store, 1).await;
    running(&store, 2).await;
    say(&store, 1, &["a".to_owned()]).await;
    say(&store, 2, &["b".to_owned()]).await;
    end(&store, 1).await;
    end(&store, 2).await;
    let head = *store.head().borrow();
    // Those of the second are the newest.
    for number in [1, 2] {
        let before = store.feed(0, usize::MAX).await.unwrap();
        let kept = |chunk: &mayfly_store::FeedChunk| -> u64 {
            chunk.runs.iter().map(|run| run.last_seq + 1 - run.first_seq).sum()
        };
        store.begin_to_prune(id(number)).await.unwrap();
        assert!(!store.prune_step(id(number)).await.unwrap());
        let after = store.feed(0, usize::MAX).await.unwrap();
        assert_eq!((after.position, after.head), (head, head));
        assert_eq!(kept(&after) + after.skipped, head);
        assert!(after.skipped > before.skipped && after.runs.iter().all(|run| run.task != id(number)));
    }
    drop(store);
    let store = Store::open(&dir.path().join("db")).unwrap();
    assert_eq!(*store.head().borrow(), head);
    submit(&store, 3).await;
    let chunk = store.feed(0, usize::MAX).await.unwrap();
    assert_eq!((chunk.skipped, chunk.position, chunk.runs.len()), (head, head + 1, 1));
}

/// R14: who keeps whole logs is not given the rest of one that is half gone, and learns how much it misses.
#[tokio::test]
async fn a_log_that_is_half_gone_is_in_the_feed_no_more() {
    let (store, _dir) = open();
    running(&store, 1).await;
    for _ in 0..10 {
        say(&store, 1, &["x".repeat(900_000)]).await;
    }
    end(&store, 1).await;
    submit(&store, 2).await;
    let head = *store.head().borrow();
    store.begin_to_prune(id(1)).await.unwrap();
    assert!(store.prune_step(id(1)).await.unwrap(), "some of it is left");
    let chunk = store.feed(0, usize::MAX).await.unwrap();
    assert_eq!((chunk.skipped, chunk.position), (head - 1, head));
    assert!(chunk.runs.iter().all(|run| run.task == id(2)), "{:?}", chunk.runs.len());
}

#[tokio::test]
async fn only_what_is_over_for_long_enough_is_old() {
    let (store, _dir) = open();
    for number in 1..=2 {
        running(&store, number).await;
    }
    let mut late = change(Event::Aborted);
    late.at = Timestamp::from_second(100).unwrap();
    for event in [late.event, Event::Gone(Attempt(1))] {
        store.apply(id(1), mayfly_store::Change { event, ..late.clone() }).await.unwrap().unwrap();
    }
    for (second, old) in [(99, &[][..]), (100, &[]), (101, &[id(1)])] {
        let before = Timestamp::from_second(second).unwrap();
        assert_eq!(store.expired(before, 9).await.unwrap(), old, "{second}");
    }
    store.begin_to_prune(id(2)).await.unwrap();
    assert!(!store.task(id(2)).await.unwrap().unwrap().pruned, "it still runs");
}

#[tokio::test]
async fn code_is_named_until_the_last_task_on_it_is_old() {
    let (store, _dir) = open();
    for number in 1..=3 {
        let mut new = crate::new(number, None);
        new.spec.workspace = (number < 3).then(|| mayfly_wire::api::Workspace {
            on: None,
            origin: None,
            id: "a".repeat(64),
            name: "r".to_owned(),
            base: String::new(),
        });
        store.submit(new).await.unwrap();
        store.apply(id(number), change(Event::Cancelled)).await.unwrap().unwrap();
    }
    for number in 1..=2 {
        assert_eq!(store.workspaces().await.unwrap(), ["a".repeat(64)]);
        store.begin_to_prune(id(number)).await.unwrap();
    }
    assert_eq!(store.workspaces().await.unwrap(), [""; 0]);
}

/// What a task goes on with stays as long as that task could be tried again; and nobody begins to go on with what goes.
#[tokio::test]
async fn what_a_task_goes_on_with_is_kept_as_long_as_the_task() {
    let (store, _dir) = open();
    let on = |number: u32, earlier: u32| {
        let resumes = Some(Resumed { task: id(earlier), session: Some("s".to_owned()) });
        NewTask { resumes, ..new(number, Some(&format!("key {number}"))) }
    };
    running(&store, 1).await;
    end(&store, 1).await;
    store.submit(on(2, 1)).await.unwrap();
    assert_eq!(store.submit(on(2, 1)).await.unwrap(), Submitted::Known(id(2)));
    let other = NewTask { resumes: None, ..on(2, 1) };
    assert!(matches!(store.submit(other).await, Err(StoreError::KeyConflict)), "another task");
    let row = store.task(id(2)).await.unwrap().unwrap();
    assert_eq!(row.resumes.unwrap().task, id(1));
    assert_eq!(store.expired(Timestamp::MAX, 9).await.unwrap(), []);
    assert!(!store.begin_to_prune(id(1)).await.unwrap(), "the second goes on with it");

    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    end(&store, 2).await;
    assert_eq!(store.expired(Timestamp::MAX, 9).await.unwrap(), [id(2)]);
    assert!(store.begin_to_prune(id(2)).await.unwrap());
    assert_eq!(store.expired(Timestamp::MAX, 9).await.unwrap(), [id(1), id(2)]);
    let late = store.submit(on(3, 2)).await;
    assert!(matches!(&late, Err(StoreError::Pruned(short)) if *short == id(2).short()), "{late:?}");
    assert!(store.begin_to_prune(id(1)).await.unwrap());
}
