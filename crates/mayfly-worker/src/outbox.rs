//! Keeps what the machine said until the orchestrator has it.
//!
//! Each piece becomes a record with the next number and waits here for the `Ack` of that number. After a
//! broken link [`resume`](Outbox::resume) goes back to the orchestrator's last number and all that follows is
//! sent again: it sees each record at least once, in order, and stores it exactly once.
//!
//! ```text
//! claude ─stdout─► outbox ─► link ─► orchestrator
//!                    ▲── Ack(number) ─────┘
//! ```
//!
//! Bound: [`OUTBOX_BYTES_MAX`], and what one read gives more. When it is full nobody takes from `claude`'s output,
//! and `claude` waits on its pipe; nothing is dropped. There is no I/O here.

use std::collections::VecDeque;

use bytes::Bytes;
use mayfly_wire::worker::{End, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, Record, Source, encode};

/// What may wait for its `Ack`.
pub(crate) const OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What goes into one frame; one record of any size fits.
const BATCH_BYTES_MAX: usize = RECORD_BYTES_MAX + RECORD_HEAD_BYTES;

/// Records in the order of their numbers, from the first that the orchestrator is not known to have.
#[derive(Debug)]
pub(crate) struct Outbox {
    kept: VecDeque<Record>,
    bytes: usize,
    /// The last number that the orchestrator has.
    stored: u64,
    /// The last number that this link has carried.
    sent: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self { kept: VecDeque::new(), bytes: 0, stored: 0, sent: 0 }
    }

    /// Takes a piece and gives the number that it has from now on.
    pub(crate) fn push(&mut self, at_ms: u64, source: Source, end: End, bytes: Bytes) -> u64 {
        let number = self.last() + 1;
        let record = Record { number, at_ms, source, end, bytes };
        self.bytes += cost(&record);
        self.kept.push_back(record);
        number
    }

    /// Whether another piece may come.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < OUTBOX_BYTES_MAX
    }

    /// Whether there is something that this link has not carried.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.last()
    }

    /// The last number that the orchestrator has.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// Begins a new link, on which the orchestrator has named its last number.
    pub(crate) fn resume(&mut self, stored: u64) -> Result<(), BadNumber> {
        self.ack(stored)?;
        self.sent = stored;
        Ok(())
    }

    /// Forgets all up to this number.
    pub(crate) fn ack(&mut self, stored: u64) -> Result<(), BadNumber> {
        if stored < self.stored || stored > self.last() {
            return Err(BadNumber { named: stored, first: self.stored, last: self.last() });
        }
        for record in self.kept.drain(..index(stored - self.stored)) {
            self.bytes -= cost(&record);
        }
        self.stored = stored;
        self.sent = self.sent.max(stored);
        Ok(())
    }

    /// The next frame for this link, if there is one.
    pub(crate) fn batch(&mut self) -> Option<Bytes> {
        let unsent = self.kept.range(index(self.sent - self.stored)..);
        let mut room = BATCH_BYTES_MAX;
        let batch: Vec<&Record> = unsent
            .take_while(|record| {
                let fits = record.framed_len() <= room;
                room = room.saturating_sub(record.framed_len());
                fits
            })
            .collect();
        self.sent = batch.last()?.number;
        Some(encode(batch))
    }

    fn last(&self) -> u64 {
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
mod tests {
    use mayfly_wire::worker::{FRAME_BYTES_MAX, decode};
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        /// Sends a frame; it arrives, or the link is cut before it does.
        Send {
            arrives: bool,
        },
        /// The orchestrator acknowledges what it has.
        Ack,
        /// A new link.
        Resume,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..400_000_usize).prop_map(Step::Push),
            4 => any::<bool>().prop_map(|arrives| Step::Send { arrives }),
            2 => Just(Step::Ack),
            2 => Just(Step::Resume),
        ];
        proptest::collection::vec(step, 0..80)
    }

    /// An orchestrator that stores by number, as the real one does.
    #[derive(Default)]
    struct Far {
        stored: Vec<Record>,
    }

    impl Far {
        fn take(&mut self, frame: Bytes) {
            assert!(frame.len() <= FRAME_BYTES_MAX);
            for record in decode(frame).expect("a good frame") {
                let next = self.last() + 1;
                assert!(record.number <= next, "a gap before {}", record.number);
                if record.number == next {
                    self.stored.push(record);
                }
            }
        }

        fn last(&self) -> u64 {
            u64::try_from(self.stored.len()).expect("small")
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Covers R07 and R11 for the numbers: each record arrives once, in order, whatever is cut.
        #[test]
        fn each_record_is_delivered_once_and_in_order_whatever_is_cut(steps in steps()) {
            let (mut outbox, mut far, mut pushed, mut cut) = (Outbox::new(), Far::default(), Vec::new(), false);
            for step in steps.into_iter().chain([Step::Resume]) {
                match step {
                    Step::Push(len) => {
                        let bytes = Bytes::from(vec![u8::try_from(len % 251).unwrap(); len]);
                        let number = outbox.push(1, Source::Claude, End::Newline, bytes.clone());
                        pushed.push(bytes);
                        prop_assert_eq!(number, u64::try_from(pushed.len()).unwrap());
                    }
                    Step::Send { .. } if cut => {}
                    Step::Send { arrives } => {
                        let frame = outbox.batch();
                        cut = !arrives && frame.is_some();
                        frame.filter(|_| arrives).into_iter().for_each(|frame| far.take(frame));
                    }
                    Step::Ack => outbox.ack(far.last()).expect("a number it has"),
                    Step::Resume => {
                        cut = false;
                        outbox.resume(far.last()).expect("a number it has");
                    }
                }
            }
            while let Some(frame) = outbox.batch() {
                far.take(frame);
            }
            prop_assert!(!outbox.has_unsent());
            prop_assert!(far.stored.iter().map(|record| &record.bytes).eq(&pushed));
            outbox.ack(far.last()).expect("a number it has");
            prop_assert_eq!((outbox.bytes, outbox.kept.len()), (0, 0));
        }
    }

    /// Covers R16.
    #[test]
    fn a_full_outbox_has_room_again_once_it_is_acknowledged() {
        let mut outbox = Outbox::new();
        let mut last = 0;
        while outbox.has_room() {
            last = outbox.push(1, Source::Claude, End::More, Bytes::from(vec![0; RECORD_BYTES_MAX]));
        }
        assert!(outbox.bytes < OUTBOX_BYTES_MAX + RECORD_BYTES_MAX + RECORD_HEAD_BYTES + 64);
        outbox.ack(last).expect("a number it has");
        assert!(outbox.has_room());
    }

    #[test]
    fn numbers_that_were_never_given_or_are_forgotten_are_refused() {
        let mut outbox = Outbox::new();
        outbox.push(1, Source::Claude, End::Newline, Bytes::new());
        outbox.push(1, Source::Claude, End::Newline, Bytes::new());
        assert!(outbox.ack(3).is_err());
        outbox.ack(2).expect("a number it has");
        assert!(outbox.resume(1).is_err(), "record 2 is gone and cannot be sent again");
    }
}
