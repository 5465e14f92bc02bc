//! A stored task as the API shows it.

use std::time::Duration;

use mayfly_core::TaskState;
use mayfly_store::{AttemptRow, TaskRow};
use mayfly_wire::api;

use crate::clock::after;
use crate::config::Rules;

/// The most characters of a title.
const TITLE_MAX: usize = 80;

/// `live` is the attempt that owns a machine now.
pub(crate) fn view(task: TaskRow, live: Option<&AttemptRow>, rules: &Rules) -> api::Task {
    let joined = live.and_then(|attempt| attempt.joined);
    let timeout = task.spec.timeout_ms.map_or(rules.timeout, Duration::from_millis);
    let running = matches!(task.state, TaskState::Running(..));
    let attempt = match task.state {
        TaskState::Queued(attempt) => attempt.0 - 1,
        state => state.machine().map_or(task.attempt, |attempt| attempt.0),
    };
    let limits = task.state.outcome().is_none().then(|| limits(&task.spec, rules));
    api::Task {
        id: task.id.to_string(),
        short: task.id.short(),
        title: title(&task.spec.prompt),
        state: task.state.name().to_owned(),
        attempt,
        last_seq: task.last_seq,
        created_at: task.created,
        finished_at: task.finished,
        workspace: task.spec.workspace,
        outcome: task
            .state
            .outcome()
            .map(|outcome| api::Outcome { name: outcome.name().to_owned(), detail: task.detail }),
        result: task.result,
        result_attempt: task.result_attempt,
        usage: None,
        pruned: task.pruned,
        credential_name: task.pooled,
        lock: task.lock,
        resumes: task.resumes.map(|resumed| resumed.task.to_string()),
        priority: task.spec.priority,
        due_at: task.due,
        limits,
        heard_at: live.and_then(|attempt| attempt.heard),
        deadline_at: joined.filter(|_| running).map(|joined| after(joined, timeout)),
    }
}

/// What bounds the task, by its own words and by ours.
fn limits(spec: &api::CreateTask, rules: &Rules) -> api::Limits {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    api::Limits {
        timeout_ms: spec.timeout_ms.unwrap_or(ms(rules.timeout)),
        idle_timeout_ms: spec.idle_timeout_ms.unwrap_or(ms(rules.idle_timeout)),
        max_turns: spec.max_turns,
        max_budget_usd: spec.max_budget_usd,
        memory_bytes: rules.limits.memory_bytes_max,
        processes: rules.limits.pids_max,
        cpus: rules.limits.cpus_max,
        disk_bytes: rules.limits.disk_bytes_max,
    }
}

/// The first line that says something, shortened at a character.
fn title(prompt: &str) -> String {
    let line = prompt.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    match line.char_indices().nth(TITLE_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_cut_between_characters() {
        assert_eq!(title("\n  fix it \nnow"), "fix it");
        assert_eq!(title(&"ü".repeat(100)), format!("{}…", "ü".repeat(80)));
    }
}
