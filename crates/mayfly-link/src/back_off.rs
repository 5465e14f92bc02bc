//! How long to wait before dialling again.
//!
//! Each wait is between half and the whole of a step, and the step doubles from [`BACK_OFF_MIN`] to
//! [`BACK_OFF_MAX`], so that many workers that lost one orchestrator do not come back in step. There is no
//! clock here: the caller waits.

use std::fmt;
use std::time::Duration;

/// The first step.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// The longest step.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// A row of growing, jittered waits.
pub struct BackOff {
    step: Duration,
    random: Box<dyn FnMut() -> u64 + Send>,
}

impl BackOff {
    /// `random` gives any 64 bits at each call.
    pub fn new(random: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self { step: BACK_OFF_MIN, random: Box::new(random) }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let half = self.step / 2;
        let jitter = (self.random)() % (u64::try_from(half.as_micros()).expect("seconds") + 1);
        self.step = (self.step * 2).min(BACK_OFF_MAX);
        half + Duration::from_micros(jitter)
    }

    /// The other side was reached: the next wait is a short one again.
    pub fn reset(&mut self) {
        self.step = BACK_OFF_MIN;
    }
}

impl fmt::Debug for BackOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackOff").field("step", &self.step).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_longest_and_keep_within_their_step(random in any::<u64>()) {
            let mut back_off = BackOff::new(move || random);
            let mut step = BACK_OFF_MIN;
            for _ in 0..20 {
                let wait = back_off.wait();
                prop_assert!(step / 2 <= wait && wait <= step, "{wait:?} of {step:?}");
                step = (step * 2).min(BACK_OFF_MAX);
            }
            back_off.reset();
            prop_assert!(back_off.wait() <= BACK_OFF_MIN);
        }
    }
}
