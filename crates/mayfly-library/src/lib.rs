//! What agents share: skills, agents, MCP servers, hooks, rules and settings, each in a folder of its own.
//!
//! ```text
//! {skill,agent,mcp,hooks,rules,settings}/{namespace}/{name}/        namespace `_global` is for every repository
//!
//!  folder ──Library──► Resource ──resolve──► Resolution ──► Lock           what a task runs with, by content
//!                         │ pack                                │
//!                         ▼                                     │
//!                      archive, named by its SHA-256 ──unpack──►│ compile ──► files and flags of the CLI
//! ```
//!
//! The library is its owner's word: what is wrong in it is said with file, line and column, and nothing of it is run
//! here. It is read when a task is accepted; a task that runs keeps its lock. Nothing here knows a socket or a clock.
//!
//! Bounds: [`tree::FILES_MAX`] files and [`tree::BYTES_MAX`] bytes a resource, [`resolve::RESOURCES_MAX`] resources and
//! [`resolve::BYTES_MAX`] bytes a task.

pub mod artifacts;
pub mod compile;
#[cfg(test)]
mod crafted;
pub mod id;
pub mod kinds;
pub mod known;
pub mod library;
pub mod lock;
pub mod matter;
pub mod merge;
pub mod pack;
pub mod problem;
pub mod resolve;
pub mod resource;
mod shelf;
pub mod starter;
pub mod tool;
pub mod tree;
mod yaml;

pub use compile::{Compiled, Expected, Secrets, compile};
pub use id::{GLOBAL, Kind, Name, Reference, ResourceId};
pub use library::Library;
pub use lock::{Difference, Lock, Locked};
pub use merge::{HookOf, Merged, Overridden, merged};
pub use problem::{Problem, Problems};
pub use resolve::{From, Resolution, Wishes, resolve};
pub use resource::Resource;
pub use tree::File;
