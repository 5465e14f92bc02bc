//! The newest runs of all logs, in memory: who reads what was just committed does not ask the file for it.
//!
//! A run is put here after its commit, and shared with all who read it; the oldest make room for new ones. What is not
//! here is in the file. Bound: [`TAIL_BYTES_MAX`], beyond which one run is kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mayfly_core::TaskId;

use crate::read::{FeedChunk, Run};

/// What is kept.
const TAIL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a run takes besides its lines.
const RUN_BYTES: usize = 256;

/// The newest runs. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// In the order of their positions: the position of the last event of each.
    all: VecDeque<(u64, Run)>,
    /// Those of each task.
    tasks: HashMap<TaskId, VecDeque<Run>>,
    bytes: usize,
}

impl Tail {
    /// Puts what was committed behind the rest.
    pub(crate) fn put(&self, written: Vec<(u64, Run)>) {
        let mut kept = self.lock();
        for (position, run) in written {
            kept.bytes += run.lines.len() + RUN_BYTES;
            kept.tasks.entry(run.task).or_default().push_back(run.clone());
            kept.all.push_back((position, run));
        }
        while kept.bytes > TAIL_BYTES_MAX && kept.all.len() > 1 {
            kept.drop_oldest();
        }
    }

    /// The run of a task in which the event after `after` is, from that event on; `None` if it is not here.
    pub(crate) fn log(&self, task: TaskId, after: u64) -> Option<Run> {
        let kept = self.lock();
        let runs = kept.tasks.get(&task)?;
        let run = runs.get(runs.partition_point(|run| run.last_seq <= after))?;
        (run.first_seq <= after + 1).then(|| run.clone().from(after + 1))
    }

    /// The run in which the event after the position `after` is, from that event on; `None` if it is not here.
    pub(crate) fn feed(&self, after: u64, head: u64) -> Option<FeedChunk> {
        let kept = self.lock();
        let (position, run) = kept.all.get(kept.all.partition_point(|(last, _)| *last <= after))?;
        let first = position - (run.last_seq - run.first_seq);
        let run = (first <= after + 1).then(|| run.clone().from(run.first_seq + (after + 1 - first)))?;
        Some(FeedChunk { runs: vec![run], skipped: 0, position: *position, head: head.max(*position) })
    }

    /// Lets go of what a task said.
    pub(crate) fn forget(&self, task: TaskId) {
        let mut kept = self.lock();
        let Some(runs) = kept.tasks.remove(&task) else { return };
        kept.bytes -= runs.iter().map(|run| run.lines.len() + RUN_BYTES).sum::<usize>();
        kept.all.retain(|(_, run)| run.task != task);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn drop_oldest(&mut self) {
        let Some((_, run)) = self.all.pop_front() else { return };
        self.bytes -= run.lines.len() + RUN_BYTES;
        let runs = self.tasks.get_mut(&run.task);
        if runs.is_some_and(|runs| runs.pop_front().is_some() && runs.is_empty()) {
            self.tasks.remove(&run.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: u32) -> TaskId {
        format!("00000000-0000-7000-8000-{number:012x}").parse().expect("an id")
    }

    fn run(number: u32, first_seq: u64, lines: &[&str]) -> Run {
        let last_seq = first_seq + lines.len() as u64 - 1;
        let lines = lines.join("\n") + "\n";
        Run { task: task(number), first_seq, last_seq, lines: lines.into() }
    }

    #[test]
    fn what_is_here_is_given_from_the_event_on_that_was_asked_for() {
        let tail = Tail::default();
        let (a, b, c) = (run(1, 3, &["a", "b", "c"]), run(2, 1, &["d"]), run(1, 6, &["e"]));
        tail.put(vec![(12, a.clone()), (13, b.clone())]);
        tail.put(vec![(14, c.clone())]);
        assert_eq!((tail.log(task(1), 1), tail.log(task(1), 2)), (None, Some(a)));
        assert_eq!(tail.log(task(1), 4), Some(run(1, 5, &["c"])));
        assert_eq!((tail.log(task(1), 5), tail.log(task(1), 6)), (Some(c.clone()), None));
        assert_eq!((tail.log(task(2), 0), tail.log(task(3), 0)), (Some(b), None));
        assert_eq!((tail.feed(8, 14), tail.feed(14, 14)), (None, None));
        let chunk = |run, position| Some(FeedChunk { runs: vec![run], skipped: 0, position, head: 14 });
        assert_eq!(tail.feed(10, 14), chunk(run(1, 4, &["b", "c"]), 12));
        assert_eq!(tail.feed(13, 14), chunk(c, 14));
        tail.forget(task(2));
        assert_eq!((tail.log(task(2), 0), tail.feed(12, 14)), (None, None), "the file tells that it is gone");
    }

    /// S37
    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let tail = Tail::default();
        let line = "x".repeat(1024 * 1024);
        for seq in 1..=20 {
            tail.put(vec![(seq, run(1, seq, &[&line]))]);
        }
        let kept = tail.lock();
        assert!(kept.bytes <= TAIL_BYTES_MAX && kept.all.len() == kept.tasks[&task(1)].len());
        drop(kept);
        assert_eq!((tail.log(task(1), 10), tail.log(task(1), 19).is_some()), (None, true));
        tail.put(vec![(21, run(2, 1, &[&"y".repeat(2 * TAIL_BYTES_MAX)]))]);
        let kept = tail.lock();
        assert_eq!((kept.all.len(), kept.tasks.len()), (1, 1));
    }
}
