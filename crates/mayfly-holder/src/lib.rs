//! Machines of this box, each kept by a *holder*: a small process of our own binary that makes the machine, waits for its
//! end, and outlives the orchestrator, so that a restarted one finds its machines alive.
//!
//! ```text
//! orchestrator                              holder
//!   making: starts it ──spec──► stdin         spec: takes its streams
//!                     ◄─answer─ stdout        … makes the machine, says so, holds the lock of its life
//!                       lock ─► stderr
//! machines/.making/<attempt>   locked while somebody makes or unmakes the machine   (places)
//! machines/<attempt>/          all of it, with the lock of its life and its state              (folder)
//! ```
//!
//! Finding one made, making it, unmaking it and listing all is the same whatever a machine is made of ([`Machines`]); that, and
//! what else its folder holds, is its provider's business ([`Kind`]).

mod failure;
mod folder;
mod lock;
mod machines;
mod making;
mod places;
mod process;
mod streams;

pub use failure::{Failure, Step};
pub use folder::Folder;
pub use lock::Lock;
pub use machines::{Kind, Machines, Purpose, machine};
pub use making::Making;
pub use places::{Places, make_private};
pub use process::{ProcessId, run, wait_readable};
pub use streams::{Answer, Streams};
