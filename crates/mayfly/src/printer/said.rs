//! What an event of a task's log says to a person.
//!
//! The lines of `claude` are read leniently: what is not understood says nothing, since `--json` and the
//! transcript have it all. Every text is a [`Shown`] from here on.

use jiff::Timestamp;
use mayfly_wire::api::Merged;
use mayfly_wire::event::{Event, EventSource, MayflyEvent};
use serde_json::Value;

use super::shown::Shown;
use crate::values::span;

/// The most lines shown of one message.
const MESSAGE_LINES_MAX: usize = 12;
/// The most characters shown of one line.
const LINE_CHARS_MAX: usize = 300;
/// The most characters shown of a tool call.
const CALL_CHARS_MAX: usize = 120;
/// The most characters of an outcome's name, a state or a provider.
const WORD_CHARS_MAX: usize = 40;

/// The state of a task whose agent has been started.
pub(crate) const STARTING: &str = "starting";

/// One thing that an event says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// The agent's next turn began; the text is the message's id.
    Turn(String),
    /// The agent's words.
    Text(Vec<Shown>),
    /// A tool is called, such as `Edit src/x.sh`.
    Call(Shown),
    /// A tool did not do as asked.
    ToolError(Shown),
    /// The agent's own count so far.
    Totals {
        /// Its turns.
        turns: Option<u64>,
        /// Its cost in US dollars.
        cost_usd: Option<f64>,
    },
    /// The task went on to another state.
    State(Shown, Timestamp),
    /// The task is over: the outcome's name.
    Finished(Shown, Timestamp),
    /// How much of the library the task has.
    Library(Shown),
    /// The tools that the agent has.
    Tools(Shown),
    /// Something else that the user should know.
    Note(Shown),
}

/// All that one event says.
pub(crate) fn said(event: &Event<'_>) -> Vec<Said> {
    match (event.source, &event.event) {
        (EventSource::Mayfly, Some(own)) => mayfly(own, event.at),
        (EventSource::Claude, _) => match event.line {
            Some(line) => serde_json::from_str(line.get()).map(|line| claude(&line)).unwrap_or_default(),
            None => other(event.text.as_deref()),
        },
        (EventSource::Stderr, _) => match event.line {
            Some(line) => other(Some(line.get())),
            None => other(event.text.as_deref()),
        },
        (EventSource::Mayfly, None) => Vec::new(),
    }
}

fn other(text: Option<&str>) -> Vec<Said> {
    let line = Shown::line(text.unwrap_or_default().trim(), LINE_CHARS_MAX);
    if line.as_str().is_empty() { Vec::new() } else { vec![Said::Note(line)] }
}

/// What settings and hooks of the library come to, a line each.
pub(crate) fn merged_lines(merged: &Merged) -> impl Iterator<Item = String> {
    let Merged { settings, more_settings, hooks, more_hooks } = merged;
    let settings = settings.iter().map(|one| format!("setting {}: {} before {}", one.key, one.by, one.over));
    let hooks = hooks.iter().map(|one| {
        let matcher = one.matcher.as_deref().unwrap_or("always");
        format!("hook {} ({matcher}): {}", one.event, one.of)
    });
    let more = |count: usize, what: &str| (count > 0).then(|| format!("and {count} more {what}"));
    let settings = settings.chain(more(*more_settings, "settings that two resources say"));
    settings.chain(hooks).chain(more(*more_hooks, "hooks"))
}

fn mayfly(event: &MayflyEvent, at: Timestamp) -> Vec<Said> {
    use MayflyEvent::*;
    let state = |name| vec![Said::State(Shown::line(name, WORD_CHARS_MAX), at)];
    let note = |text: &str| vec![Said::Note(Shown::line(text, LINE_CHARS_MAX))];
    match event {
        Queued => state("queued"),
        Locked { resources, shadowed, merged, .. } => {
            let before =
                if shadowed.is_empty() { String::new() } else { format!(", before {}", shadowed.join(", ")) };
            let words = format!("library: {resources} resources{before}");
            let lines = [words].into_iter().chain(merged_lines(merged));
            lines.map(|line| Said::Library(Shown::line(&line, LINE_CHARS_MAX))).collect()
        }
        Resumes { task } => {
            let short = task.get(task.len().saturating_sub(8)..).unwrap_or(task);
            note(&format!("goes on where task {short} ended"))
        }
        Launching { .. } => state("launching"),
        Running => state("seeding"),
        Started => state(STARTING),
        Ready { .. } => state("running"),
        Collecting { outcome } => {
            let mut said = state("collecting");
            said.extend(outcome.detail.iter().flat_map(|detail| note(detail)));
            said
        }
        Releasing => state("releasing"),
        Requeued { detail, due_at } => {
            let pause = due_at.map(|due| u64::try_from(due.duration_since(at).as_secs()).unwrap_or(0));
            let pause = pause.map(|seconds| format!(" in {}", span(seconds))).unwrap_or_default();
            let mut said = state("queued");
            said.extend(note(&format!("another attempt follows{pause}: {detail}")));
            said
        }
        Finished { outcome } => vec![Said::Finished(Shown::line(&outcome.name, WORD_CHARS_MAX), at)],
        Denied { host: Some(host), message, .. } => note(&format!("denied {host}: {message}")),
        Denied { tool, message, host: None } => note(&format!("denied {tool}: {}", without_tags(message))),
        Limit { kind, limit, resets_at } => {
            let until = resets_at.and_then(|at| Timestamp::from_second(at).ok());
            let until = until.map(|at| format!(", until {at}")).unwrap_or_default();
            note(&format!("{}: {limit}{until}", kind.name()))
        }
        Ignored { file, parts } if parts.is_empty() => note(&format!("not trusted, ignored: {file}")),
        Ignored { file, parts } => note(&format!("not trusted, ignored: {file}: {}", parts.join(", "))),
        Warning { text } => note(text),
        Checkpoint { .. } | Collected { .. } | Unknown => Vec::new(),
    }
}

fn claude(line: &Value) -> Vec<Said> {
    let content = || line["message"]["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    match line["type"].as_str() {
        Some("assistant") => {
            let turn = line["message"]["id"].as_str().map(|id| Said::Turn(id.to_owned()));
            turn.into_iter().chain(content().iter().filter_map(assistant)).collect()
        }
        Some("user") => content().iter().filter_map(tool_error).collect(),
        Some("system") if line["subtype"] == "init" => tools(&line["tools"]).into_iter().collect(),
        Some("result") => {
            let (turns, cost_usd) = (line["num_turns"].as_u64(), line["total_cost_usd"].as_f64());
            vec![Said::Totals { turns, cost_usd }]
        }
        _ => Vec::new(),
    }
}

fn assistant(block: &Value) -> Option<Said> {
    match block["type"].as_str()? {
        "text" => {
            let lines = Shown::lines(block["text"].as_str()?, MESSAGE_LINES_MAX, LINE_CHARS_MAX);
            (!lines.is_empty()).then_some(Said::Text(lines))
        }
        "tool_use" => Some(Said::Call(call(block["name"].as_str()?, &block["input"]))),
        _ => None,
    }
}

/// A tool's name and the one argument that tells most.
fn call(name: &str, input: &Value) -> Shown {
    const TELLING: [&str; 10] = [
        "file_path",
        "notebook_path",
        "path",
        "command",
        "pattern",
        "url",
        "query",
        "skill",
        "description",
        "prompt",
    ];
    let argument = TELLING.into_iter().find_map(|key| input[key].as_str()).unwrap_or_default();
    let text = format!("{name} {}", in_workspace(argument));
    Shown::line(text.trim_end(), CALL_CHARS_MAX)
}

/// A path as seen from the repository's folder.
fn in_workspace(path: &str) -> &str {
    let below = path.strip_prefix(mayfly_wire::boot::WORKSPACE).and_then(|rest| rest.strip_prefix('/'));
    below.map_or(path, |below| below.split_once('/').map_or(below, |(_, inside)| inside))
}

/// All that `claude` may call.
fn tools(names: &Value) -> Option<Said> {
    let names: Vec<&str> = names.as_array()?.iter().filter_map(Value::as_str).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Some(Said::Tools(Shown::line(&format!("tools: {names}"), LINE_CHARS_MAX)))
}

fn without_tags(text: &str) -> &str {
    text.trim().trim_start_matches("<tool_use_error>").trim_end_matches("</tool_use_error>")
}

fn tool_error(block: &Value) -> Option<Said> {
    if block["type"] != "tool_result" || block["is_error"] != true {
        return None;
    }
    let content = &block["content"];
    let text = content.as_str().or_else(|| content[0]["text"].as_str())?;
    let first = without_tags(text).lines().find(|line| !line.trim().is_empty())?;
    Some(Said::ToolError(Shown::line(first.trim(), LINE_CHARS_MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(source: &str, body: &str) -> String {
        format!(
            r#"{{"task":"t","attempt":1,"seq":1,"at":"2026-01-01T00:00:00.000Z","source":"{source}",{body}}}"#
        )
    }

    fn said_by(source: &str, body: &str) -> Vec<Said> {
        said(&Event::parse(&event(source, body)).expect("an event"))
    }

    fn shown(text: &str) -> Shown {
        Shown::line(text, 1000)
    }

    #[test]
    fn words_calls_errors_and_totals_of_claude_are_understood() {
        let body = r#""line":{"type":"assistant","message":{"id":"m1","content":[
            {"type":"thinking","thinking":"hm"},
            {"type":"text","text":"I will fix it.\n\nNow."},
            {"type":"tool_use","name":"Edit","input":{"file_path":"/workspace/demo/src/x.sh","old_string":"a"}}]}}"#;
        let lines = vec![shown("I will fix it."), shown("Now.")];
        let expected = [Said::Turn("m1".to_owned()), Said::Text(lines), Said::Call(shown("Edit src/x.sh"))];
        assert_eq!(said_by("claude", &body.replace('\n', "")), expected);

        let body = r#""line":{"type":"user","message":{"content":[{"type":"tool_result","is_error":true,"content":"<tool_use_error>Error: No such tool available: Bash.</tool_use_error>"},{"type":"tool_result","is_error":false,"content":"fine"}]}}"#;
        assert_eq!(said_by("claude", body), [Said::ToolError(shown("Error: No such tool available: Bash."))]);

        let body = r#""line":{"type":"result","num_turns":3,"total_cost_usd":0.0125,"is_error":false}"#;
        assert_eq!(said_by("claude", body), [Said::Totals { turns: Some(3), cost_usd: Some(0.0125) }]);
    }

    /// S36: what a later version of the CLI prints is no error.
    #[test]
    fn what_is_not_understood_says_nothing() {
        for line in [
            r#"{"type":"new"}"#,
            "[]",
            "7",
            r#"{"type":"assistant","message":{"content":[{"type":"tool_use"},{"type":"text","text":7},null]}}"#,
            r#"{"type":"user","message":{"content":"words"}}"#,
            "1e400",
        ] {
            assert_eq!(said_by("claude", &format!(r#""line":{line}"#)), [], "{line}");
        }
        assert_eq!(said_by("claude", r#""bytes":"//4=""#), []);
        assert_eq!(said_by("mayfly", r#""event":{"type":"sung"}"#), []);
    }

    #[test]
    fn states_endings_and_warnings_of_mayfly_are_understood() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let said = |body: &str| said_by("mayfly", &format!(r#""event":{body}"#));
        assert_eq!(
            said(r#"{"type":"launching","provider":"sandbox"}"#),
            [Said::State(shown("launching"), at)]
        );
        assert_eq!(
            said(r#"{"type":"finished","outcome":{"name":"max-turns"}}"#),
            [Said::Finished(shown("max-turns"), at)]
        );
        assert_eq!(
            said(r#"{"type":"denied","tool":"Bash","message":"no"}"#),
            [Said::Note(shown("denied Bash: no"))]
        );
        let init = r#""line":{"type":"system","subtype":"init","tools":["Read","Glob\u001b"]}"#;
        assert_eq!(said_by("claude", init), [Said::Tools(shown("tools: Read, Glob\u{1b}"))]);
        let without = r#""line":{"type":"system","subtype":"init","tools":[]}"#;
        assert_eq!(said_by("claude", without), [Said::Tools(shown("tools: none"))]);
        assert_eq!(
            said(r#"{"type":"requeued","detail":"lost"}"#),
            [Said::State(shown("queued"), at), Said::Note(shown("another attempt follows: lost"))]
        );
        let put_off = r#"{"type":"requeued","detail":"api-error: 529","due_at":"2026-01-01T00:01:20Z"}"#;
        let note = shown("another attempt follows in 1m20s: api-error: 529");
        assert_eq!(said(put_off), [Said::State(shown("queued"), at), Said::Note(note)]);
        assert_eq!(
            said(r#"{"type":"limit","limit":"five_hour","resets_at":1767225600}"#),
            [Said::Note(shown("usage-limit: five_hour, until 2026-01-01T00:00:00Z"))]
        );
    }

    #[test]
    fn a_path_is_shown_as_seen_from_the_repository() {
        for (path, expected) in [
            ("/workspace/demo/src/x.sh", "src/x.sh"),
            ("/workspace/notes.md", "notes.md"),
            ("/workspaces/x", "/workspaces/x"),
            ("/etc/hosts", "/etc/hosts"),
            ("ls /workspace/demo", "ls /workspace/demo"),
        ] {
            assert_eq!(in_workspace(path), expected);
        }
    }

    proptest! {
        /// S45: nothing that an event can carry reaches the terminal as a control character.
        #[test]
        fn no_control_character_of_an_event_is_shown(text in "(\\PC|[\\x00-\\x1f\\x7f-\\u{9f}\\u{202e}]){0,40}") {
            let quoted = serde_json::to_string(&text).expect("a text");
            let bodies = [
                ("claude", format!(r#""line":{{"type":"assistant","message":{{"content":[{{"type":"text","text":{quoted}}},{{"type":"tool_use","name":{quoted},"input":{{"command":{quoted}}}}}]}}}}"#)),
                ("claude", format!(r#""line":{{"type":"user","message":{{"content":[{{"type":"tool_result","is_error":true,"content":{quoted}}}]}}}}"#)),
                ("claude", format!(r#""text":{quoted}"#)),
                ("stderr", format!(r#""text":{quoted}"#)),
                ("mayfly", format!(r#""event":{{"type":"warning","text":{quoted}}}"#)),
                ("mayfly", format!(r#""event":{{"type":"denied","tool":{quoted},"message":{quoted}}}"#)),
                ("mayfly", format!(r#""event":{{"type":"finished","outcome":{{"name":{quoted},"detail":{quoted}}}}}"#)),
            ];
            for (source, body) in bodies {
                for said in said_by(source, &body) {
                    let texts = match said {
                        Said::Text(lines) => lines,
                        Said::Call(text) | Said::ToolError(text) | Said::Note(text) => vec![text],
                        Said::State(text, _) | Said::Finished(text, _) => vec![text],
                        Said::Library(text) | Said::Tools(text) => vec![text],
                        Said::Turn(_) | Said::Totals { .. } => vec![],
                    };
                    for text in texts {
                        let bad = |c: char| c.is_control() || c == '\u{202e}';
                        prop_assert!(!text.as_str().contains(bad), "{:?}", text);
                    }
                }
            }
        }
    }
}
