//! The sandbox on the real kernel: what is made, what cannot be reached from inside, and what is left.
//!
//! As root, all of it is done once more by an ordinary user (see `ordinary`).

#![expect(clippy::unwrap_used, reason = "a fault here is a failed test")]

mod conformance;
mod escape;
mod layers;
mod life;
mod limits;
mod ordinary;
mod workspace;
mod world;
