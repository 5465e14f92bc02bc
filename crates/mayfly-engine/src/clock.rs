//! Time, passed in: the same clock as the providers have.

pub use mayfly_provider::clock::{Clock, SystemClock};
pub(crate) use mayfly_provider::clock::{after, before};
