//! The orchestrator: one data folder, one engine, and the doors to it.
//!
//! ```text
//! owner   ──► <data>/api.sock                               http::owner     tasks, events, results, workspaces
//!         ──► a port, if asked for, with TLS or without     http::guarded   the same, for who has a token
//! machine ──► <data>/way-out/<attempt>/orchestrator.sock    http::machine   worker link, uploads, model API
//! ```
//!
//! Neither kind leads to the other's routes. The owner is whoever the file system lets through: `<data>` is 0700.
//! A machine has the folder of its own door alone, and proves itself there with its own tokens.
//!
//! - [`ServerConfig`]: what can be chosen.
//! - [`Server`]: start, idle, stop. [`Front`]: the owner's side of a data folder for another who serves the API there.
//! - `check`: what a start would be refused for.
//! - `data`: the folder, its lock and its key; `incoming`: files that arrive;
//!   `checkpoints`: what machines hand over while they work.
//! - `tokens`: those of owners, for the port.
//! - `listen`: one door; `guest` and `stream`: a connection through it; `doors`: those of the machines; `port`: the one for others,
//!   with `tls`; `files`: how many connections there can be.
//! - `fly_src`: what Fly's proxy says of who comes by the port.
//! - `street`: doors in memory, for a simulation.
//! - `http`: a file per resource. No handler decides anything: that is the engine's part.
//!
//! Which provider makes the machines is the caller's choice; nothing here knows one.

mod adopt;
mod began;
mod bundle;
mod check;
mod checkpoints;
mod config;
mod data;
mod doors;
mod files;
mod fly_src;
mod front;
mod guest;
mod http;
mod incoming;
mod listen;
mod port;
mod server;
mod stream;
mod street;
mod tls;
mod tokens;
#[cfg(test)]
mod told;

pub use adopt::make_data_folder;
pub use check::{Database, check_database, check_port, check_socket};
pub use config::{LIBRARY, ServerConfig};
pub use data::{
    BadSecret, DataError, NO_LINK, check_data_folder, holder_of, new_token, wait_until_had_by_none,
    write_private,
};
pub use doors::MACHINE_CONNECTIONS_MAX;
pub use files::raise_open_files;
pub use fly_src::FlySrc;
pub use front::{Front, Serving};
pub use mayfly_gateway::egress::{Network, Resolve};
pub use server::{STOP_MAX, Server, StartError};
pub use street::Street;
pub use tls::{Tls, TlsError};
