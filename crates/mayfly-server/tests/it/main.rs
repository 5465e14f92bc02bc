//! The orchestrator as its callers meet it.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod bed;
mod doors;
mod hostile;
mod neighbours;
mod owner;
mod port;
mod start;
mod tasks;
mod tokens;
