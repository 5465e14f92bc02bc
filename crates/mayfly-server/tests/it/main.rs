//! The orchestrator as its callers meet it.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod artifacts;
mod bed;
mod checkpoints;
mod credentials;
mod doors;
mod egress;
mod elsewhere;
mod files;
mod hostile;
mod library;
mod matrix;
mod neighbours;
mod owner;
mod parts;
mod port;
mod readers;
mod reattach;
mod resources;
mod resume;
mod secrets;
mod setups;
mod start;
mod stream;
mod tasks;
mod tls;
mod tokens;
mod tunnel;
