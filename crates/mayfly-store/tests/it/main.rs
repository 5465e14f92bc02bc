//! The store over real files.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod file;
mod model;

use jiff::Timestamp;
use mayfly_core::TaskId;
use mayfly_store::NewTask;
use mayfly_wire::api::CreateTask;
use uuid::Uuid;

/// The time of all that happens here.
fn at() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn new_task(number: u128) -> NewTask {
    let spec: CreateTask = serde_json::from_str(r#"{"prompt":"a"}"#).unwrap();
    NewTask { id: TaskId::new(Uuid::from_u128(number)), spec, idempotency_key: None, at: at() }
}
