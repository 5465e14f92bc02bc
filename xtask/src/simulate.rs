//! `cargo xtask simulate`: plays seeds of the simulation, a whole mayfly in one thread with faults by a seed.
//!
//! It is a program of its own, in which time and chance are the seed's.

use std::process::{Command, ExitCode};

use anyhow::Context as _;

/// What to play.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Builds it, and plays them.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (seeds, seed) = (args.seeds.to_string(), args.seed.to_string());
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--package", "mayfly-simulation", "--"]);
    let played = cargo.args(["--seeds", &seeds, "--seed", &seed]).status().context("cargo cannot be run")?;
    Ok(if played.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
