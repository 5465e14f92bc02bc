//! A whole mayfly in one thread: a real orchestrator on a real database, real workers' links, a real tunnel, on a clock
//! that runs as fast as it can and a network that fails, all by one seed.
//!
//! ```text
//! owner ──┐                       ┌── worker (uplink, outbox, spool) × n, with `claude` played
//!         ├─► network, faults ◄───┤
//! tunnel ─┘         │             └── machines: made and unmade, unclear at times
//!                   ▼
//!            orchestrator: server, engine, store          ledger ◄─ what really happened ─► check
//! ```
//!
//! Not here: sockets, TLS, processes and disks that fail. Each seed has a process of its own, in which nothing is left
//! to chance (`stand_in`): a seed that fails fails again.

#![expect(clippy::print_stdout, reason = "its findings are for people")]

mod check;
mod host;
mod http;
mod ledger;
mod machines;
mod network;
mod owner;
mod played;
mod runner;
mod stand_in;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::ledger::Ledger;
use crate::world::World;

/// The real time that one seed may take; as a rule it is less than a second.
const SEED_TIME_MAX: Duration = Duration::from_secs(120);

/// Plays seeds, and tells which of them broke a promise
#[derive(Debug, Parser)]
struct Args {
    /// The seed, or the first of many
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds; without it, the one is played in this process
    #[arg(long)]
    seeds: Option<u64>,
    /// What the parts log, such as `mayfly_engine=debug`
    #[arg(long, default_value = "off")]
    log: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let Args { seed, seeds, log } = Args::parse();
    if let Some(count) = seeds {
        return runner::run(seed, count);
    }
    tracing_subscriber::fmt().with_env_filter(log).with_writer(std::io::stderr).with_ansi(false).init();
    watch(seed);
    // A thread asks for random bytes once, and this one may have.
    let played = std::thread::spawn(move || one(seed)).join();
    Ok(played.unwrap_or(ExitCode::FAILURE))
}

/// Ends the process if the seed does not come to an end by itself.
fn watch(seed: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(SEED_TIME_MAX);
        println!("seed {seed}: BROKEN: no end after {} s", SEED_TIME_MAX.as_secs());
        std::process::exit(2);
    });
}

fn one(seed: u64) -> ExitCode {
    stand_in::begin(seed);
    let ledger = Ledger::default();
    let told = ledger.clone();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        told.violated(format!("a panic: {panic}"));
    }));
    let report = World::play(seed, &ledger);
    println!("seed {seed}: {report}");
    let violations = std::mem::take(&mut ledger.facts().violations);
    for words in &violations {
        println!("seed {seed}: BROKEN: {words}");
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
