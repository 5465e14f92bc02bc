//! How often something may be asked of Fly, decided without a clock.
//!
//! Fly allows one request a second for each action on each app or machine, and three at once. What comes above that is
//! refused, so each request has its time here before it is sent. A bucket is one time: when it would be full again.
//!
//! Bound: [`BUCKETS_MAX`]; buckets that are full are forgotten first.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_provider::clock::{after, before};

/// More are only kept while all of them are in use.
const BUCKETS_MAX: usize = 512;

/// Something that Fly counts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Token,
    App,
    Regions,
    Create,
    List,
    Get,
    Wait,
    Events,
    Destroy,
    Update,
    CreateApp,
    DestroyApp,
    MintToken,
    Addresses,
    Assign,
    Secrets,
    SetSecrets,
    Volumes,
    CreateVolume,
    Policies,
    SetPolicy,
}

impl Action {
    /// The time that one takes, and how many may come at once. A tenth slower than Fly allows: of two requests, the first
    /// may be under way for longer.
    const fn rate(self) -> (Duration, u32) {
        match self {
            Self::Get => (Duration::from_millis(220), 10),
            _ => (Duration::from_millis(1100), 3),
        }
    }
}

/// The buckets.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    full_at: HashMap<(Action, String), Timestamp>,
}

impl Pace {
    /// When the next request for this may be sent. It is counted.
    pub(crate) fn turn(&mut self, action: Action, of: &str, now: Timestamp) -> Timestamp {
        if self.full_at.len() >= BUCKETS_MAX {
            self.full_at.retain(|_, full| *full > now);
        }
        let (each, burst) = action.rate();
        let full = self.full_at.entry((action, of.to_owned())).or_insert(now);
        let turn = before((*full).max(now), each * (burst - 1)).max(now);
        *full = after((*full).max(now), each);
        turn
    }

    /// Fly counts otherwise than we do: the bucket is empty until `until`.
    pub(crate) fn refused(&mut self, action: Action, of: &str, until: Timestamp) {
        let (each, burst) = action.rate();
        let empty = after(until, each * (burst - 1));
        let full = self.full_at.entry((action, of.to_owned())).or_insert(empty);
        *full = (*full).max(empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(ms: u64) -> Timestamp {
        after(START, Duration::from_millis(ms))
    }

    #[test]
    fn three_go_at_once_and_the_others_one_a_second() {
        let mut pace = Pace::default();
        let turns: Vec<Timestamp> = (0..6).map(|_| pace.turn(Action::Create, "a", START)).collect();
        assert_eq!(turns, [at(0), at(0), at(0), at(1100), at(2200), at(3300)]);
        assert_eq!(pace.turn(Action::Create, "a", at(10_000)), at(10_000), "it is full again");
    }

    #[test]
    fn machines_are_looked_at_faster_and_each_by_itself() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            assert_eq!(pace.turn(Action::Get, "m1", START), START);
        }
        assert_eq!(pace.turn(Action::Get, "m1", START), at(220));
        assert_eq!(pace.turn(Action::Get, "m2", START), START);
        assert_eq!(pace.turn(Action::Destroy, "m1", START), START);
    }

    #[test]
    fn nobody_in_any_second_goes_above_the_rate() {
        let mut pace = Pace::default();
        let mut turns: Vec<Timestamp> =
            (0..40).map(|number| pace.turn(Action::List, "a", at(number * 137))).collect();
        turns.sort_unstable();
        for window in turns.windows(5) {
            assert!(window[4] >= after(window[0], Duration::from_secs(1)), "{window:?}");
        }
    }

    #[test]
    fn a_refusal_empties_the_bucket() {
        let mut pace = Pace::default();
        pace.refused(Action::Create, "a", at(5000));
        assert_eq!(pace.turn(Action::Create, "a", START), at(5000));
        assert_eq!(pace.turn(Action::Create, "a", START), at(6100));
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut pace = Pace::default();
        for number in 0..BUCKETS_MAX * 2 {
            pace.turn(Action::Get, &number.to_string(), at(number as u64 * 300));
        }
        assert!(pace.full_at.len() <= BUCKETS_MAX);
    }
}
