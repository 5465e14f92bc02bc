//! What developers run on mayfly, with `cargo xtask`: long checks on real parts, each of which prints a table and
//! fails if a line of it is not as promised.

#![expect(clippy::print_stdout, reason = "its tables are for people")]

mod box_check;
mod orchestrator;
mod simulate;

use std::process::ExitCode;

use clap::Parser;

/// Long checks of mayfly on real parts
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Check {
    /// Runs many tasks on one orchestrator, which is killed again and again, and counts what became of them
    BoxCheck(box_check::Args),
    /// Plays a whole mayfly in one thread, with faults by a seed, and holds it to its promises
    Simulate(simulate::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    let check = Check::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match check {
            Check::BoxCheck(args) => box_check::run(args).await,
            Check::Simulate(args) => simulate::run(&args),
        }
    })
}
