//! `mayfly cancel`: ends tasks, and waits until their machines are gone.

use mayfly_wire::api::Task;

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Contact, Origin};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::printer::Printer;
use crate::values;

const CANCEL_EXAMPLES: &str = "\
The work is still brought out of the machine; `mayfly result` takes it. With --force it is lost.
Ctrl-C ends the waiting, and not the cancelling. If no orchestrator runs, one is started in the
background, as by `mayfly run`.";

/// End tasks, and wait until their machines are gone
#[derive(Debug, clap::Args)]
#[command(after_help = CANCEL_EXAMPLES)]
pub(crate) struct CancelArgs {
    /// The tasks: their ids, or the last digits of them
    #[arg(value_name = "TASK", required = true, value_parser = values::task)]
    tasks: Vec<String>,
    /// Do not wait for the work: end the machines at once
    #[arg(long)]
    force: bool,
    /// Print the tasks as they ended, one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

pub(crate) async fn cancel(
    args: CancelArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(args.json, environment);
    let contact = Contact::about_tasks(Origin::new(settings, environment)?).await?;
    // All of them first: where one is wrong, none is cancelled.
    let mut tasks = Vec::new();
    for name in &args.tasks {
        tasks.push(contact.find(&mut printer, name).await?);
    }
    for task in tasks.iter().filter(|task| task.outcome.is_none()) {
        contact.ask(&mut printer, async |client| client.cancel(&task.id, args.force).await).await?;
    }
    for before in &tasks {
        let task = contact.wait(&mut printer, before).await?;
        match args.json {
            true => printer.json(&task),
            false => tell(&task, before.outcome.is_some(), &contact, &mut printer),
        }
    }
    printer.exit(Exit::Success)
}

fn tell(task: &Task, was_over: bool, contact: &Contact, printer: &mut Printer) {
    let Task { short, title, .. } = task;
    let name = task.outcome.as_ref().map_or(&task.state, |outcome| &outcome.name);
    let already = if was_over { " already" } else { "" };
    printer.closing(&format!("{short}  {name}{already}  {title}"));
    let has_work = task.result.as_ref().is_some_and(|result| result.bundle);
    if let (true, Some(origin)) = (has_work, contact.origin()) {
        printer.closing(&format!("          its work: {}", origin.command(&format!("result {short}"))));
    }
}
