//! Random frames, as broken links make them, against what the machine said: each record is there once, in order.

use mayfly_core::{Attempt, AttemptId, Event};
use mayfly_store::{IngestError, Store};
use mayfly_wire::event::{EventSource, MayflyEvent, is_json};
use mayfly_wire::worker::{End, Record, Report, Source};
use proptest::prelude::*;

use crate::{AT, change, id, log, open, policy, rules, submit};

/// A frame, by where it begins beside what is stored, and how many records it has.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// It begins so many records back, at what is next at the latest.
    Frame { back: u64, records: u64 },
    /// It begins so many records too late.
    Gap { missing: u64, records: u64 },
    /// The file is closed and opened again.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6_u64, 0..8_u64).prop_map(|(back, records)| Step::Frame { back, records }),
        2 => (1..3_u64, 1..4_u64).prop_map(|(missing, records)| Step::Gap { missing, records }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..30)
}

/// What the machine said, by its number: the same whenever it is sent.
fn record(number: u64) -> Record {
    let warning = Report::Warning { text: format!("{number}") };
    let (source, end, bytes) = match number % 5 {
        0 => (Source::Report, End::Newline, serde_json::to_vec(&warning).unwrap()),
        1 => (Source::Claude, End::Newline, format!("{{\"n\":{number}}}").into_bytes()),
        // No end of it may be the beginning of a secret, which would wait for more.
        2 => (Source::Claude, End::More, format!("{number},").into_bytes()),
        3 => (Source::Stderr, End::Newline, vec![0xff, u8::try_from(number % 251).unwrap()]),
        _ => (Source::Claude, End::Eof, format!("[{number}").into_bytes()),
    };
    Record { number, at_ms: number, source, end, bytes: bytes.into() }
}

async fn send(store: &Store, attempt: AttemptId, first: u64, records: u64) -> Result<u64, IngestError> {
    let records = (first..first + records).map(record).collect();
    store.ingest(attempt, records, AT, rules(), |_| ()).await.map(|ingested| ingested.stored)
}

/// The log after the machine's hello is what it said, up to the last record stored.
async fn compare(store: &Store, attempt: AttemptId, before: u64, stored: u64) {
    let lines = log(store, attempt.task, before).await;
    assert_eq!(lines.len() as u64, stored);
    for (line, said) in lines.iter().zip((1..).map(record)) {
        let event = mayfly_wire::event::Event::parse(line).unwrap();
        if let Some(told) = event.event {
            let text = said.number.to_string();
            assert_eq!((said.source, told), (Source::Report, MayflyEvent::Warning { text }));
            continue;
        }
        let source = if said.source == Source::Claude { EventSource::Claude } else { EventSource::Stderr };
        assert_eq!(event.source, source);
        let (more, eof) = (line.contains(r#","end":"more""#), line.contains(r#","end":"eof""#));
        assert_eq!((more, eof), (said.end == End::More, said.end == End::Eof));
        let mut bytes = said.bytes.to_vec();
        bytes.extend((said.end == End::Newline).then_some(b'\n'));
        assert_eq!(event.raw(), bytes);
        assert_eq!(event.line.is_some(), said.end != End::More && is_json(&said.bytes));
    }
    assert_eq!(store.attempt(attempt).await.unwrap().unwrap().stored, stored);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// G3, G4, R10: whatever is sent twice, overlaps or leaves a gap, also when the file is opened again.
    #[test]
    fn each_record_is_stored_once_and_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut store, dir) = open();
            let attempt = id(1).attempt(Attempt(1));
            submit(&store, 1).await;
            store.claim(policy(), "sim", AT).await.unwrap().unwrap();
            let joined = store.apply(id(1), change(Event::Joined(Attempt(1)))).await.unwrap().unwrap();
            let mut stored = 0_u64;
            for step in steps {
                match step {
                    Step::Frame { back, records } => {
                        let first = (stored + 1).saturating_sub(back).max(1);
                        let acknowledged = send(&store, attempt, first, records).await.unwrap();
                        stored = stored.max(first + records - 1);
                        assert_eq!(acknowledged, stored);
                    }
                    Step::Gap { missing, records } => {
                        let refused = send(&store, attempt, stored + 1 + missing, records).await;
                        let gap = (stored + 1 + missing, stored + 1);
                        assert!(
                            matches!(refused, Err(IngestError::Gap { found, expected }) if (found, expected) == gap),
                            "{refused:?}"
                        );
                    }
                    Step::Reopen => {
                        drop(store);
                        store = Store::open(&dir.path().join("db")).unwrap();
                    }
                }
            }
            compare(&store, attempt, joined.last_seq, stored).await;
        });
    }
}

/// R12: from each of ten thousand numbers on, a log goes on with the same bytes. What is read first is checked; what
/// follows it is read from its last number on, and that is checked as well.
#[tokio::test]
async fn a_log_of_ten_thousand_events_goes_on_from_each_of_them() {
    const EVENTS: u64 = 10_000;
    let (store, _dir) = open();
    submit(&store, 1).await;
    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    let attempt = id(1).attempt(Attempt(1));
    store.apply(id(1), change(Event::Joined(attempt.attempt))).await.unwrap().unwrap();
    let mut sent = 1;
    for records in (1..100).cycle() {
        let records = records.min(EVENTS + 1 - sent);
        if records == 0 {
            break;
        }
        send(&store, attempt, sent, records).await.unwrap();
        sent += records;
    }
    let (mut whole, mut last) = (Vec::new(), 0);
    while let Some(run) = store.log(id(1), last, usize::MAX).await.unwrap() {
        whole.extend_from_slice(&run.lines);
        last = run.last_seq;
    }
    assert!(last > EVENTS);
    let mut suffix = &whole[..];
    for after in 0..last {
        let run = store.log(id(1), after, 1).await.unwrap().unwrap();
        assert_eq!(run.first_seq, after + 1);
        assert!(suffix.starts_with(&run.lines), "after {after}");
        let lines = run.lines.split(|&byte| byte == b'\n').count() as u64 - 1;
        assert_eq!(run.last_seq, after + lines, "after {after}");
        suffix = &suffix[suffix.iter().position(|&byte| byte == b'\n').unwrap() + 1..];
    }
    assert!(suffix.is_empty() && store.log(id(1), last, 1).await.unwrap().is_none());
}
