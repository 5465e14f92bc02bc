//! How many at once, when an attempt is worth another try, and how much one may say.

use std::num::NonZeroU32;

use crate::task::Attempt;

/// The rules of one orchestrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts that own a machine at one time, over all tasks. Default: 5.
    pub machines_max: NonZeroU32,
    /// How often a task may be launched while `claude` has not yet started in it. Default: 3.
    pub launches_max: NonZeroU32,
    /// What one attempt's machine may write to its log, in bytes, before the attempt is ended. Default: 1 GiB.
    pub log_bytes_max: u64,
}

impl Policy {
    /// Whether one more machine may be asked for while `alive` attempts own one.
    pub fn admits(&self, alive: u32) -> bool {
        alive < self.machines_max.get()
    }

    /// Whether a task that lost this attempt before `claude` started may have another.
    pub fn relaunches(&self, lost: Attempt) -> bool {
        lost.0 < self.launches_max.get()
    }
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
