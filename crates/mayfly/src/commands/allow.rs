//! `mayfly allow`: lets a task's machines go to more hosts, and shows where they asked to go.

use mayfly_core::host::Rule;
use mayfly_wire::api::{Allowed, Egress, EgressEntry};
use serde::Serialize;

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Contact, Origin};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::printer::{Printer, Shown};
use crate::values;

/// The most characters of a host.
const HOST_CHARS_MAX: usize = 80;

const ALLOW_EXAMPLES: &str = "\
Examples:
  mayfly allow 1f3a example.com           # its ports 443 and 80
  mayfly allow 1f3a '*.example.com:8443'  # that port of all names below it
  mayfly allow 1f3a                       # what is allowed, and where the task asked to go

It holds for what is asked for from then on, also where the task runs already, and until its end.";

/// Let a task reach more hosts, or show where it asked to go
#[derive(Debug, clap::Args)]
#[command(after_help = ALLOW_EXAMPLES)]
pub(crate) struct AllowArgs {
    /// The task: its id, or the last digits of it
    #[arg(value_name = "TASK", value_parser = values::task)]
    task: String,
    /// The hosts to allow; none shows what is allowed and each decision
    #[arg(value_name = "HOST[:PORT]", value_parser = values::rule)]
    hosts: Vec<Rule>,
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// What is allowed, and where the task asked to go.
#[derive(Debug, Serialize)]
struct Whole {
    hosts: Vec<String>,
    #[serde(flatten)]
    egress: Egress,
}

pub(crate) async fn allow(
    args: AllowArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(args.json, environment);
    let contact = Contact::about_tasks(Origin::new(settings, environment)?).await?;
    let task = contact.find(&mut printer, &args.task).await?;
    if args.hosts.is_empty() {
        let allowed = contact.ask(&mut printer, async |client| client.allowed(&task.id).await).await?;
        let egress = contact.ask(&mut printer, async |client| client.egress(&task.id).await).await?;
        match args.json {
            true => printer.json(&Whole { hosts: allowed.hosts, egress }),
            false => tell(&mut printer, &allowed, &egress),
        }
        return printer.exit(Exit::Success);
    }
    let more = Allowed { hosts: args.hosts.iter().map(ToString::to_string).collect() };
    let allowed =
        contact.ask_as_typed(&mut printer, async |client| client.allow(&task.id, &more).await).await?;
    match args.json {
        true => printer.json(&allowed),
        false => printer.closing(&listed(&allowed)),
    }
    printer.exit(Exit::Success)
}

fn tell(printer: &mut Printer, allowed: &Allowed, egress: &Egress) {
    printer.closing(&listed(allowed));
    for entry in &egress.entries {
        printer.closing(&line(entry));
    }
    if egress.dropped > 0 {
        printer.closing(&format!("and {} more, of which no record was kept", egress.dropped));
    }
}

fn listed(allowed: &Allowed) -> String {
    match allowed.hosts.is_empty() {
        true => "nothing but the model is allowed".to_owned(),
        false => format!("allowed: {}", allowed.hosts.join(", ")),
    }
}

fn line(entry: &EgressEntry) -> String {
    let EgressEntry { at, host, port, decision, reason, sent, received, .. } = entry;
    let host = Shown::line(&format!("{host}:{port}"), HOST_CHARS_MAX);
    let what = match reason {
        Some(reason) => reason.clone(),
        None => format!("{sent} bytes out, {received} back"),
    };
    format!("{at:.0}  {decision:<7}  {}  {what}", host.as_str())
}
