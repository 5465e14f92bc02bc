//! Machines of this box, each kept by a *holder*: a small process of our own binary that makes the machine, waits for its
//! end, and outlives the orchestrator, so that a restarted one finds its machines alive.
//!
//! ```text
//! orchestrator                              holder
//!   making: starts it ──spec──► stdin         spec: takes its streams
//!                     ◄─answer─ stdout        … makes the machine, says so, holds the lock of its life
//!                       lock ─► stderr
//! machines/.making/<attempt>   locked while somebody makes or unmakes the machine   (places)
//! machines/<attempt>/          all of it, with the lock of its life and its state
//! ```
//!
//! What a machine is, and what its folder holds, is its provider's business.

mod failure;
mod lock;
mod making;
mod places;
mod process;
mod streams;

pub use failure::{Failure, Step};
pub use lock::{Lock, is_held};
pub use making::Making;
pub use places::{Places, make_private};
pub use process::{ProcessId, run, wait_readable};
pub use streams::{Answer, Streams};
