//! A library on a disk, read as a task would.

#![allow(clippy::unwrap_used, reason = "tests")]

mod compile;
mod library;
mod starter;
