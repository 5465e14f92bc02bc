//! What is known of the `claude` CLI: how it is started, what it is told, and what its lines mean.
//!
//! - [`command`]: its environment, arguments and folders.
//! - [`input`]: what is written to its standard input.
//! - [`interpret`]: what the worker learns from its lines, whose shapes are in [`said`].
//! - [`verdict`]: how its run ended.
//!
//! Nothing here starts a process, reads a pipe or looks at a clock.

pub(crate) mod command;
pub(crate) mod input;
pub(crate) mod interpret;
mod said;
pub(crate) mod verdict;
