//! The provider against a stand-in for Fly: what it makes, what it believes, and what it says.

#![expect(clippy::unwrap_used, reason = "a fault here is a failed test")]

mod bed;
mod conformance;
mod create;
mod deploy;
mod destroy;
mod look;
mod probe;
mod sweep;
