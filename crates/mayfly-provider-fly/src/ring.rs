//! Which region is asked next: the first of the ring that has not just said no. Decided without a clock.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_provider::clock::after;

/// Why a region is left out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cooling {
    /// One of its hosts had no room; another is likely to have some.
    Host,
    /// It has no room.
    Region,
    /// The organisation may have no more there. Only other machines' ends change that, or Fly.
    Quota,
    /// A machine there did not boot in time.
    Boot,
}

impl Cooling {
    /// For how long.
    pub(crate) const fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::Host => 5,
            Self::Region => 60,
            Self::Quota => 300,
            Self::Boot => 120,
        })
    }
}

/// The regions, in the order in which they are wanted.
#[derive(Debug)]
pub(crate) struct Ring {
    regions: Vec<String>,
    cold_until: HashMap<String, Timestamp>,
}

impl Ring {
    pub(crate) fn new(regions: Vec<String>) -> Self {
        Self { regions, cold_until: HashMap::new() }
    }

    pub(crate) fn regions(&self) -> &[String] {
        &self.regions
    }

    /// The region to ask now; none while all of them are left out.
    pub(crate) fn pick(&self, now: Timestamp) -> Option<String> {
        self.regions
            .iter()
            .find(|region| self.cold_until.get(*region).is_none_or(|until| *until <= now))
            .cloned()
    }

    /// Leaves a region out for a while. What is no region of the ring changes nothing.
    pub(crate) fn cool(&mut self, region: &str, why: Cooling, now: Timestamp) {
        if self.regions.iter().any(|known| known == region) {
            let until = after(now, why.time());
            let cold = self.cold_until.entry(region.to_owned()).or_insert(until);
            *cold = (*cold).max(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(seconds: u64) -> Timestamp {
        after(START, Duration::from_secs(seconds))
    }

    #[test]
    fn the_next_region_is_asked_until_the_first_has_cooled_down() {
        let mut ring = Ring::new(vec!["iad".to_owned(), "ord".to_owned()]);
        assert_eq!(ring.pick(START).as_deref(), Some("iad"));
        ring.cool("iad", Cooling::Region, START);
        assert_eq!(ring.pick(START).as_deref(), Some("ord"));
        ring.cool("ord", Cooling::Host, START);
        assert_eq!(ring.pick(START), None);
        assert_eq!(ring.pick(at(5)).as_deref(), Some("ord"), "a host is no region");
        assert_eq!(ring.pick(at(60)).as_deref(), Some("iad"));
    }

    #[test]
    fn a_shorter_time_does_not_end_a_longer_one() {
        let mut ring = Ring::new(vec!["iad".to_owned()]);
        ring.cool("iad", Cooling::Quota, START);
        ring.cool("iad", Cooling::Host, START);
        ring.cool("zzz", Cooling::Quota, START);
        assert_eq!(ring.pick(at(299)), None);
        assert_eq!(ring.pick(at(300)).as_deref(), Some("iad"));
        assert_eq!(ring.cold_until.len(), 1);
    }
}
