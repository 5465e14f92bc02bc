//! `mayfly retry`: asks once more for what a task that is over asked for.

use crate::again::{AgainArgs, run_again};
use crate::carry_out::Wish;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};

const RETRY_EXAMPLES: &str = "\
The new task begins with the same prompt, limits and code as the old one did, and has an id of its
own. A credential that the old task brought is gone, and one of the pool is used again; the help of
`mayfly run` tells of both, and of how it is followed. If no orchestrator runs, one is started in the
background.";

/// Run a task that is over once more, as a new task
#[derive(Debug, clap::Args)]
#[command(after_help = RETRY_EXAMPLES)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub(crate) again: AgainArgs,
}

pub(crate) async fn retry(
    args: RetryArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    run_again(args.again, settings, environment, Wish::Again).await
}
