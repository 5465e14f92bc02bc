//! One more task out of one that is over: what `retry` and `resume` share.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use mayfly_wire::api::Retry;

use crate::carry_out::{Job, Wish, carry_out};
use crate::cli::DataArgs;
use crate::config::{Settings, Source};
use crate::contact::{Contact, Origin};
use crate::credential::{self, Choice};
use crate::detach::detach;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::landing::Landing;
use crate::printer::Printer;
use crate::server_process::log_file;
use crate::{repository, values};

/// Which task, and what becomes of the new one.
#[derive(Debug, clap::Args)]
pub(crate) struct AgainArgs {
    /// The task: its id, or the last digits of it
    #[arg(value_name = "TASK", value_parser = values::task)]
    task: String,
    /// The git repository that takes the branch [default: the one around the current folder, else a new folder]
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// The credential for the model, by its name in the orchestrator's pool [default: that of the old task, if it
    /// was of the pool; else as for `mayfly run`]
    #[arg(long, value_name = "NAME", value_parser = values::credential_name)]
    pub(crate) credential: Option<String>,
    /// Submit the task and print its id, without following it
    #[arg(long)]
    detach: bool,
    /// Print the events, one JSON object a line, and nothing else; with --detach the task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Submits what `wish` makes of the task and its credential, and sees it to its end.
pub(crate) async fn run_again(
    args: AgainArgs,
    settings: &Settings,
    environment: &Environment,
    wish: impl FnOnce(String, Retry) -> Wish,
) -> Result<Exit, Stop> {
    let choice = credential::choose(settings, environment).map_err(Stop::usage)?;
    let origin = Origin::new(settings, environment)?;
    let data = origin.data.clone();
    let git = environment.git();
    let cwd = std::env::current_dir().context("the current folder is gone")?;
    let repo = repository::around(&git, args.repo.as_deref(), &cwd).await?;
    let mut printer = match args.detach {
        true => Printer::of_lines(args.json, environment),
        false => Printer::of_process(args.json, environment),
    };
    let mut interrupts = Interrupts::install()?;
    let contact = interrupts.or_stop(Box::pin(Contact::about_tasks(origin))).await?;
    let task = interrupts.or_stop(contact.find(&mut printer, &args.task)).await?;
    if task.outcome.is_none() {
        return Err(contact.not_over(&task));
    }
    let retry =
        match (choice, settings.values.credential.as_ref().is_some_and(|named| named.from == Source::Flag)) {
            (_, false) if task.credential_name.is_some() => Retry::default(),
            (Choice::Pool(credential_name), _) => {
                credential::check_pool(&contact, &mut printer, [credential_name.as_deref()]).await?;
                Retry { credential_name, ..Retry::default() }
            }
            (Choice::Own(found), _) => {
                found.note.iter().for_each(|note| printer.aside(note));
                Retry { credential: Some(found.credential), ..Retry::default() }
            }
        };
    let jobs = vec![Job { title: None, wish: wish(task.id, retry) }];
    if args.detach {
        let exit = detach(&contact, jobs, args.json, &mut printer, &mut interrupts).await?;
        return printer.exit(exit);
    }
    let (named, saved) = (args.repo.is_some(), data.join("saved"));
    let landing = Landing { repo, named, code: None, mirror: None, folder: cwd, saved, git };
    let exit = carry_out(&Arc::new(contact), jobs, &landing, &mut printer, &mut interrupts).await?;
    if exit == Exit::Trouble {
        printer.closing(&format!("The orchestrator's log: {}", log_file(&data).display()));
    }
    printer.exit(exit)
}
