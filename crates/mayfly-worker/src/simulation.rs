//! The part of a worker that speaks with the orchestrator, for a simulation that plays the rest: the machine and `claude`.
//!
//! What is here are the link, the outbox, the spool and the splitter of a real worker, and one that does not wait for a
//! thread.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mayfly_link::{BackOff, Dial};
use mayfly_wire::worker::{End, Hello, Report, Source, WorkOrder};

use crate::lines::Lines;
use crate::outbox::Bounds;
use crate::spool::Spool;
use crate::uplink::{self, Duty, Link};

/// How much may wait for the orchestrator, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// In memory.
    pub memory: usize,
    /// What is gathered for the spool before it is written.
    pub chunk: usize,
    /// In the spool.
    pub spool: u64,
}

/// A worker that is being played. Dropped, it says nothing more; its link goes on until the runtime ends.
#[derive(Debug)]
pub struct Played {
    link: Link,
    lines: Lines,
}

impl Played {
    /// Begins to dial, on the current runtime; the spool is on the disk of `folder`.
    pub fn start(way: Arc<dyn Dial>, hello: Hello, back_off: BackOff, room: Room, folder: &Path) -> Self {
        let Room { memory, chunk, spool } = room;
        let file = Spool::on_disk_of(folder, spool).in_place();
        let link = uplink::start(way, hello, back_off, (Bounds { memory, chunk, spool }, file));
        Self { link, lines: Lines::default() }
    }

    /// Waits for the order. `None`: there will be none.
    pub async fn order(&mut self) -> Option<WorkOrder> {
        (&mut self.link.order).await.ok()
    }

    /// Whether `claude` is still wanted.
    pub fn is_wanted(&self) -> bool {
        *self.link.duty.borrow() == Duty::Work
    }

    /// Returns once the machine has no business any more.
    pub fn dismissed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut duty = self.link.duty.clone();
        async move {
            // Without the one who tells, there is none either.
            let _ = duty.wait_for(|duty| *duty == Duty::Quit).await;
        }
    }

    /// What `claude` wrote becomes these records; the last may be yet to come.
    pub fn split(&mut self, bytes: &[u8]) -> Vec<(Bytes, End)> {
        self.lines.room().extend_from_slice(bytes);
        std::iter::from_fn(|| self.lines.take()).collect()
    }

    /// `claude` has closed its output: what is left of it.
    pub fn rest(&mut self) -> Vec<(Bytes, End)> {
        std::mem::take(&mut self.lines).rest().into_iter().collect()
    }

    /// Sends records on their way. Waits while there is no room for them.
    pub async fn say(&self, records: Vec<(Bytes, End)>) {
        self.link.outlet.say(Source::Claude, records).await;
    }

    /// Says a word of the worker's own.
    pub async fn report(&self, report: &Report) {
        self.link.outlet.report(report).await;
    }

    /// Says it, and waits until the orchestrator has it for good. `false`: it never will.
    pub async fn report_durably(&self, report: &Report) -> bool {
        self.link.outlet.report_durably(report).await
    }
}
