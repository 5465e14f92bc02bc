//! The gateway between a machine and a model API, both on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod bed;
mod bounds;
mod counting;
mod credentials;
mod egress;
mod gate;
mod streams;
