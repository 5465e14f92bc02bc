//! What developers run on mayfly, with `cargo xtask`: long checks on real parts, each of which prints a table and
//! fails if a line of it is not as promised.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its tables and its progress are for people")]

mod box_check;
mod fly;
mod machines;
mod model;
mod orchestrator;
mod redteam;
mod report;
mod simulate;
mod told;
mod torture;
mod witness;

use std::process::ExitCode;

use clap::Parser;

/// Long checks of mayfly on real parts
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Runs many tasks on one orchestrator, which is killed again and again, and counts what became of them
    BoxCheck(box_check::Args),
    /// Runs tasks in machines of Fly's, where Fly is a stand-in with a script of faults, and kills the orchestrator
    FlyE2e(fly::e2e::Args),
    /// Makes a machine at the real Fly, if there is a token for it, and prints how long that took
    FlySmoke(fly::smoke::Args),
    /// Tries every attack that the threat model lists, and prints a table of what held
    Redteam(redteam::Args),
    /// Plays a whole mayfly in one thread, with faults by a seed, and holds it to its promises
    Simulate(simulate::Args),
    /// Kills and cuts whatever can be, at random, while tasks run here and through a tunnel, and checks each promise
    Torture(torture::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::BoxCheck(args) => box_check::run(args).await,
            Command::FlyE2e(args) => fly::e2e::run(args).await,
            Command::FlySmoke(args) => fly::smoke::run(args).await,
            Command::Redteam(args) => redteam::run(args).await,
            Command::Simulate(args) => simulate::run(&args),
            Command::Torture(args) => torture::run(args).await,
        }
    })
}
