//! The scripted API from outside: over TCP, as any client would use it, and with the real `claude` CLI.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod claude;
mod client;
mod control;
mod demo;
mod program;
mod runs;
mod stream;
mod strict;
