//! Keeps what the machine said until the orchestrator has it.
//!
//! Each piece becomes a record with the next number and waits here for the `Ack` of that number. After a
//! broken link [`resume`](Outbox::resume) goes back to the orchestrator's last number and all that follows is
//! sent again: it sees each record at least once, in order, and stores it exactly once.
//!
//! ```text
//! claude ─stdout─► tail ─► chunks in the spool ─► kept ─► link ─► orchestrator
//!                    └── nothing spooled, room ──►│ ▲── Ack(number) ──┘
//! ```
//!
//! What is kept is in memory and the oldest: it alone is sent, and sent again. What finds no room there queues
//! behind it in the spool, each record written once and read once. Which bytes go where is decided here, as
//! [`Job`]s of one at a time; [`Spool`](crate::spool::Spool) does them. There is no I/O here.
//!
//! Bounds: [`Bounds`], and what one read of `claude`'s output gives more. When all is full, or the disk takes no
//! more, nobody takes from `claude`'s output, and `claude` waits on its pipe; nothing is dropped.

use std::collections::VecDeque;

use bytes::Bytes;
use mayfly_wire::boot::DiskLimit;
use mayfly_wire::worker::{BadFrame, End, Record, Source, decode, encode};

/// What goes into one frame, unless its first record alone is more: what a socket takes at once, since what it does
/// not take is moved in memory.
const BATCH_BYTES_MAX: usize = 128 * 1024;
/// So many records at most go into one, so that a flood of short lines keeps nobody else waiting while it is stored.
const BATCH_RECORDS_MAX: usize = 4096;
/// The spool takes at most this part of what the machine's own files may take, and beside it.
const SPOOL_SHARE: u64 = 8;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// In memory, for its `Ack`.
    pub(crate) memory: usize,
    /// What is gathered for the spool before it is written; in memory as well, and again while it is written or read.
    pub(crate) chunk: usize,
    /// On the disk.
    pub(crate) spool: u64,
}

impl Bounds {
    /// What a machine uses.
    pub(crate) const USUAL: Self =
        Self { memory: 16 * 1024 * 1024, chunk: 1024 * 1024, spool: 256 * 1024 * 1024 };

    /// The same, on a disk with this limit.
    pub(crate) fn within(self, disk: Option<&DiskLimit>) -> Self {
        let share = disk.map_or(u64::MAX, |disk| disk.max / SPOOL_SHARE);
        Self { spool: self.spool.min(share), ..self }
    }
}

/// What is to be done with the spool. Positions only grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// Write these bytes.
    Write {
        /// Where.
        at: u64,
        /// What.
        chunk: Bytes,
    },
    /// Read what was written there.
    Read {
        /// Where.
        at: u64,
        /// How much.
        bytes: usize,
        /// Nothing else is in the spool: its room can be given back.
        is_last: bool,
    },
}

/// What came of a [`Job`].
#[derive(Debug)]
pub(crate) enum Done {
    /// It was written.
    Written,
    /// It was not; as a rule the disk is full.
    Unwritten,
    /// What was read.
    Read(Bytes),
}

/// Some records, as one frame.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    /// The frame's length.
    bytes: usize,
    /// What the records take in memory.
    cost: usize,
}

/// Records in the order of their numbers, from the first that the orchestrator is not known to have.
#[derive(Debug)]
pub(crate) struct Outbox {
    bounds: Bounds,
    kept: VecDeque<Record>,
    kept_bytes: usize,
    /// What is in the spool, one after the other, from `begin` to `end`.
    chunks: VecDeque<Chunk>,
    begin: u64,
    end: u64,
    /// What is to follow in the spool.
    tail: VecDeque<Record>,
    tail_bytes: usize,
    /// What is being written to the spool, or could not be: it comes before the tail.
    writing: Option<(Chunk, Bytes)>,
    /// The spool took no more when it was last asked.
    is_refused: bool,
    is_busy: bool,
    /// The last number that the orchestrator has.
    stored: u64,
    /// The last number that this link has carried.
    sent: u64,
    /// The last number given.
    last: u64,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            kept: VecDeque::new(),
            kept_bytes: 0,
            chunks: VecDeque::new(),
            begin: 0,
            end: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            writing: None,
            is_refused: false,
            is_busy: false,
            stored: 0,
            sent: 0,
            last: 0,
        }
    }

    /// Takes a piece and gives the number that it has from now on.
    pub(crate) fn push(&mut self, at_ms: u64, source: Source, end: End, bytes: Bytes) -> u64 {
        self.last += 1;
        let record = Record { number: self.last, at_ms, source, end, bytes };
        self.tail_bytes += cost(&record);
        self.tail.push_back(record);
        self.move_tail();
        self.last
    }

    /// Whether another piece may come.
    pub(crate) fn has_room(&self) -> bool {
        self.tail_bytes < self.bounds.chunk
    }

    /// Whether there is something that this link has not carried.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.last
    }

    /// Whether there is a next frame for this link now.
    pub(crate) fn has_batch(&self) -> bool {
        self.sent < self.last_kept()
    }

    /// The last number that the orchestrator has.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// What waits on the disk, in bytes.
    fn spooled(&self) -> u64 {
        self.end - self.begin
    }

    /// Begins a new link, on which the orchestrator has named its last number.
    pub(crate) fn resume(&mut self, stored: u64) -> Result<(), BadNumber> {
        self.ack(stored)?;
        self.sent = stored;
        Ok(())
    }

    /// Forgets all up to this number.
    pub(crate) fn ack(&mut self, stored: u64) -> Result<(), BadNumber> {
        if stored < self.stored || stored > self.last_kept() {
            return Err(BadNumber { named: stored, first: self.stored, last: self.last_kept() });
        }
        for record in self.kept.drain(..index(stored - self.stored)) {
            self.kept_bytes -= cost(&record);
        }
        self.stored = stored;
        self.sent = self.sent.max(stored);
        self.move_tail();
        Ok(())
    }

    /// The next frame for this link, if there is one.
    pub(crate) fn batch(&mut self) -> Option<Bytes> {
        let unsent = self.kept.range(index(self.sent - self.stored)..);
        let mut bytes = 0;
        let batch: Vec<&Record> = unsent
            .take(BATCH_RECORDS_MAX)
            .take_while(|record| {
                let is_first = bytes == 0;
                bytes += record.framed_len();
                is_first || bytes <= BATCH_BYTES_MAX
            })
            .collect();
        self.sent = batch.last()?.number;
        Some(encode(batch))
    }

    /// What is to be done with the spool now. There is no other until [`Outbox::done`].
    pub(crate) fn job(&mut self) -> Option<Job> {
        if self.is_busy {
            return None;
        }
        let job = self.read().or_else(|| self.write())?;
        self.is_busy = true;
        Some(job)
    }

    fn read(&self) -> Option<Job> {
        let chunk = self.chunks.front()?;
        let read = || Job::Read { at: self.begin, bytes: chunk.bytes, is_last: self.chunks.len() == 1 };
        self.fits(*chunk).then(read)
    }

    fn write(&mut self) -> Option<Job> {
        if self.is_refused || (self.writing.is_none() && self.has_room()) {
            return None;
        }
        let room = self.bounds.spool - self.spooled();
        let waiting = self.writing.take().unwrap_or_else(|| self.next_chunk());
        let (chunk, bytes) = self.writing.insert(waiting);
        let job = Job::Write { at: self.end, chunk: bytes.clone() };
        (chunk.bytes as u64 <= room).then_some(job)
    }

    fn next_chunk(&mut self) -> (Chunk, Bytes) {
        let (mut records, mut total) = (Vec::new(), 0);
        while total < self.bounds.chunk
            && let Some(record) = self.tail.pop_front()
        {
            total += cost(&record);
            records.push(record);
        }
        self.tail_bytes -= total;
        let frame = encode(&records);
        (Chunk { bytes: frame.len(), cost: total }, frame)
    }

    /// Whether memory has room for it. Where there is nothing, there is room for anything.
    fn fits(&self, chunk: Chunk) -> bool {
        self.kept.is_empty() || self.kept_bytes + chunk.cost <= self.bounds.memory
    }

    /// What came of the job. An error: the spool does not give back what it was given.
    pub(crate) fn done(&mut self, done: Done) -> Result<(), BadFrame> {
        self.is_busy = false;
        match done {
            Done::Written => {
                let (chunk, _) = self.writing.take().expect("the job was to write it");
                self.chunks.push_back(chunk);
                self.end += chunk.bytes as u64;
            }
            Done::Unwritten => self.is_refused = true,
            Done::Read(chunk) => {
                let read = self.chunks.pop_front().expect("the job was to read it");
                self.begin += read.bytes as u64;
                self.is_refused = false;
                self.keep(decode(chunk)?);
            }
        }
        self.move_tail();
        Ok(())
    }

    /// Lets what waits for the spool go past it, as far as there is nothing before it and room.
    fn move_tail(&mut self) {
        if self.is_busy || !self.chunks.is_empty() {
            return;
        }
        if let Some((chunk, frame)) = self.writing.take() {
            if !self.fits(chunk) {
                self.writing = Some((chunk, frame));
                return;
            }
            self.is_refused = false;
            self.keep(decode(frame).expect("it was encoded here"));
        }
        while self.kept_bytes < self.bounds.memory
            && let Some(record) = self.tail.pop_front()
        {
            self.tail_bytes -= cost(&record);
            self.keep([record]);
        }
    }

    fn keep(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            self.kept_bytes += cost(&record);
            self.kept.push_back(record);
        }
    }

    fn last_kept(&self) -> u64 {
        self.stored + u64::try_from(self.kept.len()).expect("fits in memory")
    }
}

/// What a record takes in memory.
fn cost(record: &Record) -> usize {
    size_of::<Record>() + record.bytes.len()
}

fn index(distance: u64) -> usize {
    usize::try_from(distance).expect("no more than is in memory")
}

/// The orchestrator named a number that it cannot have, or has forgotten what it acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the orchestrator names record {named}, but had {first} and was sent no more than {last}")]
pub(crate) struct BadNumber {
    named: u64,
    first: u64,
    last: u64,
}

#[cfg(test)]
mod tests;
