//! `mayfly library diff`: what one lock has and another has not.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use mayfly_library::lock::{Changed, Differences, differences};
use mayfly_library::{Difference, Lock, Locked};

use super::DiffArgs;
use super::ls::short;
use crate::config::Settings;
use crate::contact::{Contact, Origin};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::printer::Printer;
use crate::values;

/// The longest lock that is read: the most resources, each with the longest names.
const LOCK_BYTES_MAX: u64 = 512 * 1024;
/// What stands for standard input.
const INPUT: &str = "-";

/// Where a lock is.
enum Given {
    Input,
    File(String),
    Task(String),
}

pub(super) async fn diff(
    args: DiffArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(args.json, environment);
    let given = [given(args.before)?, given(args.after)?];
    if matches!(given, [Given::Input, Given::Input]) {
        return Err(Stop::wrong("standard input has one lock: name a task or a file beside `-`"));
    }
    let mut interrupts = Interrupts::install()?;
    let mut contact = None;
    let mut locks = Vec::new();
    for one in given {
        let text = match one {
            Given::Input => ("standard input".to_owned(), read(io::stdin().lock())),
            Given::File(path) => {
                let text = fs::File::open(&path).and_then(read);
                (format!("`{path}`"), text)
            }
            Given::Task(id) => {
                if contact.is_none() {
                    let origin = Origin::new(settings, environment)?;
                    contact = Some(interrupts.or_stop(Box::pin(Contact::about_tasks(origin))).await?);
                }
                let contact = contact.as_ref().expect("it was just made");
                let text = contact.ask_as_typed(&mut printer, async |client| client.lock(&id).await).await?;
                (format!("the lock of task {id}"), Ok(text))
            }
        };
        locks.push(lock(text).map_err(Stop::usage)?);
    }
    let found = differences(&locks[0], &locks[1]);
    for (what, changed) in [("project", &found.project), ("agent", &found.agent)] {
        let Some(changed) = changed else { continue };
        match args.json {
            true => printer.json(&BTreeMap::from([(what, changed)])),
            false => printer.closing(&line_of(what, changed)),
        }
    }
    for one in &found.resources {
        match args.json {
            true => printer.json(one),
            false => printer.closing(&line(one)),
        }
    }
    if found == Differences::default() {
        printer.aside("both have the same project, agent and resources");
    }
    printer.exit(Exit::Success)
}

/// A file comes before a task that could be called so.
fn given(text: String) -> Result<Given, Stop> {
    match text.as_str() {
        INPUT => Ok(Given::Input),
        path if Path::new(path).is_file() => Ok(Given::File(text)),
        id if values::task(id).is_ok() => Ok(Given::Task(text)),
        _ => Err(Stop::wrong(format!(
            "`{text}` is neither a task, by the digits that `mayfly ps` shows, nor a file, nor `-`"
        ))),
    }
}

fn read(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(LOCK_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn lock((what, text): (String, io::Result<String>)) -> anyhow::Result<Lock> {
    let text = text.with_context(|| format!("cannot read {what}"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{what} is no lock, as `mayfly library lock` prints it"))
}

fn line_of(what: &str, Changed { before, after }: &Changed) -> String {
    match (before, after) {
        (None, Some(after)) => format!("+ {what} {after}"),
        (Some(before), None) => format!("- {what} {before}"),
        (Some(before), Some(after)) => format!("~ {what} {before} → {after}"),
        (None, None) => String::new(),
    }
}

fn line(Difference { before, after }: &Difference) -> String {
    let one = |locked: &Locked| format!("{}  {}", locked.id, short(&locked.sha256));
    match (before, after) {
        (None, Some(after)) => format!("+ {}", one(after)),
        (Some(before), None) => format!("- {}", one(before)),
        (Some(before), Some(after)) if before.id == after.id => {
            format!("~ {} → {}", one(before), short(&after.sha256))
        }
        (Some(before), Some(after)) => format!("~ {} → {}", one(before), one(after)),
        (None, None) => String::new(),
    }
}
