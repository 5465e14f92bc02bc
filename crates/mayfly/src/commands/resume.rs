//! `mayfly resume`: a new task that goes on where one that is over ended.

use std::io;

use mayfly_wire::api::{Resume, Retry};

use crate::again::{AgainArgs, run_again};
use crate::carry_out::Wish;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::prompt;

const RESUME_EXAMPLES: &str = "\
Examples:
  mayfly resume 1a2b3c4d \"now the tests as well\"
  mayfly resume 1a2b3c4d - < review.txt
  mayfly resume 1a2b3c4d \"go on\" --detach

The new task has a machine, limits and an id of its own. In it the code is as the old task left
it, what was not committed uncommitted again, with the old task's library and the conversation that
`claude` had; what the code's own rules ignore has stayed behind. However the old task ended, and
whether or not its work was taken: what the new one brings back is built on the same code, and holds
the work of both. It is followed as by `mayfly run`. If no orchestrator runs, one is started in the
background.";

/// Go on where a task that is over ended, as a new task: with its work and its conversation
#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_EXAMPLES)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) again: AgainArgs,
    /// What to do next; `-` reads it from standard input
    #[arg(value_name = "PROMPT")]
    prompt: String,
}

pub(crate) async fn resume(
    args: ResumeArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let ResumeArgs { again, prompt } = args;
    let prompt = prompt::read_one(&prompt, io::stdin().lock()).map_err(Stop::usage)?;
    let wish = |id, Retry { credential, credential_name }| {
        Wish::Resume(id, Resume { prompt, credential, credential_name })
    };
    run_again(again, settings, environment, wish).await
}
