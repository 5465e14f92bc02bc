use mayfly_core::{Outcome, TaskId};
use mayfly_engine::{EventReader, Run};
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::worker::Source;
use tokio::task::JoinSet;

use crate::leave;

async fn running(mayfly: &mut TestEngine) -> (TaskId, SimMachine) {
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    (id, machine)
}

async fn finish(mayfly: &TestEngine, id: TaskId, machine: &mut SimMachine) {
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.outcome(id).await;
}

async fn follow(mayfly: &TestEngine, id: TaskId, after: u64) -> EventReader {
    mayfly.engine.events(id, after, true).await.unwrap().unwrap()
}

async fn rest(mut reader: EventReader) -> String {
    let mut all = Vec::new();
    while let Some(Run { lines, .. }) = reader.next().await.unwrap() {
        assert!(lines.ends_with(b"\n") && !lines.is_empty(), "whole lines");
        all.extend_from_slice(&lines);
    }
    String::from_utf8(all).unwrap()
}

/// R12, G8
#[tokio::test]
async fn a_reader_goes_on_from_any_number_with_the_same_bytes() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    for n in 0..50 {
        machine.says(format!("{{\"n\":{n}}}")).await;
    }
    finish(&mayfly, id, &mut machine).await;
    let whole = mayfly.log(id, 0).await;
    mayfly.restart().await;
    let mut suffix = whole.as_str();
    for after in 0..mayfly.task(id).await.last_seq {
        assert_eq!(mayfly.log(id, after).await, suffix, "after {after}");
        assert_eq!(rest(follow(&mayfly, id, after).await).await, suffix, "after {after}");
        let (line, left) = suffix.split_once('\n').unwrap();
        assert!(line.contains(&format!("\"seq\":{},", after + 1)), "{line}");
        suffix = left;
    }
    assert_eq!(suffix, "");
}

/// S40
#[tokio::test]
async fn a_reader_past_the_end_gets_nothing_and_is_let_go() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let waiting = tokio::spawn(rest(follow(&mayfly, id, u64::MAX).await));
    for after in [3, 4, u64::MAX / 2, u64::MAX] {
        assert_eq!(mayfly.log(id, after).await, "");
    }
    machine.starts().await;
    finish(&mayfly, id, &mut machine).await;
    assert_eq!(waiting.await.unwrap(), "");
    let nobody = "00000000-0000-7000-8000-000000000000".parse().unwrap();
    assert!(mayfly.engine.events(nobody, 0, true).await.unwrap().is_none());
}

#[tokio::test]
async fn a_reader_that_was_there_before_gets_all_as_it_comes_and_then_the_end() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(task("x")).await;
    let early = tokio::spawn(rest(follow(&mayfly, id, 0).await));
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    let mut live = follow(&mayfly, id, 3).await;
    leave(live.next()).await;
    machine.says("now").await;
    let Run { lines, .. } = live.next().await.unwrap().unwrap();
    assert!(lines.ends_with(b"\"text\":\"now\"}\n"), "{lines:?}");
    leave(live.next()).await;
    machine.starts().await;
    finish(&mayfly, id, &mut machine).await;
    let (early, log) = (early.await.unwrap(), mayfly.log(id, 0).await);
    assert_eq!(early, log);
    assert!(early.lines().last().unwrap().contains("finished"));
    assert_eq!(log.lines().skip(4).collect::<Vec<_>>(), rest(live).await.lines().collect::<Vec<_>>());
}

/// R13, G9
#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let lazy: Vec<EventReader> = {
        let mut readers = Vec::new();
        for _ in 0..20 {
            readers.push(follow(&mayfly, id, 0).await);
        }
        readers
    };
    machine.starts().await;
    for n in 0..100 {
        let lines = (0..10).map(|_| machine.record(Source::Claude, format!("{n}").repeat(100))).collect();
        machine.send(lines).await.unwrap();
    }
    finish(&mayfly, id, &mut machine).await;
    let log = mayfly.log(id, 0).await;
    for reader in lazy {
        assert_eq!(rest(reader).await, log);
    }
}

/// R13, G9: of a thousand readers one reads nothing; the others are given everything while it is said.
#[tokio::test]
async fn a_thousand_readers_are_served_beside_one_that_does_not_read() {
    const READERS: usize = 1000;
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let lazy = follow(&mayfly, id, 0).await;
    let mut readers = JoinSet::new();
    for _ in 1..READERS {
        let reader = follow(&mayfly, id, 0).await;
        readers.spawn(rest(reader));
    }
    machine.starts().await;
    for n in 0..20 {
        let lines = (0..10).map(|_| machine.record(Source::Claude, format!("{n}").repeat(100))).collect();
        machine.send(lines).await.unwrap();
    }
    finish(&mayfly, id, &mut machine).await;
    let (read, log) = (readers.join_all().await, mayfly.log(id, 0).await);
    assert_eq!(read.len(), READERS - 1);
    assert!(read.iter().all(|heard| *heard == log));
    assert_eq!(rest(lazy).await, log);
}

/// S37: however small the lines are, a reader holds one chunk.
#[tokio::test]
async fn a_chunk_is_bounded_also_when_its_lines_are_empty() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let lines = (0..5000).map(|_| machine.record(Source::Claude, "")).collect();
    machine.send(lines).await.unwrap();
    let mut reader = mayfly.engine.events(id, 0, false).await.unwrap().unwrap();
    let mut chunks = 0;
    while let Some(chunk) = reader.next().await.unwrap() {
        assert!(chunk.lines.len() <= 512 * 1024, "{}", chunk.lines.len());
        chunks += 1;
    }
    assert!(chunks > 1);
}
