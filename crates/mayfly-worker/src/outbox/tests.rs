use mayfly_wire::worker::{FRAME_BYTES_MAX, decode};
use proptest::prelude::*;

use super::*;

/// So small that a few records fill each part.
const TINY: Bounds = Bounds { memory: 1000, chunk: 400, spool: 2500 };

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
    /// The disk is done; or it takes nothing.
    Spool {
        takes: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..500_usize).prop_map(Step::Push),
        1 => (0..400_000_usize).prop_map(Step::Push),
        4 => any::<bool>().prop_map(|arrives| Step::Send { arrives }),
        2 => Just(Step::Ack),
        2 => Just(Step::Resume),
        4 => prop::bool::weighted(0.8).prop_map(|takes| Step::Spool { takes }),
    ];
    proptest::collection::vec(step, 0..120)
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

/// A spool as it should be, with one job in its hands.
#[derive(Default)]
struct Disk {
    written: VecDeque<(u64, Bytes)>,
    job: Option<Job>,
}

impl Disk {
    /// Takes a job, as soon as there is one, as the uplink does.
    fn offer(&mut self, outbox: &mut Outbox) {
        if let Some(job) = outbox.job() {
            assert_eq!(self.job.replace(job), None, "one at a time");
        }
    }

    fn finish(&mut self, outbox: &mut Outbox, takes: bool) {
        let done = match self.job.take() {
            None => return,
            Some(Job::Write { .. }) if !takes => Done::Unwritten,
            Some(Job::Write { at, chunk }) => {
                self.written.push_back((at, chunk));
                let all: u64 = self.written.iter().map(|(_, chunk)| chunk.len() as u64).sum();
                assert!(all <= TINY.spool, "{all} bytes in the spool");
                assert_eq!(
                    at + self.written.back().unwrap().1.len() as u64 - self.written[0].0,
                    all,
                    "a hole"
                );
                Done::Written
            }
            Some(Job::Read { at, bytes, is_last }) => {
                let (written_at, chunk) = self.written.pop_front().expect("something was written");
                assert_eq!((written_at, chunk.len(), self.written.is_empty()), (at, bytes, is_last));
                Done::Read(chunk)
            }
        };
        outbox.done(done).expect("good chunks");
        self.offer(outbox);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Covers R07, R11 and R16 for the numbers: each record arrives once, in order, whatever is cut and wherever it
    /// has waited; and what is in memory keeps to its bound.
    #[test]
    fn each_record_is_delivered_once_and_in_order_whatever_is_cut(steps in steps()) {
        let (mut outbox, mut far, mut disk) = (Outbox::new(TINY), Far::default(), Disk::default());
        let (mut pushed, mut cut) = (Vec::new(), false);
        for step in steps.into_iter().chain([Step::Resume]) {
            match step {
                Step::Push(len) if outbox.has_room() => {
                    let bytes = Bytes::from(vec![u8::try_from(len % 251).unwrap(); len]);
                    let number = outbox.push(1, Source::Claude, End::Newline, bytes.clone());
                    pushed.push(bytes);
                    prop_assert_eq!(number, u64::try_from(pushed.len()).unwrap());
                }
                Step::Push(_) => {}
                Step::Send { .. } if cut => {}
                Step::Send { arrives } => {
                    prop_assert!(outbox.has_unsent() || !outbox.has_batch());
                    let frame = outbox.batch();
                    cut = !arrives && frame.is_some();
                    frame.filter(|_| arrives).into_iter().for_each(|frame| far.take(frame));
                }
                Step::Ack => outbox.ack(far.last()).expect("a number it has"),
                Step::Resume => {
                    cut = false;
                    outbox.resume(far.last()).expect("a number it has");
                }
                Step::Spool { takes } => disk.finish(&mut outbox, takes),
            }
            disk.offer(&mut outbox);
            // One record may be over each bound.
            prop_assert!(outbox.kept_bytes <= TINY.memory + 400_100 && outbox.tail_bytes <= TINY.chunk + 400_100);
        }
        // From here on nothing fails: all must go, without a further push.
        for _ in 0..1000 {
            while let Some(frame) = outbox.batch() {
                far.take(frame);
            }
            outbox.ack(far.last()).expect("a number it has");
            disk.offer(&mut outbox);
            disk.finish(&mut outbox, true);
        }
        prop_assert!(!outbox.has_unsent());
        prop_assert!(far.stored.iter().map(|record| &record.bytes).eq(&pushed));
        prop_assert_eq!((outbox.kept_bytes, outbox.tail_bytes, outbox.spooled()), (0, 0, 0));
        prop_assert!(outbox.kept.is_empty() && outbox.writing.is_none() && disk.written.is_empty());
    }
}

fn fill(outbox: &mut Outbox, disk: &mut Disk, takes: bool) -> u64 {
    let mut last = 0;
    while outbox.has_room() {
        last = outbox.push(1, Source::Claude, End::More, Bytes::from(vec![0; 50]));
        disk.offer(outbox);
        while disk.job.is_some() {
            disk.finish(outbox, takes);
        }
    }
    last
}

/// Covers R16.
#[test]
fn memory_fills_first_then_the_spool_and_then_there_is_no_room() {
    let (mut outbox, mut disk) = (Outbox::new(TINY), Disk::default());
    let last = fill(&mut outbox, &mut disk, true);
    assert!(outbox.kept_bytes >= TINY.memory && outbox.kept_bytes < TINY.memory + 200);
    assert!(outbox.spooled() > TINY.spool - 500, "{} bytes", outbox.spooled());
    let mut batches = 0;
    while outbox.stored() < last {
        outbox.batch().expect("the next ones");
        outbox.ack(outbox.sent).expect("a number it has");
        disk.offer(&mut outbox);
        while disk.job.is_some() {
            disk.finish(&mut outbox, true);
        }
        batches += 1;
    }
    assert!(batches > 1 && outbox.has_room());
}

/// A full disk is a full spool.
#[test]
fn a_disk_that_takes_nothing_makes_it_wait_and_loses_nothing() {
    let (mut outbox, mut disk) = (Outbox::new(TINY), Disk::default());
    let last = fill(&mut outbox, &mut disk, false);
    assert_eq!((outbox.spooled(), outbox.job()), (0, None), "it is not asked over and over");
    let mut far = Far::default();
    while far.last() < last {
        far.take(outbox.batch().expect("the next ones"));
        outbox.ack(far.last()).expect("a number it has");
    }
    assert!(outbox.has_room());
    fill(&mut outbox, &mut disk, true);
    assert!(outbox.spooled() > 0, "it is asked again once there was room");
}

#[test]
fn numbers_that_were_never_given_or_are_forgotten_are_refused() {
    let mut outbox = Outbox::new(Bounds::USUAL);
    outbox.push(1, Source::Claude, End::Newline, Bytes::new());
    outbox.push(1, Source::Claude, End::Newline, Bytes::new());
    assert!(outbox.ack(3).is_err());
    outbox.ack(2).expect("a number it has");
    assert!(outbox.resume(1).is_err(), "record 2 is gone and cannot be sent again");
}

#[test]
fn a_small_disk_has_a_small_spool() {
    let disk = |max| DiskLimit { max, folders: Vec::new() };
    assert_eq!(Bounds::USUAL.within(None).spool, Bounds::USUAL.spool);
    assert_eq!(Bounds::USUAL.within(Some(&disk(8 << 20))).spool, 1 << 20);
    assert_eq!(Bounds::USUAL.within(Some(&disk(u64::MAX))).spool, Bounds::USUAL.spool);
}

/// S37: the shortest lines are no reason for a frame that takes long to store.
#[test]
fn a_frame_has_only_so_many_records() {
    let mut outbox = Outbox::new(Bounds::USUAL);
    for _ in 0..=2 * BATCH_RECORDS_MAX {
        outbox.push(0, Source::Claude, End::Newline, Bytes::new());
    }
    let frames = std::iter::from_fn(|| outbox.batch()).map(|frame| decode(frame).unwrap().len());
    assert_eq!(frames.collect::<Vec<_>>(), [BATCH_RECORDS_MAX, BATCH_RECORDS_MAX, 1]);
}
