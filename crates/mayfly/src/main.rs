//! The one binary: the owner's commands, the orchestrator, and what runs in and beside a machine.
//!
//! Two roles are told apart by their first argument alone, before anything else starts, since every machine
//! waits for them: `worker` (PID 1 of a machine) and `sandbox-holder` (the keeper of one sandbox), both of
//! [`machines`]. All else is [`cli`]: flags to values, then one function of [`commands`], then an [`exit`] code.
//!
//! The process's environment, clock and signals are read here and in [`environment`], and passed on.

mod again;
#[cfg(feature = "failpoints")]
mod bad_disk;
mod carry_out;
mod claude;
mod cli;
mod commands;
mod config;
mod contact;
mod credential;
mod detach;
mod environment;
mod exit;
mod fetching;
mod follow;
mod git_url;
mod give_way;
mod hand_over;
mod interrupts;
mod landing;
mod last;
mod lend;
mod listening;
mod log;
mod machines;
mod orchestrator;
mod printer;
mod progress;
mod prompt;
mod recap;
mod registries;
mod repository;
mod secret_input;
mod server_process;
mod settle;
mod tasks_file;
mod tools;
mod tunnel;
mod values;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
#[cfg(feature = "failpoints")]
use mayfly_failpoint::arm;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::cli::{Cli, Verb};
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};

/// How long a thread that was told to end is waited for.
const CLEAN_UP_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let role = args.next().and_then(|first| machines::role(&first, args));
    role.unwrap_or_else(owner)
}

/// What a person typed. A wrong flag ends here, with clap's words and code.
fn owner() -> ExitCode {
    let cli = Cli::parse();
    match Environment::of_process().and_then(|environment| perform(cli, &environment)) {
        Ok(exit) => exit.into(),
        Err(stop) => stop.report(),
    }
}

fn perform(cli: Cli, environment: &Environment) -> Result<Exit, Stop> {
    #[cfg(feature = "failpoints")]
    {
        environment.get("MAYFLY_FAILPOINT").into_iter().for_each(|point| arm(&point.to_string_lossy()));
        environment.get("MAYFLY_BAD_DISK").into_iter().for_each(bad_disk::bad_while);
    }
    // No file of this process's memory is left if it crashes: there may be a credential in it. Less is always granted.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let settings = Settings::load(cli.config.as_deref(), cli.flags(), environment).map_err(Stop::usage)?;
    // A second provider is never there, so the answer says nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match cli.verb {
            Verb::Demo(args) => Box::pin(commands::demo::demo(args, &settings, environment)).await,
            Verb::Run(args) => Box::pin(commands::run::run(*args, &settings, environment)).await,
            Verb::Ps(args) => commands::ps::ps(args, &settings, environment).await,
            Verb::Logs(args) => Box::pin(commands::logs::logs(args, &settings, environment)).await,
            Verb::Allow(args) => Box::pin(commands::allow::allow(args, &settings, environment)).await,
            Verb::Cancel(args) => Box::pin(commands::cancel::cancel(args, &settings, environment)).await,
            Verb::Retry(args) => Box::pin(commands::retry::retry(args, &settings, environment)).await,
            Verb::Resume(args) => Box::pin(commands::resume::resume(args, &settings, environment)).await,
            Verb::Result(args) => Box::pin(commands::result::result(args, &settings, environment)).await,
            Verb::Tunnel(args) => Box::pin(commands::tunnel::tunnel(args, &settings, environment)).await,
            Verb::Token(args) => commands::token::token(args, &settings, environment).await,
            Verb::Credential(args) => {
                Box::pin(commands::credential::credential(args, &settings, environment)).await
            }
            Verb::Library(args) => Box::pin(commands::library::library(args, &settings, environment)).await,
            Verb::Image(args) => Box::pin(commands::image::image(args, &settings, environment)).await,
            Verb::Fly(args) => Box::pin(commands::fly::fly(args, environment)).await,
            Verb::Doctor(args) => Box::pin(commands::doctor::doctor(&args, &settings, environment)).await,
            Verb::ClaudePath => commands::claude_path::claude_path(&settings, environment).await,
            Verb::Serve(args) => Box::pin(commands::serve::serve(args, &settings, environment)).await,
        }
    });
    // A fetch that was interrupted, in a thread of its own, still removes what it has.
    runtime.shutdown_timeout(CLEAN_UP_MAX);
    done
}
