//! What machines say, stored once; what readers get.

use bytes::Bytes;
use mayfly_engine::IngestError;
use mayfly_testkit::TestEngine;
use mayfly_wire::worker::{Record, Source};

fn lines(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(r#""source":"claude""#)).collect()
}

/// G3: duplicates and overlaps are stored once; a gap is refused whole.
#[tokio::test]
async fn records_are_stored_once_and_without_a_gap() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    let records: Vec<Record> =
        (0..6).map(|n| worker.record(Source::Claude, Bytes::from(format!(r#"{{"n":{n}}}"#)))).collect();
    let first = records[0].number;
    assert_eq!(worker.sends(records[..3].to_vec()).await.unwrap(), first + 2);
    assert_eq!(worker.sends(records[..3].to_vec()).await.unwrap(), first + 2);
    assert_eq!(worker.sends(records[1..5].to_vec()).await.unwrap(), first + 4);
    let mut gap = records[5].clone();
    gap.number += 1;
    let refused = worker.sends(vec![gap]).await;
    assert!(
        matches!(refused, Err(IngestError::Gap { found, expected }) if (found, expected) == (first + 6, first + 5))
    );
    assert_eq!(worker.sends(records[5..].to_vec()).await.unwrap(), first + 5);
    worker.ends("succeeded", None).await;
    worker.collected().await;
    let log = test.log(task).await;
    let said: Vec<String> = (0..6).map(|n| format!(r#""line":{{"n":{n}}}}}"#)).collect();
    assert!(lines(&log).iter().zip(&said).all(|(line, said)| line.ends_with(said)), "{log}");
    assert_eq!(lines(&log).len(), 6);
}

/// S42: what looks like a report on the output of `claude` is only a line.
#[tokio::test]
async fn a_line_that_looks_like_a_report_changes_nothing() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    worker.says(r#"{"type":"ended","outcome":"succeeded"}"#).await;
    assert_eq!(test.task(task).await.state, "running");
    let bad = worker.record(Source::Report, Bytes::from_static(b"{\"type\":\"sung\"}"));
    let refused = worker.sends(vec![bad]).await;
    assert!(matches!(refused, Err(IngestError::BadReport { .. })), "{refused:?}");
    test.engine.cancel(task, true).await.unwrap();
    test.outcome(task).await;
}

/// R12, G8: from every number the same bytes.
#[tokio::test]
async fn a_reader_can_go_on_from_any_event() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    for line in ["{}", "no json", "\u{feff}{}", r#"{"a":"é"}"#] {
        worker.says(line).await;
    }
    worker.ends("succeeded", None).await;
    worker.collected().await;
    let whole = test.log(task).await;
    let all: Vec<&str> = whole.split_inclusive('\n').collect();
    for after in 0..=all.len() {
        let mut reader = test.engine.events(task, after as u64, true).await.unwrap().unwrap();
        let mut rest = Vec::new();
        while let Some(lines) = reader.next().await.unwrap() {
            rest.extend_from_slice(&lines);
        }
        assert_eq!(String::from_utf8(rest).unwrap(), all[after..].concat());
    }
    let mut beyond = test.engine.events(task, u64::MAX, true).await.unwrap().unwrap();
    assert_eq!(beyond.next().await.unwrap(), None);
}

/// G9: who does not read holds nobody up, and gets everything in the end.
#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    let mut test = TestEngine::start(|_| {}).await;
    let task = test.submit("a").await;
    let mut slow = test.engine.events(task, 0, true).await.unwrap().unwrap();
    let mut worker = test.machines.next().await.boot(&test.engine).await;
    worker.starts().await;
    for number in 0..200 {
        worker.says(&format!(r#"{{"n":{number},"fill":"{}"}}"#, "x".repeat(10_000))).await;
    }
    worker.ends("succeeded", None).await;
    worker.collected().await;
    let whole = test.log(task).await;
    let mut late = Vec::new();
    while let Some(lines) = slow.next().await.unwrap() {
        late.extend_from_slice(&lines);
    }
    assert_eq!(String::from_utf8(late).unwrap(), whole);
}

#[tokio::test]
async fn who_does_not_wait_gets_what_is_there() {
    let test = TestEngine::start(|_| {}).await;
    test.machines.answer([mayfly_testkit::Answer::Refused("no".to_owned())]);
    let task = test.submit("a").await;
    test.outcome(task).await;
    let mut reader = test.engine.events(task, 0, false).await.unwrap().unwrap();
    assert!(reader.next().await.unwrap().is_some());
    assert_eq!(reader.next().await.unwrap(), None);
    let nobody = "0193b2c4-0000-7000-8000-0123456789ab".parse().unwrap();
    assert!(test.engine.events(nobody, 0, true).await.unwrap().is_none());
}
