//! The orchestrator: one data folder, one engine, and the two doors to it.
//!
//! ```text
//! owner   ──► <data>/api.sock                     0600   http::owner     tasks, events, results, workspaces
//! machine ──► <data>/way-out/orchestrator.sock    0666   http::machine   worker link, result uploads, model API
//! ```
//!
//! Neither door leads to the other's routes. The owner is whoever the file system lets through: `<data>` is
//! 0700. A machine has only the `way-out` folder, and proves itself with tokens.
//!
//! - [`ServerConfig`]: what can be chosen.
//! - [`Server`]: start, idle, stop.
//! - `data`: the folder, its lock and its key; `incoming`: files that arrive; `listen`: the doors.
//! - `http`: a file per resource. No handler decides anything: that is the engine's part.
//!
//! Which provider makes the machines is the caller's choice; nothing here knows one.

mod bundle;
mod config;
mod data;
mod http;
mod incoming;
mod listen;
mod server;

pub use config::ServerConfig;
pub use data::DataError;
pub use server::{STOP_MAX, Server, StartError};
