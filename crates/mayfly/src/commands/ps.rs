//! `mayfly ps`: the tasks of a data folder, as its orchestrator has them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::time::Duration;

use jiff::Timestamp;
use mayfly_client::{Client, ClientError};
use mayfly_server::ServerConfig;
use mayfly_wire::api::{Limits, Task, Usage};
use mayfly_wire::tunnel::AWAY;

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::Origin;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::printer::{Printer, Shown};
use crate::server_process::{can_start, leads_here};
use crate::values::{show_bytes, show_count, show_dollars, show_duration, span};

/// The states before the end, in the order of a task's life: who goes on while we ask is seen at least once.
const UNFINISHED: [&str; 5] = ["queued", "launching", "running", "collecting", "releasing"];
/// The most characters of a title, and those that it has on the narrowest terminal.
const TITLE_CHARS_MAX: usize = 60;
const TITLE_CHARS_MIN: usize = 20;
/// The most characters of any other word of an orchestrator's.
const WORD_CHARS_MAX: usize = 20;
/// What stands in a cell for nothing.
const NONE: &str = "-";
/// The columns, but for the title.
const HEADINGS: [&str; 9] = ["ID", "STATE", "TIME", "TRY", "PRIO", "HEARD", "LEFT", "LIMITS", "USED"];
/// That of the priority, and that of what was used.
const PRIO: usize = 4;
const USED: usize = 8;

const PS_EXAMPLES: &str = "\
TIME is since the task was accepted, or, once it is over, until it was. HEARD is how long ago its
machine last said something, LEFT is the rest of its --timeout. LIMITS are its --timeout and, after
the slash, its --idle-timeout, then its --max-turns (t) and its --max-budget-usd ($). USED are the
tokens that it sent and, after the slash, those that it got, then what that cost, where the terminal
has room for it. The last line says what each machine may use; --json has all of it for each task.

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
            for line in table(&tasks, Timestamp::now(), terminal_width()) {
                printer.closing(&line);
            }
            if let Some(limits) = tasks.iter().find_map(|task| task.limits) {
                printer.aside(&machine_words(&limits));
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
    if let ClientError::Refused(problem) = &error
        && problem.kind == AWAY
    {
        let logs = origin.command("logs TASK");
        return anyhow::anyhow!("{}; `{logs}` still prints what has come here", problem.detail).into();
    }
    if !nobody_listens(&error) {
        return error.into();
    }
    if let Err(stop) = leads_here(&origin.data).and_then(|()| can_start(origin)) {
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

/// How wide the terminal of standard output is, if it is one.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(size.ws_col.into()).filter(|width| *width > 0)
}

/// A heading and a line for each; the priority has a column only if there is one, and what was used only if something was
/// and the terminal has room. The titles are cut where the terminal ends, so that no line goes on in the next.
fn table(tasks: &[Task], now: Timestamp, width: Option<usize>) -> Vec<String> {
    let priorities = tasks.iter().any(|task| task.priority != 0);
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(tasks.iter().map(|task| row(task, now)));
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let cells = |row: &[String; 9], used: bool| {
        let shown = |at: usize| (at != PRIO || priorities) && (at != USED || used);
        let cells = row.iter().zip(&widths).enumerate().filter(|(at, _)| shown(*at));
        cells.map(|(_, (cell, width))| format!("{cell:width$}  ")).collect::<Vec<_>>().concat()
    };
    let fits = width.is_none_or(|width| cells(&rows[0], true).chars().count() + TITLE_CHARS_MIN < width);
    let used = fits && tasks.iter().any(|task| task.usage.is_some());
    let line = |row: &[String; 9]| cells(row, used);
    let rest = width.map_or(TITLE_CHARS_MAX, |width| width.saturating_sub(line(&rows[0]).chars().count()));
    // One that is cut ends with a character more.
    let most = rest.saturating_sub(1).clamp(TITLE_CHARS_MIN, TITLE_CHARS_MAX);
    let titles = tasks.iter().map(|task| Shown::line(&task.title, most).to_string());
    let titles = std::iter::once("TITLE".to_owned()).chain(titles);
    rows.iter().zip(titles).map(|(row, title)| (line(row) + &title).trim_end().to_owned()).collect()
}

fn row(task: &Task, now: Timestamp) -> [String; 9] {
    let word = |text: &str| Shown::line(text, WORD_CHARS_MAX).to_string();
    let maybe = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    [
        word(&task.short),
        state(task, now),
        between(task.created_at, task.finished_at.unwrap_or(now)),
        maybe((task.attempt > 0).then(|| task.attempt.to_string())),
        task.priority.to_string(),
        maybe(task.heard_at.map(|at| between(at, now))),
        maybe(task.deadline_at.map(|at| between(now, at))),
        maybe(task.limits.map(|limits| word(&limit_words(&limits)))),
        maybe(task.usage.as_ref().map(|usage| word(&used_words(usage)))),
    ]
}

/// Its state, or how it ended; of one that waits to be tried again, for how long.
fn state(task: &Task, now: Timestamp) -> String {
    let state = task.outcome.as_ref().map_or(&task.state, |outcome| &outcome.name);
    match task.due_at.filter(|due| *due > now && state == "queued") {
        Some(due) => format!("retry in {}", between(now, due)),
        None => Shown::line(state, WORD_CHARS_MAX).to_string(),
    }
}

fn between(from: Timestamp, to: Timestamp) -> String {
    span(u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0))
}

/// What bounds the task itself, such as `30m/10m 50t $2`.
fn limit_words(limits: &Limits) -> String {
    let turns = limits.max_turns.map(|turns| format!(" {turns}t"));
    let money = limits.max_budget_usd.map(|money| format!(" ${money}"));
    let (whole, idle) = (time(limits.timeout_ms), time(limits.idle_timeout_ms));
    format!("{whole}/{idle}{}{}", turns.unwrap_or_default(), money.unwrap_or_default())
}

/// What was used, such as `35k/2k $0.02`.
fn used_words(usage: &Usage) -> String {
    let sent = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
    let cost = usage.cost_usd.map(|usd| format!(" {}", show_dollars(usd))).unwrap_or_default();
    format!("{}/{}{cost}", show_count(sent), show_count(usage.output_tokens))
}

/// A limit of time; the API takes those that no flag does.
fn time(ms: u64) -> String {
    match ms.is_multiple_of(1000) {
        true => show_duration(Duration::from_millis(ms)),
        false => format!("{ms}ms"),
    }
}

/// What bounds a machine: the same for all of one orchestrator.
fn machine_words(limits: &Limits) -> String {
    let (memory, disk) = (show_bytes(limits.memory_bytes), show_bytes(limits.disk_bytes));
    let (processes, cpus) = (limits.processes, limits.cpus);
    format!("each machine may use {memory} of memory, {processes} processes, {cpus} cpus, {disk} of disk")
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

    /// As the orchestrator tells of a task that is not over.
    fn limits(more: &str) -> String {
        format!(
            r#","limits":{{"timeout_ms":1800000,"idle_timeout_ms":600000,"memory_bytes":4294967296,"processes":1024,
                "cpus":2.0,"disk_bytes":21474836480{more}}}"#
        )
    }

    fn some_tasks() -> [Task; 6] {
        let limits = limits("");
        let heard = |at: &str| format!(r#","heard_at":"2026-01-01T00:{at}Z","deadline_at":"2026-01-01T00"#);
        [
            task("queued", &format!(r#","priority":-5{limits}"#)),
            task("running", &format!(r#"{}:30:30Z"{limits}"#, heard("09:58"))),
            // Its clock is a little ahead of ours, and its time is over.
            task(
                "running",
                &format!(
                    r#"{}:09:59Z"{}"#,
                    heard("10:01"),
                    self::limits(r#","max_turns":50,"max_budget_usd":2.5"#)
                ),
            ),
            task("queued", &format!(r#","due_at":"2026-01-01T00:10:40Z"{limits}"#)),
            task("queued", &format!(r#","due_at":"2026-01-01T00:09:40Z"{limits}"#)),
            task(
                "finished",
                r#","finished_at":"2026-01-01T00:01:05Z","outcome":{"name":"succeeded"},
                    "usage":{"requests":3,"input_tokens":900,"cache_read_tokens":34000,"output_tokens":1999,"cost_usd":0.0213}"#,
            ),
        ]
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().expect("a time")
    }

    #[test]
    fn a_table_tells_where_each_task_stands_and_what_bounds_it() {
        let mut tasks = some_tasks();
        tasks[0].attempt = 0;
        insta::assert_snapshot!(table(&tasks, now(), None).join("\n"));
        insta::assert_snapshot!("without_priorities", table(&tasks[1..2], now(), None).join("\n"));
        let limits = tasks[0].limits.expect("limits");
        let words = "each machine may use 4GiB of memory, 1024 processes, 2 cpus, 20GiB of disk";
        assert_eq!(machine_words(&limits), words);
        assert_eq!(limit_words(&Limits { timeout_ms: 1500, ..limits }), "1500ms/10m");
    }

    #[test]
    fn a_long_title_ends_where_the_terminal_does() {
        let mut tasks = some_tasks();
        tasks[1].title = "long ".repeat(20);
        let longest = |width| {
            let lines = table(&tasks[1..2], now(), width).into_iter();
            lines.map(|line| line.chars().count()).max().expect("lines")
        };
        assert_eq!(longest(Some(80)), 80);
        assert!(longest(None) > 100);
        assert_eq!(longest(Some(10)), longest(Some(60)), "some of it is always there");
        tasks[1].usage = tasks[5].usage.clone();
        let has_used = |width| table(&tasks[1..2], now(), width)[0].contains("USED");
        assert_eq!([None, Some(120), Some(80)].map(has_used), [true, true, false]);
    }
}
