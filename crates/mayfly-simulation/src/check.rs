//! What must hold once all is over, as Jepsen has it for queues: nothing lost, doubled, out of order or changed, nothing
//! run twice, no machine left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mayfly_core::{Attempt, TaskId};
use mayfly_wire::api;
use mayfly_wire::event::{Event, EventSource, MayflyEvent};
use mayfly_wire::worker::End;

use crate::ledger::{Facts, Ledger};

/// Compares what the logs say with what happened, and the logs on the tunnel's machine with them.
pub(crate) fn check(ledger: &Ledger, tunnel: &Path) {
    let mut facts = ledger.facts();
    let Some(logs) = facts.logs.take() else { return };
    let mut wrong: Vec<String> = Vec::new();
    let acknowledged: Vec<TaskId> = facts.keys.values().copied().collect();
    if logs.len() != acknowledged.len() || !acknowledged.iter().all(|id| logs.contains_key(id)) {
        wrong.push(format!("{} tasks were acknowledged, and {} are there", acknowledged.len(), logs.len()));
    }
    let kept = kept(tunnel);
    for (id, (task, log)) in &logs {
        let mut say = |words: String| wrong.push(format!("task {id}: {words}"));
        if let Err(words) = check_log(&facts, *id, task, log) {
            say(words);
        }
        let followed = facts.tasks.get(id).and_then(|task| task.followed.as_ref());
        if followed.is_some_and(|followed| followed != log) {
            say("who followed it has another log".to_owned());
        }
        match kept.get(&id.to_string()) {
            Some(kept) if kept == log => {}
            Some(kept) => say(format!("the tunnel has {} bytes of {}, or others", kept.len(), log.len())),
            None => say("the tunnel has no log of it".to_owned()),
        }
    }
    for (id, attempt) in &facts.attempts {
        if attempt.starts > 1 {
            wrong.push(format!("attempt {id}: claude was started {} times", attempt.starts));
        }
    }
    facts.logs = Some(logs);
    drop(facts);
    for words in wrong {
        ledger.violated(words);
    }
}

/// The logs on the tunnel's machine, by their tasks.
fn kept(folder: &Path) -> BTreeMap<String, Bytes> {
    let files =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let logs = files(folder.to_owned()).flat_map(|store| files(store.join("logs")));
    let named = logs.filter_map(|path| {
        let task = path.file_stem()?.to_str()?.to_owned();
        Some((task, fs::read(&path).ok()?.into()))
    });
    named.collect()
}

fn check_log(facts: &Facts, id: TaskId, task: &api::Task, log: &Bytes) -> Result<(), String> {
    let text = std::str::from_utf8(log).map_err(|_| "its log is no text".to_owned())?;
    let events: Vec<Event<'_>> = text
        .lines()
        .map(|line| Event::parse(line).map_err(|_| format!("no event: {line}")))
        .collect::<Result<_, _>>()?;
    if let Some((at, event)) = events.iter().enumerate().find(|(at, event)| event.seq != *at as u64 + 1) {
        return Err(format!("event {} is in place {}", event.seq, at + 1));
    }
    check_end(&events, task)?;
    let machines = facts.attempts.iter().filter(|(attempt, _)| attempt.task == id);
    for (attempt, did) in machines.clone() {
        check_lines(&events, attempt.attempt, did)?;
    }
    let starts: u32 = machines.map(|(_, did)| did.starts).sum();
    let allowed = 1 + facts.tasks.get(&id).map_or(0, |task| task.retries);
    if starts > allowed {
        return Err(format!("claude was started {starts} times, and {allowed} were asked for"));
    }
    check_outcome(facts, id, task)
}

/// One outcome, at the end, and the one that the task names.
fn check_end(events: &[Event<'_>], task: &api::Task) -> Result<(), String> {
    let outcomes = events.iter().filter_map(|event| match &event.event {
        Some(MayflyEvent::Finished { outcome }) => Some((event.seq, outcome)),
        _ => None,
    });
    match (&outcomes.collect::<Vec<_>>()[..], &task.outcome) {
        ([(seq, told)], Some(outcome)) if *seq == events.len() as u64 && *told == outcome => Ok(()),
        (told, outcome) => {
            Err(format!("of {} events it has the ends {told:?}, and it says {outcome:?}", events.len()))
        }
    }
}

/// What `claude` wrote is there: all that it was told to be safe, nothing else, and in order.
fn check_lines(events: &[Event<'_>], attempt: Attempt, did: &crate::ledger::Attempt) -> Result<(), String> {
    let said =
        events.iter().filter(|event| event.source == EventSource::Claude && event.attempt == attempt.0);
    let said: Vec<Vec<u8>> = said.map(Event::raw).collect();
    let written = did.records.iter().map(|(bytes, end)| match end {
        End::Newline => [bytes, &b"\n"[..]].concat(),
        End::More | End::Eof => bytes.to_vec(),
    });
    let written: Vec<Vec<u8>> = written.collect();
    if let Some(at) = said.iter().zip(&written).position(|(said, written)| said != written) {
        return Err(format!("attempt {}: its line {} is another", attempt.0, at + 1));
    }
    if said.len() > written.len() {
        return Err(format!(
            "attempt {}: {} lines, and {} were written",
            attempt.0,
            said.len(),
            written.len()
        ));
    }
    let owed = if did.collected { written.len() } else { did.durable };
    if said.len() < owed {
        return Err(format!("attempt {}: {} lines, and {owed} were safe", attempt.0, said.len()));
    }
    Ok(())
}

/// What no fault took ends as its worker said.
fn check_outcome(facts: &Facts, id: TaskId, task: &api::Task) -> Result<(), String> {
    let Some(outcome) = &task.outcome else { return Ok(()) };
    let cancelled = facts.tasks.get(&id).is_some_and(|task| task.cancelled);
    let last = facts.attempts.get(&id.attempt(Attempt(task.attempt)));
    let expected = match last {
        Some(last) if last.killed => return Ok(()),
        Some(last) => last.ended.as_deref(),
        None => None,
    };
    let fits = match expected {
        Some(ended) => ended == outcome.name,
        // Its worker never came.
        None => outcome.name == "launch-timeout",
    };
    let fits = fits || (cancelled && outcome.name == "cancelled");
    if fits { Ok(()) } else { Err(format!("its worker said {expected:?}, and it ended as {outcome:?}")) }
}
