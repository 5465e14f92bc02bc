//! All tasks' events in the order of their commits.

use mayfly_core::{Attempt, Event, TaskId};
use mayfly_store::Store;
use mayfly_wire::worker::{End, Record, Source};
use proptest::prelude::*;

use crate::{AT, change, id, open, policy, rules, submit};

pub(crate) async fn running(store: &Store, number: u32) {
    submit(store, number).await;
    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    store.apply(id(number), change(Event::Joined(Attempt(1)))).await.unwrap().unwrap();
}

/// Says `lines` after those that are stored.
pub(crate) async fn say(store: &Store, number: u32, lines: &[String]) {
    let attempt = id(number).attempt(Attempt(1));
    let stored = store.attempt(attempt).await.unwrap().unwrap().stored;
    let record = |(number, line): (u64, &String)| Record {
        number,
        at_ms: 0,
        source: Source::Claude,
        end: End::Newline,
        bytes: line.clone().into(),
    };
    let records = (stored + 1..).zip(lines).map(record).collect();
    store.ingest(attempt, records, AT, rules(), |_| ()).await.unwrap();
}

/// Every event after `after`, by its task, number and line, read in chunks that are full after `bytes_max`.
async fn read(store: &Store, after: u64, bytes_max: usize) -> Vec<(TaskId, u64, String)> {
    let (mut events, mut position) = (Vec::new(), after);
    while position < *store.head().borrow() {
        let chunk = store.feed(position, bytes_max).await.unwrap();
        assert!(chunk.position > position && chunk.position <= chunk.head && chunk.skipped == 0, "{chunk:?}");
        for run in &chunk.runs {
            let lines = std::str::from_utf8(&run.lines).unwrap().lines().map(str::to_owned);
            let numbered = (run.first_seq..=run.last_seq).zip(lines);
            events.extend(numbered.map(|(seq, line)| (run.task, seq, line)));
        }
        let tasks: Vec<TaskId> = chunk.runs.iter().map(|run| run.task).collect();
        assert!(tasks.windows(2).all(|two| two[0] != two[1]), "what follows is one run: {tasks:?}");
        position = chunk.position;
        assert_eq!(position, after + events.len() as u64, "each event has one position");
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// G3, G8: from any position on, and in chunks of any size, it is the same.
    #[test]
    fn every_event_has_one_place_among_all(
        said in proptest::collection::vec((1..=2_u32, 1..5_usize), 1..12),
        bytes_max in 1..2000_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, _dir) = open();
            running(&store, 1).await;
            running(&store, 2).await;
            for (turn, (task, lines)) in said.iter().enumerate() {
                let lines: Vec<String> = (0..*lines).map(|line| format!("{turn} {line}")).collect();
                say(&store, *task, &lines).await;
            }
            let all = read(&store, 0, usize::MAX).await;
            for (seq, line) in [(1, "queued"), (2, "launching"), (3, "running")] {
                assert!(all.iter().any(|event| event.1 == seq && event.2.contains(line)));
            }
            let turns = all.iter().filter_map(|(_, _, line)| line.split_once("\"text\":\"")?.1.split_once(' '));
            assert!(turns.map(|(turn, _)| turn.parse::<usize>().unwrap()).is_sorted(), "in the order of commits");
            for after in 0..=all.len() {
                assert_eq!(read(&store, after as u64, bytes_max).await, all[after..], "after {after}");
            }
        });
    }
}

/// A chunk is bounded though what was committed at once is not.
#[tokio::test]
async fn a_long_frame_is_several_runs() {
    let (store, _dir) = open();
    running(&store, 1).await;
    let lines: Vec<String> = (0..4).map(|_| "x".repeat(200_000)).collect();
    say(&store, 1, &lines).await;
    let mut chunks = Vec::new();
    let mut position = 3;
    while position < 7 {
        let chunk = store.feed(position, 1).await.unwrap();
        position = chunk.position;
        chunks.push(chunk);
    }
    assert_eq!(chunks.iter().map(|chunk| chunk.position).collect::<Vec<_>>(), [5, 7]);
    assert!(chunks.iter().all(|chunk| chunk.head == 7 && chunk.runs.len() == 1));
}

#[tokio::test]
async fn a_store_is_known_by_an_id_of_its_own() {
    let (store, dir) = open();
    let (other, _dir) = open();
    submit(&store, 1).await;
    let (id, head) = (store.id(), *store.head().borrow());
    assert_ne!(id, other.id());
    drop(store);
    let store = Store::open(&dir.path().join("db")).unwrap();
    assert_eq!((store.id(), *store.head().borrow()), (id, head));
}
