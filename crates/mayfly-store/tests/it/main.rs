//! The store on real files.
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod file;
mod frames;
mod owner_tokens;
mod steps;

use std::num::NonZeroU32;

use jiff::Timestamp;
use mayfly_core::{Event, Policy, TaskId};
use mayfly_store::{Change, NewTask, Store, Submitted};
use mayfly_wire::api::CreateTask;
use tempfile::TempDir;

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn policy() -> Policy {
    let two = NonZeroU32::new(2).unwrap();
    Policy { machines_max: two, launches_max: two, ..Policy::default() }
}

fn change(event: Event) -> Change {
    Change { event, at: AT, detail: None, provider: "sim", policy: policy() }
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
    NewTask { id: id(number), spec, sealed: None, idempotency_key: key.map(str::to_owned), at: AT }
}

async fn submit(store: &Store, number: u32) {
    assert_eq!(store.submit(new(number, None)).await.unwrap(), Submitted::New(id(number)));
}
