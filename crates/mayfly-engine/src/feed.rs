//! What all tasks say, in the order of the commits, from any position on.
//!
//! Follow first, read the store then, wait for a higher head: no gap, no repeat, as in the log of one task. What is not
//! kept any more is counted in each chunk, so that a reader can say that something is missing.

use mayfly_store::{FeedChunk, StoreError};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::events::CHUNK_BYTES_MAX;

/// A position that this store never gave: it is of another one, or this one is an older copy of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("position {after} is beyond the newest event, which is {head}: start again from 0")]
pub struct Ahead {
    /// The position asked for.
    pub after: u64,
    /// The newest one.
    pub head: u64,
}

/// Reads what all tasks say.
#[derive(Debug)]
pub struct FeedReader {
    engine: Engine,
    after: u64,
    head: watch::Receiver<u64>,
}

impl Engine {
    /// Reads the events of all tasks after the position `after`; 0 is everything.
    pub fn feed(&self, after: u64) -> Result<FeedReader, Ahead> {
        let receiver = self.0.store.head();
        let head = *receiver.borrow();
        let reader = FeedReader { engine: self.clone(), after, head: receiver };
        if after > head { Err(Ahead { after, head }) } else { Ok(reader) }
    }

    /// The position of the newest event.
    pub fn head(&self) -> u64 {
        *self.0.store.head().borrow()
    }

    /// Which store this is: positions of one mean nothing in another.
    pub fn store_id(&self) -> [u8; 16] {
        self.0.store.id()
    }
}

impl FeedReader {
    /// The next events, once there are some. Given up half-way, nothing is lost.
    pub async fn next(&mut self) -> Result<FeedChunk, StoreError> {
        while *self.head.borrow_and_update() <= self.after {
            self.head.changed().await.map_err(|_| StoreError::Closed)?;
        }
        let chunk = self.engine.0.store.feed(self.after, CHUNK_BYTES_MAX).await?;
        self.after = chunk.position;
        Ok(chunk)
    }
}
