//! The whole engine over a real store, with simulated machines and a manual clock.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;
mod log;
mod machines;
mod queue;
mod restart;
mod time;
mod trust;
