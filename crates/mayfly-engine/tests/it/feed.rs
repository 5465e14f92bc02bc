//! All tasks' events, followed.

use std::collections::HashMap;

use mayfly_core::{Outcome, TaskId};
use mayfly_engine::{Ahead, FeedChunk, FeedReader};
use mayfly_testkit::{TestEngine, task};

use crate::{at_once, leave};

/// Puts a chunk to the logs that it continues.
fn take(logs: &mut HashMap<TaskId, String>, chunk: &FeedChunk) {
    for run in &chunk.runs {
        let log = logs.entry(run.task).or_default();
        assert_eq!(run.first_seq, log.lines().count() as u64 + 1, "no gap, no repeat");
        log.push_str(std::str::from_utf8(&run.lines).unwrap());
        assert_eq!(run.last_seq, log.lines().count() as u64);
    }
}

/// Reads on until the reader has all that is there.
async fn catch_up(mayfly: &TestEngine, reader: &mut FeedReader, logs: &mut HashMap<TaskId, String>) -> u64 {
    loop {
        let chunk = reader.next().await.unwrap();
        take(logs, &chunk);
        assert_eq!(chunk.skipped, 0);
        if chunk.position == mayfly.engine.head() {
            return chunk.position;
        }
    }
}

/// R12, G8
#[tokio::test]
async fn who_follows_all_tasks_gets_every_log_whole_over_restarts_too() {
    let mut mayfly = TestEngine::start(at_once(2)).await;
    let (mut logs, mut reader) = (HashMap::new(), mayfly.engine.feed(0).unwrap());
    leave(reader.next()).await;
    let tasks = [mayfly.submit(task("a")).await, mayfly.submit(task("b")).await];
    let mut machines = [mayfly.machines.next().await, mayfly.machines.next().await];
    for machine in &mut machines {
        machine.boot(&mayfly.engine).await;
        machine.starts().await;
    }
    for n in 0..20 {
        for machine in &mut machines {
            machine.says(format!("{{\"n\":{n}}}")).await;
        }
        if n % 5 == 0 {
            catch_up(&mayfly, &mut reader, &mut logs).await;
            leave(reader.next()).await;
        }
    }
    let position = catch_up(&mayfly, &mut reader, &mut logs).await;
    let store = mayfly.engine.store_id();
    mayfly.restart().await;
    assert_eq!(mayfly.engine.store_id(), store);
    let mut reader = mayfly.engine.feed(position).unwrap();
    for machine in &mut machines {
        machine.boot(&mayfly.engine).await;
        machine.ends(Outcome::Succeeded).await;
        machine.collected().await;
    }
    for id in tasks {
        mayfly.outcome(id).await;
    }
    catch_up(&mayfly, &mut reader, &mut logs).await;
    for id in tasks {
        assert_eq!(logs[&id], mayfly.log(id, 0).await);
    }
}

/// A copy of the database that was put back has forgotten what came after it.
#[tokio::test]
async fn a_position_that_was_never_given_is_refused() {
    let mayfly = TestEngine::start(at_once(1)).await;
    for after in [1, u64::MAX] {
        assert_eq!(mayfly.engine.feed(after).unwrap_err(), Ahead { after, head: 0 });
    }
    mayfly.submit(task("a")).await;
    mayfly.engine.feed(1).unwrap();
}
