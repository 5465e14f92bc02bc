//! `mayfly logs`: what a task has said, as `run` prints it, as events, or as the bytes of `claude` alone.

use mayfly_client::ClientError;
use mayfly_wire::api::Outcome;
use mayfly_wire::event::{Event, EventSource, MayflyEvent};

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Contact, Origin, tell};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::printer::{Printer, Row};
use crate::values;

const LOGS_EXAMPLES: &str = "\
Examples:
  mayfly logs 1a2b3c4d                    # what it said until now
  mayfly logs 1a2b3c4d --follow           # until it is over; exits as `run` would
  mayfly logs 1a2b3c4d --raw | sha256sum  # the very bytes that `claude` wrote

Ctrl-C ends the following, and not the task. If no orchestrator runs, one is started in the
background, as by `mayfly run`.";

/// Print what a task has said
#[derive(Debug, clap::Args)]
#[command(after_help = LOGS_EXAMPLES)]
pub(crate) struct LogsArgs {
    /// The task: its id, or the last digits of it
    #[arg(value_name = "TASK", value_parser = values::task)]
    task: String,
    /// Go on until the task is over
    #[arg(long)]
    follow: bool,
    /// Start after the event with this number; 0 is everything
    #[arg(long, value_name = "SEQ", default_value = "0", value_parser = values::event, allow_negative_numbers = true)]
    after: u64,
    /// Print only what `claude` wrote to its standard output, byte for byte
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print the events, one JSON object a line, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

pub(crate) async fn logs(
    args: LogsArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(args.json, environment);
    let contact = Contact::about_tasks(Origin::new(settings, environment)?).await?;
    // A tunnel has the log here, also while it cannot ask what the task is called.
    let task = contact.find_if_reached(&mut printer, &args.task).await?;
    let id = task.as_ref().map_or(&args.task, |task| &task.id);
    printer.follow(vec![match &task {
        Some(task) => Row::new(&task.short, &task.title),
        None => Row::new(last_digits(id), ""),
    }]);
    let mut events = match args.follow {
        true => contact.client.events(id, args.after),
        false => contact.client.events_so_far(id, args.after),
    };
    let mut last = None;
    while !printer.unread() {
        match events.next().await {
            Ok(Some(line)) => {
                contact.heard();
                match args.raw {
                    true => printer.bytes(&claude_wrote(&line)?),
                    false => printer.event(0, &line),
                }
                last = Some(line);
            }
            Ok(None) => break,
            Err(ClientError::Gone { first }) => {
                let last = task.as_ref().map(|task| task.last_seq);
                return Err(gone(&contact, last_digits(id), last, first));
            }
            Err(error) => tell(&mut printer, contact.again(error).await?),
        }
    }
    if task.is_none() && !args.follow && last.as_deref().and_then(outcome_in).is_none() {
        printer.aside("this is what has come here so far: the rest comes when the tunnel has its link again");
    }
    if !args.follow || printer.unread() {
        return printer.exit(Exit::Success);
    }
    let outcome = match last.and_then(|line| outcome_in(&line)) {
        // All of it was before the first event that was asked for.
        None => contact.find(&mut printer, id).await?.outcome,
        told => told,
    };
    printer.exit(outcome.map_or(Exit::Success, |outcome| Exit::of_outcome(&outcome.name)))
}

/// How the task ended, if the event says so.
fn outcome_in(line: &str) -> Option<Outcome> {
    match Event::parse(line).ok()?.event? {
        MayflyEvent::Finished { outcome } => Some(outcome),
        _ => None,
    }
}

/// As many of an id as people see.
fn last_digits(id: &str) -> &str {
    const DIGITS: usize = 8;
    id.len().checked_sub(DIGITS).and_then(|at| id.get(at..)).unwrap_or(id)
}

/// What was asked for was there once.
fn gone(contact: &Contact, short: &str, last: Option<u64>, first: u64) -> Stop {
    if last.is_some_and(|last| first > last) {
        return Stop::wrong(format!(
            "the log of task {short} is not kept any more: it was over longer ago than `keep_finished` of the \
             orchestrator says; `mayfly ps --all` still tells how it ended"
        ));
    }
    let rest = format!("logs {short} --after {}", first - 1);
    let rest = contact.origin().map_or_else(String::new, |origin| origin.command(&rest));
    Stop::wrong(format!(
        "the log of task {short} is not kept any more before event {first}: `{rest}` prints what is left"
    ))
}

/// The bytes of `claude` that an event carries.
fn claude_wrote(line: &str) -> anyhow::Result<Vec<u8>> {
    let event = Event::parse(line)?;
    Ok(if event.source == EventSource::Claude { event.raw() } else { Vec::new() })
}
