//! From `mayfly run` to a branch: the real binary, the real `claude`, the real sandbox, a scripted model.
//!
//! Each test has an orchestrator and a Messages API of its own; `mayfly run` joins the one and its tasks reach
//! the other by the gateway alone.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod away;
mod cancelling;
mod checkpoints;
mod credentials;
mod demo;
mod draining;
mod egress;
mod elsewhere;
mod endings;
mod failpoints;
mod fly;
mod full_disk;
mod hostile;
mod isolation;
mod kills;
mod kills_in;
mod library;
mod limits;
mod microvm;
mod port;
mod repositories;
mod resuming;
mod service;
mod setup;
mod steady;
mod stream;
mod succession;
mod tunnel;
mod verbs;
mod world;
