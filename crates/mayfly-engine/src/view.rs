//! A stored task as the API shows it.

use mayfly_core::TaskState;
use mayfly_store::TaskRow;
use mayfly_wire::api;

/// The most characters of a title.
const TITLE_MAX: usize = 80;

pub(crate) fn view(task: TaskRow) -> api::Task {
    let attempt = match task.state {
        TaskState::Queued(attempt) => attempt.0 - 1,
        state => state.machine().map_or(task.attempt, |attempt| attempt.0),
    };
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
        priority: task.spec.priority,
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
