//! Virtual machines on the real QEMU, with a real guest: what is made, how it ends, and what is left.
//!
//! The guest and the device for vsock are in a folder that `MAYFLY_TEST_MICROVM` names (see `scripts/test-guest`).

#![expect(clippy::unwrap_used, reason = "a fault here is a failed test")]

mod conformance;
mod life;
mod world;
