//! How many at once, when an attempt is worth another try, and how much one may say.

use std::num::NonZeroU32;
use std::time::Duration;

/// The pause before the first retry; that before each further one is twice as long.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(5);
/// The longest pause before a retry.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// The rules of one orchestrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts that own a machine at one time, over all tasks. Default: 5.
    pub machines_max: NonZeroU32,
    /// How often a task may be launched while `claude` has not yet started in it. Default: 3.
    pub launches_max: NonZeroU32,
    /// What the lines of one attempt's machine may take in its log, in bytes, before the attempt is ended. Default:
    /// 1 GiB.
    pub log_bytes_max: u64,
}

impl Policy {
    /// Whether one more machine may be asked for while `alive` attempts own one.
    pub fn admits(&self, alive: u32) -> bool {
        alive < self.machines_max.get()
    }

    /// What an attempt may be followed by, if it fails.
    pub fn chances(&self, earlier: Earlier, retries: u32) -> Chances {
        Chances {
            relaunch: earlier.unstarted + 1 < self.launches_max.get(),
            // One that ends before `claude` has started uses up no retry: it is bounded by the launches.
            retry: earlier.started < retries && earlier.unstarted < self.launches_max.get(),
        }
    }

    /// How long the retry waits that follows an attempt with these before it: what failed, such as a model's service
    /// that is overloaded, needs time, and longer each time that it fails again.
    pub fn retry_pause(&self, earlier: Earlier) -> Duration {
        // More doublings than this are beyond the longest.
        let doublings = earlier.started.min(16);
        (RETRY_PAUSE_FIRST * (1 << doublings)).min(RETRY_PAUSE_MAX)
    }
}

/// The attempts of a task before its current one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Those in which `claude` was started.
    pub started: u32,
    /// Those that were lost before.
    pub unstarted: u32,
}

/// Whether an attempt that fails is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chances {
    /// If it is lost before `claude` has started.
    pub relaunch: bool,
    /// If it fails after that: only ever because its owner asked for it.
    pub retry: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            machines_max: const { NonZeroU32::new(5).expect("5 is not 0") },
            launches_max: const { NonZeroU32::new(3).expect("3 is not 0") },
            log_bytes_max: 1 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_and_retries_are_counted_apart() {
        let policy = Policy::default();
        let chances = |started, unstarted, retries| {
            let Chances { relaunch, retry } = policy.chances(Earlier { started, unstarted }, retries);
            (relaunch, retry)
        };
        assert_eq!(chances(0, 0, 0), (true, false));
        assert_eq!(chances(0, 1, 1), (true, true));
        assert_eq!(chances(0, 2, 1), (false, true), "the third launch is the last");
        assert_eq!(chances(1, 0, 1), (true, false), "the one retry is this one");
        assert_eq!(chances(9, 0, 10), (true, true));
        assert_eq!(
            chances(0, 3, 10),
            (false, false),
            "what ends before `claude` each time is not tried for ever"
        );
    }

    #[test]
    fn each_retry_waits_longer_than_the_one_before_up_to_five_minutes() {
        let pause = |started| Policy::default().retry_pause(Earlier { started, unstarted: 1 }).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, u32::MAX].map(pause), [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
