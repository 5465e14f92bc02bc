//! The summary of a task that is over: how it ended, what it did, what it changed, and how to take that.

use mayfly_client::ClientError;
use mayfly_git::{Change, Changes, Flagged};
use mayfly_wire::api::{Task, Usage};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Taking, of_attempt};
use crate::contact::{Origin, tell};
use crate::exit::Stop;
use crate::recap::{Ran, Recap};
use crate::{landing, values};

/// The most files, commands and tests that are shown to people.
const FILES_SHOWN: usize = 20;
const COMMANDS_SHOWN: usize = 10;
const TESTS_SHOWN: usize = 5;

/// A label, and what stands beside it; the first line has none.
type Line = (Option<&'static str>, String);

/// What was changed, as a program reads it.
#[derive(Debug)]
struct Changed(Changes);

impl Serialize for Changed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Changes { files, count, flagged } = &self.0;
        let file = |change: &Change| {
            let (added, removed) = change.lines.unzip();
            json!({"path": change.path, "added": added, "removed": removed})
        };
        let files: Vec<Value> = files.iter().map(file).collect();
        let flag = |Flagged { beside, path, words }: &Flagged| match beside {
            None => json!({"path": path, "what": words}),
            Some(beside) => json!({"path": path, "what": words, "beside": beside}),
        };
        let flagged: Vec<Value> = flagged.iter().map(flag).collect();
        json!({"count": count, "files": files, "flagged": flagged}).serialize(serializer)
    }
}

/// What is told of a task.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    #[serde(flatten)]
    task: &'a Task,
    /// What it changed; none if nothing came out, or it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Changed>,
    /// What its log says in sum; none if that is not kept any more, or cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Recap>,
    /// The attempt that was asked for.
    #[serde(skip)]
    attempt: Option<u32>,
    /// The other attempts that left work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_attempts: Vec<u32>,
    /// What should be there and cannot be told, and why; a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<String>,
}

impl<'a> Summary<'a> {
    /// Reads all that there is about it.
    pub(super) async fn of(task: &'a Task, taking: &mut Taking) -> Self {
        let attempt = taking.attempt;
        let mut summary =
            Self { task, attempt, changes: None, log: None, other_attempts: Vec::new(), unknown: Vec::new() };
        if task.outcome.is_none() || task.pruned {
            return summary;
        }
        match landing::other_attempts(&taking.contact, &mut taking.printer, task).await {
            Ok(others) => summary.other_attempts = others,
            Err(error) => summary.unknown.push(format!("what other attempts left: {error:#}")),
        }
        match recap(task, taking).await {
            Ok(log) => summary.log = log,
            Err(error) => summary.unknown.push(format!("its log: {error:#}")),
        }
        if let Some(Ok(Some(head))) = task.result.as_ref().map(landing::head) {
            match changes(task, head, taking).await {
                Ok(changes) => summary.changes = Some(Changed(changes)),
                Err(error) => summary.unknown.push(format!("what it changed: {error:#}")),
            }
        }
        summary
    }

    /// The lines that people read.
    pub(super) fn lines(&self, origin: Option<&Origin>) -> Vec<Line> {
        let Task { short, title, outcome, .. } = self.task;
        let name = outcome.as_ref().map_or("", |outcome| outcome.name.as_str());
        let mut lines = vec![(None, format!("{short}  {name}  {title}"))];
        let reason = outcome.as_ref().and_then(|outcome| outcome.detail.clone());
        lines.extend(reason.map(|reason| (Some("reason"), reason)));
        lines.extend(self.changed());
        lines.extend(self.log.iter().flat_map(did));
        lines.extend(self.task.usage.as_ref().map(|usage| (Some("used"), used_words(usage))));
        lines.extend(self.came_out());
        let take = |attempt| landing::attempt_words(origin, short, attempt);
        lines.extend(self.other_attempts.iter().map(|attempt| (Some("note"), take(*attempt))));
        lines.extend(self.unknown.iter().map(|line| (Some("unknown"), line.clone())));
        lines.extend(self.steps(origin));
        lines
    }

    fn changed(&self) -> Vec<Line> {
        let Some(Changed(changes)) = &self.changes else { return Vec::new() };
        let (added, removed) = changes
            .files
            .iter()
            .filter_map(|change| change.lines)
            .fold((0, 0), |(added, removed), (more, less)| (added + more, removed + less));
        let all = if changes.count > changes.files.len() { " or more" } else { "" };
        let files = if changes.count == 1 { "file" } else { "files" };
        let mut lines =
            vec![(Some("changed"), format!("{} {files}, +{added} -{removed}{all}", changes.count))];
        let shown = |Change { path, lines }: &Change| match lines {
            Some((added, removed)) => (Some(""), format!("+{added} -{removed}  {path}")),
            None => (Some(""), format!("binary  {path}")),
        };
        lines.extend(changes.files.iter().take(FILES_SHOWN).map(shown));
        let more = changes.count.saturating_sub(FILES_SHOWN);
        lines.extend((more > 0).then(|| (Some(""), format!("and {more} more"))));
        lines.extend(landing::flagged(changes).into_iter().map(|line| (Some("flagged"), line)));
        lines
    }

    fn came_out(&self) -> Vec<Line> {
        if self.task.pruned {
            return vec![(Some("not kept"), "what came out of it: it was over too long ago".to_owned())];
        }
        let Some(result) = &self.task.result else {
            return vec![(Some("no result"), "nothing came out of a machine".to_owned())];
        };
        let mut lines: Vec<Line> = Vec::new();
        match (landing::head(result), &self.task.workspace) {
            (Ok(Some(head)), Some(workspace)) => {
                let work = format!("commit {head} on {} of {}", workspace.base, workspace.name);
                lines.push((Some("work"), work));
            }
            (Ok(Some(head)), None) => {
                lines.push((Some("work"), format!("commit {head}, from an empty folder")));
            }
            (Ok(None), _) if result.unsaved.is_empty() => lines.push((Some("no changes"), String::new())),
            (Ok(None), _) => {}
            (Err(why), _) => lines.push((Some("not saved"), why.to_owned())),
        }
        if !result.others.is_empty() {
            let others = result.others.join(", ");
            lines.push((Some("beside"), format!("{others}: each becomes a branch of its own with --branch")));
        }
        let artifacts = result.artifacts.map(landing::artifacts_words);
        lines.extend(artifacts.map(|artifacts| (Some("artifacts"), artifacts)));
        lines.extend(result.unsaved.iter().map(|line| (Some("not saved"), line.clone())));
        lines.extend(result.notes.iter().map(|line| (Some("note"), line.clone())));
        lines
    }

    /// The commands that take what is there.
    fn steps(&self, origin: Option<&Origin>) -> Vec<Line> {
        let (Some(origin), Some(result), false) = (origin, &self.task.result, self.task.pruned) else {
            return Vec::new();
        };
        let short = &self.task.short;
        let command =
            |how: &str| origin.command(&format!("result {short} {}", of_attempt(self.attempt, how)));
        let mut lines: Vec<Line> = Vec::new();
        if landing::head(result).is_ok_and(|head| head.is_some()) {
            lines.extend([(Some("look"), command("--diff")), (Some("take"), command("--branch"))]);
        }
        lines.extend(result.artifacts.map(|_| (Some("files"), command("--artifacts DIR"))));
        if result.transcript {
            lines.push((Some("transcript"), command("--transcript")));
            lines.push((Some("go on"), origin.command(&format!("resume {short} PROMPT"))));
        }
        lines
    }
}

/// What the agent did.
fn did(log: &Recap) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    if log.commands_count > 0 {
        let failed =
            if log.commands_failed > 0 { format!(", {} failed", log.commands_failed) } else { String::new() };
        let commands = if log.commands_count == 1 { "command" } else { "commands" };
        lines.push((Some("ran"), format!("{} {commands}{failed}", log.commands_count)));
        lines.extend(log.commands.iter().take(COMMANDS_SHOWN).map(|ran| (Some(""), ran_words(ran))));
        let more = log.commands_count.saturating_sub(COMMANDS_SHOWN as u64);
        lines.extend((more > 0).then(|| (Some(""), format!("and {more} more"))));
    }
    // The last of them are what counts.
    let tests = log.tests.iter().rev().take(TESTS_SHOWN).rev();
    lines.extend(tests.map(|ran| (Some("tests"), ran_words(ran))));
    lines.extend(log.turns.map(|turns| (Some("turns"), turns.to_string())));
    let time = log.duration_ms.and_then(|ms| u64::try_from(ms).ok());
    let time = time.map(|ms| values::show_duration(std::time::Duration::from_secs(ms.div_ceil(1000))));
    lines.extend(time.map(|time| (Some("took"), time)));
    let tools = log.denied_tools.iter().map(|(tool, times)| format!("{tool}, {times} times"));
    let hosts = log.denied_hosts.iter().map(|(host, why)| format!("{host}: {why}"));
    lines.extend(tools.chain(hosts).map(|denied| (Some("denied"), denied)));
    lines
}

fn ran_words(Ran { command, failed }: &Ran) -> String {
    match failed {
        Some(true) => format!("{command}   (failed)"),
        Some(false) => command.clone(),
        None => format!("{command}   (its end is not known)"),
    }
}

async fn changes(task: &Task, head: &str, taking: &mut Taking) -> anyhow::Result<Changes> {
    let work = taking.fetch(task, head).await.map_err(Stop::into_error)?;
    Ok(work.changes(&taking.hooks().await?).await?)
}

/// Reads the log of a task once through. `None`: it is not kept any more.
async fn recap(task: &Task, taking: &mut Taking) -> anyhow::Result<Option<Recap>> {
    let attempt = task.result_attempt.unwrap_or(task.attempt);
    let mut events = taking.contact.client.events_so_far(&task.id, 0);
    let mut recap = Recap::default();
    loop {
        match events.next().await {
            Ok(Some(line)) => {
                taking.contact.heard();
                recap.take(&line, attempt);
            }
            Ok(None) => return Ok(Some(recap)),
            Err(ClientError::Gone { .. }) => return Ok(None),
            Err(error) => {
                let news = taking.contact.again(error).await?;
                tell(&mut taking.printer, news);
            }
        }
    }
}

/// What was used of the model API, and what it cost.
fn used_words(usage: &Usage) -> String {
    let Usage { requests, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, .. } = usage;
    let by = usage.cost_by.as_deref().unwrap_or_default();
    let cost = match usage.cost_usd {
        Some(usd) => format!("{} by {by}", values::show_dollars(usd)),
        None => format!("no cost: {by}"),
    };
    format!(
        "{requests} requests; tokens: {input_tokens} in, {output_tokens} out, {cache_read_tokens} read from a cache, \
         {cache_write_tokens} written to one; {cost}"
    )
}
