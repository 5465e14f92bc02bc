//! `mayfly retry`: asks once more for what a task that is over asked for.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use mayfly_wire::api::Retry;

use crate::carry_out::{Job, Wish, carry_out};
use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Contact, Origin};
use crate::detach::detach;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::landing::Landing;
use crate::printer::Printer;
use crate::server_process::log_file;
use crate::{credential, repository, values};

const RETRY_EXAMPLES: &str = "\
The new task begins with the same prompt, limits and code as the old one did, and has an id of its
own. It is followed as by `mayfly run`, in whose help the credential is described; that of the old
task is gone. If no orchestrator runs, one is started in the background.";

/// Run a task that is over once more, as a new task
#[derive(Debug, clap::Args)]
#[command(after_help = RETRY_EXAMPLES)]
pub(crate) struct RetryArgs {
    /// The task: its id, or the last digits of it
    #[arg(value_name = "TASK", value_parser = values::task)]
    task: String,
    /// The git repository that takes the branch [default: the one around the current folder]
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Submit the task and print its id, without following it
    #[arg(long)]
    detach: bool,
    /// Print the events, one JSON object a line, and nothing else; with --detach the task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

pub(crate) async fn retry(
    args: RetryArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let found = credential::find(environment).map_err(Stop::usage)?;
    let origin = Origin::new(settings, environment)?;
    let data = origin.data.clone();
    let git = environment.git();
    let cwd = std::env::current_dir().context("the current folder is gone")?;
    let repo = repository::around(&git, args.repo.as_deref(), &cwd).await?;
    let mut printer = match args.detach {
        true => Printer::of_lines(args.json, environment),
        false => Printer::of_process(args.json, environment),
    };
    found.note.iter().for_each(|note| printer.aside(note));
    let mut interrupts = Interrupts::install()?;
    let contact = interrupts.or_stop(Box::pin(Contact::about_tasks(origin))).await?;
    let task = interrupts.or_stop(contact.find(&mut printer, &args.task)).await?;
    if task.outcome.is_none() {
        return Err(contact.not_over(&task));
    }
    if let (Some(workspace), None, false) = (&task.workspace, &repo, args.detach) {
        return Err(Stop::wrong(format!(
            "the task works on the code of `{}`, and there is no git repository here to take its branch: name it with \
             --repo PATH, or add --detach",
            workspace.name
        )));
    }
    let wish = Wish::Again(task.id, Retry { credential: Some(found.credential) });
    let jobs = vec![Job { title: None, wish }];
    if args.detach {
        let exit = detach(&contact, jobs, args.json, &mut printer, &mut interrupts).await?;
        return printer.exit(exit);
    }
    let landing = Landing { repo, code: None, folder: cwd, saved: data.join("saved"), git };
    let exit = carry_out(&Arc::new(contact), jobs, &landing, &mut printer, &mut interrupts).await?;
    if exit == Exit::Trouble {
        printer.closing(&format!("The orchestrator's log: {}", log_file(&data).display()));
    }
    printer.exit(exit)
}
