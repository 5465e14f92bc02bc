//! Virtual machines on the real QEMU, with a real guest: what is made, how it ends, and what is left.
//!
//! The guest and the device for vsock are in a folder that `MAYFLY_TEST_MICROVM` names, where `scripts/test` makes them.

#![expect(clippy::unwrap_used, reason = "a fault here is a failed test")]

mod conformance;
mod firecracker;
mod life;
mod world;
