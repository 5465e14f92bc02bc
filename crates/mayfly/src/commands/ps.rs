//! `mayfly ps`: the tasks of a data folder, as its orchestrator has them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{self, ErrorKind};

use jiff::Timestamp;
use mayfly_client::{Client, ClientError};
use mayfly_server::ServerConfig;
use mayfly_wire::api::Task;

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::Origin;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::printer::{Printer, Shown};
use crate::server_process::can_start;
use crate::values::span;

/// The states before the end, in the order of a task's life: who goes on while we ask is seen at least once.
const UNFINISHED: [&str; 5] = ["queued", "launching", "running", "collecting", "releasing"];
/// The most characters of a title.
const TITLE_CHARS_MAX: usize = 60;
/// The most characters of any other word of an orchestrator's.
const WORD_CHARS_MAX: usize = 20;

const PS_EXAMPLES: &str = "\
TIME is since the task was accepted, or, once it is over, until it was. HEARD is how long ago its
machine last said something, LEFT is the rest of its --timeout.

It only asks the orchestrator that runs: it starts none, and exits with 3 if there is none.";

/// List the tasks that wait or run, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = PS_EXAMPLES)]
pub(crate) struct PsArgs {
    /// Those that are over too
    #[arg(long)]
    all: bool,
    /// Print the tasks, one JSON object a line, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

pub(crate) async fn ps(args: PsArgs, settings: &Settings, environment: &Environment) -> Result<Exit, Stop> {
    let origin = Origin::new(settings, environment)?;
    let client = Client::new(&ServerConfig::in_dir(&origin.data).socket());
    let tasks = tasks(&client, args.all).await.map_err(|error| unanswered(error, &origin))?;
    let mut printer = Printer::of_lines(args.json, environment);
    match (args.json, tasks.is_empty()) {
        (true, _) => tasks.iter().for_each(|task| printer.json(task)),
        (false, true) if args.all => printer.aside("there are no tasks"),
        (false, true) => {
            printer.aside(&format!("no task waits or runs; `{}` lists all", origin.command("ps --all")));
        }
        (false, false) => {
            for line in table(&tasks, Timestamp::now()) {
                printer.closing(&line);
            }
        }
    }
    printer.exit(Exit::Success)
}

/// The newest first.
async fn tasks(client: &Client, all: bool) -> Result<Vec<Task>, ClientError> {
    let mut found = BTreeMap::new();
    let states: Vec<Option<&str>> = if all { vec![None] } else { UNFINISHED.map(Some).into() };
    for state in states {
        let mut cursor: Option<String> = None;
        loop {
            let page = client.tasks(state, cursor.as_deref()).await?;
            let Some(last) = page.last() else { break };
            cursor = Some(last.id.clone());
            // An id sorts by age. Who was seen before has gone on since.
            found.extend(page.into_iter().map(|task| (task.id.clone(), task)));
        }
    }
    Ok(found.into_values().rev().collect())
}

/// Why nothing was asked, in words if no orchestrator runs.
pub(super) fn unanswered(error: ClientError, origin: &Origin) -> Stop {
    if !nobody_listens(&error) {
        return error.into();
    }
    if let Err(stop) = can_start(&origin.data) {
        return stop;
    }
    anyhow::anyhow!(
        "no orchestrator runs for the data folder `{}`: `{}` starts one that stays, and `mayfly run` one for its tasks",
        origin.data.display(),
        origin.command("serve")
    )
    .into()
}

/// Whether there is no socket, or nobody behind it; and not, say, a folder that another user has closed.
fn nobody_listens(error: &ClientError) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let kind = causes.filter_map(|cause| cause.downcast_ref()).map(io::Error::kind).next();
    matches!(kind, Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused))
}

/// A heading and a line for each; the priority has a column only if there is one.
fn table(tasks: &[Task], now: Timestamp) -> Vec<String> {
    let priorities = tasks.iter().any(|task| task.priority != 0);
    let mut rows = vec![["ID", "STATE", "TIME", "TRY", "PRIO", "HEARD", "LEFT", "TITLE"].map(str::to_owned)];
    rows.extend(tasks.iter().map(|task| row(task, now)));
    let widths: Vec<usize> =
        (0..8).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).enumerate().filter(|(at, _)| *at != 4 || priorities);
        let cells: Vec<String> = cells.map(|(_, (cell, width))| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(task: &Task, now: Timestamp) -> [String; 8] {
    let word = |text: &str| Shown::line(text, WORD_CHARS_MAX).to_string();
    let between = |from: Timestamp, to: Timestamp| {
        let seconds = to.duration_since(from).as_secs();
        span(u64::try_from(seconds).unwrap_or(0))
    };
    let state = task.outcome.as_ref().map_or(&task.state, |outcome| &outcome.name);
    let maybe = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        word(&task.short),
        word(state),
        between(task.created_at, task.finished_at.unwrap_or(now)),
        task.attempt.to_string(),
        task.priority.to_string(),
        maybe(task.heard_at.map(|at| between(at, now))),
        maybe(task.deadline_at.map(|at| between(now, at))),
        Shown::line(&task.title, TITLE_CHARS_MAX).to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: &str, more: &str) -> Task {
        let task = format!(
            r#"{{"id":"0193b2c4-0000-7000-8000-01231a2b3c4d","short":"1a2b3c4d","title":"fix\u001b[2J the bug",
                "state":"{state}","attempt":1,"last_seq":9,"created_at":"2026-01-01T00:00:00Z"{more}}}"#
        );
        serde_json::from_str(&task).expect("a task")
    }

    #[test]
    fn a_table_tells_where_each_task_stands() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
        let tasks = [
            task("queued", r#","priority":-5"#),
            task("running", r#","heard_at":"2026-01-01T00:09:58Z","deadline_at":"2026-01-01T00:30:30Z""#),
            // Its clock is a little ahead of ours, and its time is over.
            task("running", r#","heard_at":"2026-01-01T00:10:01Z","deadline_at":"2026-01-01T00:09:59Z""#),
            task("finished", r#","finished_at":"2026-01-01T00:01:05Z","outcome":{"name":"succeeded"}"#),
        ];
        insta::assert_snapshot!(table(&tasks, now).join("\n"));
        insta::assert_snapshot!("without_priorities", table(&tasks[1..2], now).join("\n"));
    }
}
