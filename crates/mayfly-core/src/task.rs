//! The state machine of one task.
//!
//! ```text
//!            Claimed           Joined            Started
//!  Queued ───────────► Launching ───────► Running(Seeding) ───────► Running(Claude)
//!    ▲                     │                   │                        │
//!    │                     │ lost,             │  any ending: success, failure,
//!    │                     │ refused,          ▼  cancel, timeout, idle
//!    │                     │ cancelled     Collecting(outcome)
//!    │                     │                   │ Collected, Expired(Collect), Vanished
//!    │                     ▼                   ▼
//!    └─ Gone, another ── Releasing(after) ◄────┘     another: lost before `claude`, or a retry that was asked for
//!                          │ Gone
//!                          ▼
//!                      Finished(outcome)
//! ```
//!
//! Invariants, each with a test below that walks every reachable step:
//!
//! - A machine is let go only by [`Effect::DestroyMachine`], and the task holds its slot until [`Event::Gone`].
//! - A word about another attempt changes nothing.
//! - Once `claude` has started, the task never goes back to the queue, unless its owner asked for retries.
//! - The first ending wins: later ones cannot change the outcome. An attempt that is to be retried is no ending.
//!
//! Time is not here: [`Event::Expired`] says which limit ran out, and the engine has the clocks. How long a retry is
//! put off is the [policy](crate::policy)'s to say.

use crate::outcome::{Failure, Outcome};
use crate::policy::Chances;

/// One try at a task, numbered from 1. Every word from a machine carries it, so a late one is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u32);

/// Where a task stands. A state that names an [`Attempt`] owns that attempt's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Waits for a free slot; `Attempt` is the one it will be given.
    Queued(Attempt),
    /// A machine is asked for; its worker has not been heard.
    Launching(Attempt),
    /// The worker is connected.
    Running(Attempt, Phase),
    /// `claude` is over or being stopped; the work is brought out.
    Collecting(Attempt, Outcome),
    /// The machine is being destroyed.
    Releasing(Attempt, After),
    /// Over, for good.
    Finished(Outcome),
}

/// How far a running attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The workspace is being set up. Nothing has been done that could matter twice.
    Seeding,
    /// `claude` has been started: from here on the task is never run again by itself.
    Claude,
}

/// What follows once the machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum After {
    /// The task is over.
    Finish(Outcome),
    /// The task gets another attempt: this one was lost before `claude` had started.
    Requeue,
    /// The task gets another attempt, after a pause: this one failed, and its owner asked for retries.
    Retry,
}

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The scheduler found a free slot.
    Claimed,
    /// The machine's worker said hello.
    Joined(Attempt),
    /// The worker has started `claude`.
    Started(Attempt),
    /// The worker says that the attempt is over, with or without `claude` having run.
    Ended(Attempt, Outcome),
    /// The worker has handed over all it could of the work.
    Collected(Attempt),
    /// A limit of time ran out.
    Expired(Attempt, Limit),
    /// The provider will not make the machine.
    Refused(Attempt),
    /// The machine is gone, or silent for longer than allowed.
    Vanished(Attempt),
    /// The provider confirms that no machine is left.
    Gone(Attempt),
    /// The user asked for the task's end, with its work.
    Cancelled,
    /// The user asked for the task's end at once, without its work.
    Aborted,
}

/// The limits of time that an attempt can run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// From asking for the machine to its worker's hello.
    Launch,
    /// The whole run of the attempt.
    Wall,
    /// Nothing heard from `claude`.
    Idle,
    /// From the end of `claude` to the end of collecting.
    Collect,
}

/// What is to be done about it. Each can be performed again without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make the machine of this attempt, or find the one already made.
    CreateMachine(Attempt),
    /// Tell the worker to stop `claude` and to bring the work out.
    CollectWork(Attempt),
    /// Unmake the machine of this attempt, whether or not it exists.
    DestroyMachine(Attempt),
}

impl TaskState {
    /// A new task's state.
    pub const NEW: Self = Self::Queued(Attempt(1));

    /// Takes one event. `None`: it was late, early or repeated, and changes nothing.
    pub fn apply(self, event: Event, chances: Chances) -> Option<(Self, Vec<Effect>)> {
        use {Effect::*, Event::*, TaskState::*};
        let collect = |a, outcome| (Collecting(a, outcome), vec![CollectWork(a)]);
        let release = |a, after| (Releasing(a, after), vec![DestroyMachine(a)]);
        let finish = |a, outcome| release(a, After::Finish(outcome));
        let lost = |a, failure| match chances.relaunch {
            true => release(a, After::Requeue),
            false => finish(a, Outcome::Failed(failure)),
        };
        let is_retried =
            |outcome| matches!(outcome, Outcome::Failed(failure) if chances.retry && failure.may_pass());
        let over = |a, outcome| match is_retried(outcome) {
            true => release(a, After::Retry),
            false => finish(a, outcome),
        };
        Some(match (self, event) {
            (Queued(a), Claimed) => (Launching(a), vec![CreateMachine(a)]),
            (Queued(_), Cancelled | Aborted) => (Finished(Outcome::Cancelled), vec![]),

            (Launching(a), Joined(b)) if a == b => (Running(a, Phase::Seeding), vec![]),
            (Launching(a), Refused(b)) if a == b => finish(a, Outcome::Failed(Failure::Refused)),
            (Launching(a), Expired(b, Limit::Launch)) if a == b => lost(a, Failure::LaunchTimeout),
            (Launching(a) | Running(a, Phase::Seeding), Vanished(b)) if a == b => lost(a, Failure::Lost),
            (Launching(a), Cancelled | Aborted) => finish(a, Outcome::Cancelled),

            (Running(a, Phase::Seeding), Started(b)) if a == b => (Running(a, Phase::Claude), vec![]),
            (Running(a, Phase::Claude), Vanished(b)) if a == b => over(a, Outcome::Failed(Failure::Lost)),
            (Running(a, _), Ended(b, outcome)) if a == b => collect(a, outcome),
            (Running(a, _), Expired(b, Limit::Wall)) if a == b => {
                collect(a, Outcome::Failed(Failure::Timeout))
            }
            (Running(a, _), Expired(b, Limit::Idle)) if a == b => {
                collect(a, Outcome::Failed(Failure::IdleTimeout))
            }
            (Running(a, _), Cancelled) => collect(a, Outcome::Cancelled),
            (Running(a, _), Aborted) => finish(a, Outcome::Cancelled),

            (Collecting(a, outcome), Collected(b) | Vanished(b) | Expired(b, Limit::Collect)) if a == b => {
                over(a, outcome)
            }
            (Collecting(a, outcome), Cancelled) if is_retried(outcome) => {
                (Collecting(a, Outcome::Cancelled), vec![])
            }
            (Collecting(a, outcome), Aborted) if is_retried(outcome) => finish(a, Outcome::Cancelled),
            (Collecting(a, outcome), Aborted) => finish(a, outcome),

            (Releasing(a, After::Requeue | After::Retry), Cancelled | Aborted) => {
                (Releasing(a, After::Finish(Outcome::Cancelled)), vec![])
            }
            (Releasing(a, After::Finish(outcome)), Gone(b)) if a == b => (Finished(outcome), vec![]),
            (Releasing(a, After::Requeue | After::Retry), Gone(b)) if a == b => {
                (Queued(Attempt(a.0 + 1)), vec![])
            }

            // Spelled out, so that a new event does not compile until it is placed.
            (
                _,
                Claimed | Joined(_) | Started(_) | Ended(..) | Collected(_) | Expired(..) | Refused(_)
                | Vanished(_) | Gone(_) | Cancelled | Aborted,
            ) => return None,
        })
    }

    /// The attempt whose machine the task owns, and with it one of the slots.
    pub fn machine(self) -> Option<Attempt> {
        match self {
            Self::Launching(a) | Self::Running(a, _) | Self::Collecting(a, _) | Self::Releasing(a, _) => {
                Some(a)
            }
            Self::Queued(_) | Self::Finished(_) => None,
        }
    }

    /// How the task is going to end, as far as it is known.
    pub fn ending(self) -> Option<Outcome> {
        match self {
            Self::Collecting(_, outcome)
            | Self::Releasing(_, After::Finish(outcome))
            | Self::Finished(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// How the task ended, if it has.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Finished(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The names of all states.
    pub const NAMES: [&str; 6] = ["queued", "launching", "running", "collecting", "releasing", "finished"];

    /// The one word for it, as stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued(_) => "queued",
            Self::Launching(_) => "launching",
            Self::Running(..) => "running",
            Self::Collecting(..) => "collecting",
            Self::Releasing(..) => "releasing",
            Self::Finished(_) => "finished",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every event, about every attempt that a task can reach and one that it cannot.
    fn events() -> Vec<Event> {
        let mut events = vec![Event::Claimed, Event::Cancelled, Event::Aborted];
        for attempt in (0..=5).map(Attempt) {
            events.extend([Event::Joined(attempt), Event::Started(attempt), Event::Collected(attempt)]);
            events.extend([Event::Refused(attempt), Event::Vanished(attempt), Event::Gone(attempt)]);
            events.extend(Outcome::all().map(|outcome| Event::Ended(attempt, outcome)));
            let limits = [Limit::Launch, Limit::Wall, Limit::Idle, Limit::Collect];
            events.extend(limits.map(|limit| Event::Expired(attempt, limit)));
        }
        events
    }

    const NONE: Chances = Chances { relaunch: false, retry: false };

    /// What may hold when a task is in `state`: of three attempts all but the last may be followed by another.
    fn chances(state: TaskState) -> Vec<Chances> {
        let all = [(false, false), (true, false), (false, true), (true, true)];
        let more = state.machine().is_some_and(|attempt| attempt.0 < 3);
        let most = if more { all.len() } else { 1 };
        all[..most].iter().map(|&(relaunch, retry)| Chances { relaunch, retry }).collect()
    }

    /// Walks every step reachable from a new task, and counts the states seen.
    fn each_step(mut check: impl FnMut(TaskState, Event, TaskState, &[Effect])) -> usize {
        let events = events();
        let mut seen = HashSet::from([TaskState::NEW]);
        let mut todo = vec![TaskState::NEW];
        while let Some(from) = todo.pop() {
            let steps =
                events.iter().flat_map(|event| chances(from).into_iter().map(move |chance| (event, chance)));
            for (&event, chances) in steps {
                let Some((to, effects)) = from.apply(event, chances) else { continue };
                check(from, event, to, &effects);
                if seen.insert(to) {
                    todo.push(to);
                }
            }
        }
        seen.len()
    }

    fn subject(event: Event) -> Option<Attempt> {
        match event {
            Event::Claimed | Event::Cancelled | Event::Aborted => None,
            Event::Joined(a) | Event::Started(a) | Event::Collected(a) | Event::Refused(a) => Some(a),
            Event::Vanished(a) | Event::Gone(a) | Event::Ended(a, _) | Event::Expired(a, _) => Some(a),
        }
    }

    #[test]
    fn the_walk_reaches_every_kind_of_state() {
        let mut names = HashSet::new();
        let states = each_step(|_, _, to, _| {
            names.insert(to.name());
        });
        names.insert(TaskState::NEW.name());
        assert_eq!(names, HashSet::from(TaskState::NAMES));
        // Three attempts: queued, launching, seeding, claude, 24 ways of collecting, and of releasing
        // 24 (every ending) or fewer, plus the two ways back of the first two; and the 24 endings.
        assert!(states > 3 * (4 + 24) + 24, "{states} states");
    }

    #[test]
    fn a_machine_is_only_let_go_by_destroying_it() {
        each_step(|from, event, to, effects| {
            let Some(attempt) = from.machine() else { return };
            let releasing = |state| matches!(state, TaskState::Releasing(..));
            let destroyed = effects.contains(&Effect::DestroyMachine(attempt));
            assert_eq!(destroyed, releasing(to) && !releasing(from), "{from:?} + {event:?} -> {to:?}");
            let kept = to.machine() == Some(attempt);
            let gone = releasing(from) && event == Event::Gone(attempt);
            assert_eq!(kept, !gone, "{from:?} + {event:?} -> {to:?}");
        });
    }

    #[test]
    fn a_machine_is_asked_for_once_for_each_attempt_and_only_from_the_queue() {
        each_step(|from, event, to, effects| {
            let asked = effects.iter().any(|effect| matches!(effect, Effect::CreateMachine(_)));
            assert_eq!(asked, matches!(from, TaskState::Queued(_)) && to.machine().is_some(), "{event:?}");
            if let (Some(before), TaskState::Queued(next)) = (from.machine(), to) {
                assert_eq!(next.0, before.0 + 1, "{event:?}");
            }
        });
    }

    #[test]
    fn a_word_about_another_attempt_changes_nothing() {
        each_step(|from, event, _, _| {
            if let Some(attempt) = subject(event) {
                assert_eq!(from.machine(), Some(attempt), "{from:?} + {event:?}");
            }
        });
    }

    #[test]
    fn once_claude_has_started_the_task_is_never_queued_again_by_itself() {
        // From each state in which `claude` has run, walk on: no path may lead to the queue.
        let not_asked_for = Chances { relaunch: true, retry: false };
        let mut todo: Vec<_> = (1..=3).map(|n| TaskState::Running(Attempt(n), Phase::Claude)).collect();
        let mut seen: HashSet<_> = todo.iter().copied().collect();
        while let Some(from) = todo.pop() {
            for event in events() {
                let Some((to, _)) = from.apply(event, not_asked_for) else { continue };
                assert!(!matches!(to, TaskState::Queued(_)), "{from:?} + {event:?}");
                if seen.insert(to) {
                    todo.push(to);
                }
            }
        }
    }

    #[test]
    fn the_first_ending_wins() {
        each_step(|from, event, to, _| {
            let Some(outcome) = from.ending() else { return };
            let may_pass = matches!(outcome, Outcome::Failed(failure) if failure.may_pass());
            let retried = matches!(to, TaskState::Releasing(_, After::Retry));
            let given_up =
                matches!(from, TaskState::Collecting(..)) && to.ending() == Some(Outcome::Cancelled);
            let is_retry = may_pass && (retried || given_up);
            assert!(to.ending() == Some(outcome) || is_retry, "{from:?} + {event:?} -> {to:?}");
        });
    }

    /// The owner's word stops what would be tried again.
    #[test]
    fn a_retry_that_was_asked_for_follows_a_failure_that_may_pass_and_no_cancel() {
        let retry = Chances { relaunch: false, retry: true };
        for outcome in Outcome::all() {
            let collecting = TaskState::Collecting(Attempt(1), outcome);
            let next = |event| collecting.apply(event, retry).map(|(state, _)| state);
            let may_pass = matches!(outcome, Outcome::Failed(failure) if failure.may_pass());
            let after = if may_pass { After::Retry } else { After::Finish(outcome) };
            let collected = Event::Collected(Attempt(1));
            assert_eq!(next(collected), Some(TaskState::Releasing(Attempt(1), after)), "{outcome}");
            let cancelled = TaskState::Collecting(Attempt(1), Outcome::Cancelled);
            assert_eq!(next(Event::Cancelled), may_pass.then_some(cancelled), "{outcome}");
            let ending = if may_pass { Outcome::Cancelled } else { outcome };
            let aborted = TaskState::Releasing(Attempt(1), After::Finish(ending));
            assert_eq!(next(Event::Aborted), Some(aborted), "{outcome}");
        }
        let lost = TaskState::Running(Attempt(1), Phase::Claude).apply(Event::Vanished(Attempt(1)), retry);
        assert_eq!(lost.map(|(state, _)| state), Some(TaskState::Releasing(Attempt(1), After::Retry)));
    }

    #[test]
    fn every_ending_of_a_running_attempt_collects_but_a_lost_or_aborted_one() {
        each_step(|from, event, to, effects| {
            let TaskState::Running(attempt, _) = from else { return };
            let unsaved = matches!(event, Event::Vanished(_) | Event::Aborted);
            match to {
                TaskState::Collecting(..) => assert_eq!(effects, [Effect::CollectWork(attempt)]),
                TaskState::Releasing(..) => assert!(unsaved, "{from:?} + {event:?}"),
                _ => assert!(matches!(event, Event::Started(_)), "{from:?} + {event:?}"),
            }
        });
    }

    #[test]
    fn a_finished_task_takes_no_event() {
        for outcome in Outcome::all() {
            for event in events() {
                assert_eq!(TaskState::Finished(outcome).apply(event, NONE), None);
            }
        }
    }

    #[test]
    fn from_every_state_the_end_can_be_reached_by_cancelling() {
        each_step(|_, _, to, _| {
            let mut state = to;
            for _ in 0..4 {
                let attempt = state.machine().unwrap_or(Attempt(1));
                for event in [Event::Aborted, Event::Gone(attempt)] {
                    state = state.apply(event, NONE).map_or(state, |(next, _)| next);
                }
            }
            assert!(state.outcome().is_some(), "{to:?} stays {state:?}");
        });
    }
}
