//! No configured secret is in a log, wherever it is cut, and what an attempt uses is counted.

use mayfly_core::{Attempt, AttemptId, Event, Limit};
use mayfly_store::{Store, Used};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::{End, Record, Report, Source};

use crate::{AT, CANARY, change, id, log, open, rules, submit};

async fn running(store: &Store) -> AttemptId {
    submit(store, 1).await;
    store.claim(rules().policy, "sim", AT).await.unwrap();
    let attempt = id(1).attempt(Attempt(1));
    store.apply(id(1), change(Event::Joined(attempt.attempt))).await.unwrap();
    attempt
}

async fn say(store: &Store, attempt: AttemptId, number: u64, source: Source, end: End, bytes: &[u8]) {
    let record = Record { number, at_ms: 0, source, end, bytes: bytes.to_vec().into() };
    store.ingest(attempt, vec![record], AT, rules(), |_| ()).await.unwrap();
}

/// S30, G3: in one frame each, with other records between, and with the file closed and opened after each.
#[tokio::test]
async fn a_secret_that_is_cut_over_parts_of_a_line_is_masked_in_them() {
    let (mut store, dir) = open();
    let attempt = running(&store).await;
    let line = format!("before {CANARY} {CANARY} sk-can");
    let mut number = 0;
    for piece in line.as_bytes().chunks(5) {
        number += 1;
        say(&store, attempt, number, Source::Claude, End::More, piece).await;
        number += 1;
        say(&store, attempt, number, Source::Stderr, End::Newline, b"between").await;
        drop(store);
        store = Store::open(&dir.path().join("db")).unwrap();
    }
    say(&store, attempt, number + 1, Source::Claude, End::Newline, b"oe").await;
    let events = log(&store, id(1), 0).await;
    let (mut said, mut places) = (String::new(), 0);
    for line in &events {
        let event = mayfly_wire::event::Event::parse(line).unwrap();
        places += event.redacted.unwrap_or_default();
        if event.source == mayfly_wire::event::EventSource::Claude {
            said.push_str(&String::from_utf8(event.raw()).unwrap());
        }
    }
    let stars = "*".repeat(CANARY.len());
    assert_eq!((said.as_str(), places), (format!("before {stars} {stars} sk-canoe\n").as_str(), 2));
}

/// S30: nothing of it is told, since it may be most of a secret.
#[tokio::test]
async fn what_waits_when_its_machine_is_lost_is_told_by_its_length() {
    let (store, _dir) = open();
    let attempt = running(&store).await;
    say(&store, attempt, 1, Source::Claude, End::More, &CANARY.as_bytes()[..13]).await;
    store.apply(id(1), change(Event::Vanished(attempt.attempt))).await.unwrap();
    let events = log(&store, id(1), 0).await;
    let told = events.iter().find(|line| line.contains("redacted")).unwrap();
    assert!(told.ends_with(r#""end":"more","redacted":1,"text":"*************"}"#), "{told}");
    assert!(!events.concat().contains("canary"));
}

/// S17, S30: the words of a worker.
#[tokio::test]
async fn a_secret_in_a_report_is_masked_and_the_report_still_counts() {
    let (store, _dir) = open();
    let attempt = running(&store).await;
    let text = format!("a\n{CANARY}");
    let reports = [
        Report::Warning { text: text.clone() },
        Report::Ended { outcome: "claude-error".to_owned(), detail: Some(text) },
    ];
    for (number, report) in (1..).zip(&reports) {
        let report = serde_json::to_vec(report).unwrap();
        say(&store, attempt, number, Source::Report, End::Newline, &report).await;
    }
    let events = log(&store, id(1), 0).await;
    assert!(!events.concat().contains("canary"));
    let told = events.iter().filter_map(|line| mayfly_wire::event::Event::parse(line).unwrap().event);
    let masked = format!("a\n{}", "*".repeat(CANARY.len()));
    assert!(told.clone().any(|event| event == MayflyEvent::Warning { text: masked.clone() }));
    let task = store.task(id(1)).await.unwrap().unwrap();
    assert_eq!((task.state.name(), task.detail), ("collecting", Some(masked)));
    store.apply(id(1), change(Event::Expired(attempt.attempt, Limit::Collect))).await.unwrap();
}

#[tokio::test]
async fn what_an_attempt_uses_adds_up_by_model_and_its_cost_never_falls() {
    let (store, _dir) = open();
    let attempt = running(&store).await;
    let used = |model: &str| Used {
        model: model.to_owned(),
        requests: 1,
        turns: 1,
        input_tokens: 2,
        output_tokens: 3,
        cache_read_tokens: 5,
        cache_write_tokens: 7,
    };
    store.use_up(attempt, used("a")).await.unwrap();
    store.use_up(attempt, used("a")).await.unwrap();
    for (number, usd) in [(1, 0.25), (2, 0.125)] {
        let report = serde_json::to_vec(&Report::Cost { usd }).unwrap();
        say(&store, attempt, number, Source::Report, End::Newline, &report).await;
    }
    let all = store.use_up(attempt, used("b")).await.unwrap();
    let twice = Used { requests: 2, turns: 2, input_tokens: 4, output_tokens: 6, ..used("a") };
    let twice = Used { cache_read_tokens: 10, cache_write_tokens: 14, ..twice };
    assert_eq!((all.models, all.cost_usd), (vec![twice, used("b")], Some(0.25)));
    for number in 0..100 {
        store.use_up(attempt, used(&number.to_string())).await.unwrap();
    }
    let models = store.usage(id(1)).await.unwrap().remove(0).models;
    assert_eq!(models.len(), 33);
    assert_eq!(models.iter().map(|used| used.requests).sum::<u64>(), 103);
}
