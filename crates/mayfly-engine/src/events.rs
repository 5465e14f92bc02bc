//! A task's log as clients read it: lines of JSON, from any number on.
//!
//! Follow first, read the store then, wait for a raised head: so there is no gap and no repeat between what was
//! and what comes. A reader holds one chunk at a time and waits for nobody but itself.

use bytes::Bytes;
use mayfly_core::TaskId;
use mayfly_store::StoreError;
use mayfly_wire::event::Envelope;

use crate::engine::Engine;
use crate::heads::Follow;

/// The bytes after which a chunk is full; one event may go over it.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Reads a task's log.
#[derive(Debug)]
pub struct EventReader {
    engine: Engine,
    task: TaskId,
    name: String,
    after: u64,
    follow: Follow,
    waits: bool,
}

impl Engine {
    /// Reads a task's events after number `after`; with `wait` until the task is finished, else what is there.
    /// `None`: there is no such task.
    pub async fn events(
        &self,
        id: TaskId,
        after: u64,
        wait: bool,
    ) -> Result<Option<EventReader>, StoreError> {
        let Some(follow) = self.follow(id).await? else { return Ok(None) };
        let engine = self.clone();
        Ok(Some(EventReader { engine, task: id, name: id.to_string(), after, follow, waits: wait }))
    }
}

impl EventReader {
    /// The next whole lines. `None`: the task is finished and all was given, or all that is there was given and
    /// the reader does not wait.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let head = self.follow.head();
            if self.after < head.last_seq {
                return self.chunk().await.map(Some);
            }
            if head.state.outcome().is_some() || !self.waits {
                return Ok(None);
            }
            self.follow.changed().await;
        }
    }

    async fn chunk(&mut self) -> Result<Bytes, StoreError> {
        let events = self.engine.0.store.events(self.task, self.after, CHUNK_BYTES_MAX).await?;
        let bytes: usize = events.iter().map(|event| event.bytes.len() + 200).sum();
        let mut lines = Vec::with_capacity(bytes);
        for event in &events {
            let envelope = Envelope {
                task: &self.name,
                attempt: event.attempt,
                seq: event.seq,
                at: event.at,
                source: event.source,
                end: event.end,
                bytes: &event.bytes,
                json: event.json,
            };
            envelope.write(&mut lines);
            self.after = event.seq;
        }
        Ok(lines.into())
    }
}
