//! The store on real files.
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod feed;
mod file;
mod frames;
mod owner_tokens;
mod pool;
#[cfg(target_os = "linux")]
mod power;
mod prune;
mod redacted;
mod steps;

use std::num::NonZeroU32;

use jiff::Timestamp;
use mayfly_core::{Policy, Redactor, TaskId};
use mayfly_store::{Change, IngestRules, NewTask, Store, Submitted, Whose};
use mayfly_wire::api::CreateTask;
use mayfly_wire::event::Event;
use tempfile::TempDir;

/// A secret that is configured.
const CANARY: &str = "sk-canary-77aa";

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn policy() -> Policy {
    let two = NonZeroU32::new(2).unwrap();
    Policy { machines_max: two, launches_max: two, ..Policy::default() }
}

fn change(event: mayfly_core::Event) -> Change {
    Change { event, at: AT, detail: None, provider: "sim", policy: policy() }
}

fn rules() -> IngestRules {
    IngestRules { provider: "sim", policy: policy(), redactor: Redactor::new([CANARY]) }
}

fn open() -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open(&dir.path().join("db")).unwrap(), dir)
}

fn id(number: u32) -> TaskId {
    format!("00000000-0000-7000-8000-{number:012x}").parse().unwrap()
}

fn new(number: u32, key: Option<&str>) -> NewTask {
    let spec: CreateTask = serde_json::from_value(serde_json::json!({"prompt": "x"})).unwrap();
    NewTask {
        id: id(number),
        spec,
        credential: Whose::Own(vec![0]),
        rules: Vec::new(),
        lock: None,
        told: Vec::new(),
        resumes: None,
        idempotency_key: key.map(str::to_owned),
        at: AT,
    }
}

async fn submit(store: &Store, number: u32) {
    assert_eq!(store.submit(new(number, None)).await.unwrap(), Submitted::New(id(number)));
}

/// A task's whole log after `after`, a line each.
async fn log(store: &Store, task: TaskId, after: u64) -> Vec<String> {
    let (mut lines, mut last) = (Vec::new(), after);
    while let Some(run) = store.log(task, last, usize::MAX).await.unwrap() {
        assert_eq!((run.task, run.first_seq), (task, last + 1));
        lines.extend(std::str::from_utf8(&run.lines).unwrap().lines().map(str::to_owned));
        last = run.last_seq;
    }
    let events = lines.iter().map(|line| Event::parse(line).unwrap());
    assert!(events.map(|event| event.seq).eq(after + 1..=last), "no gap, no repeat");
    lines
}
