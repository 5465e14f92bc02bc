//! What a task's log says in sum: the commands that were run, the tests among them, what was denied, how long it took.
//!
//! Read once through, line by line, of the attempt that the result came from. All of it was in the agent's hands: it is
//! counted, and shown to people, and decides nothing. Bounds: [`COMMANDS_MAX`] commands are named and [`PENDING_MAX`] waited
//! for, [`DENIED_MAX`] of what was denied; [`COMMAND_CHARS_MAX`] of each.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use mayfly_wire::event::{Event, EventSource, MayflyEvent};
use serde::Serialize;
use serde_json::Value;

/// The most commands that are named, and of these the first.
const COMMANDS_MAX: usize = 500;
/// The most commands whose ends are still to come.
const PENDING_MAX: usize = 1000;
/// The most tools and hosts that were denied.
const DENIED_MAX: usize = 100;
/// What is kept of a command's or a message's text.
const COMMAND_CHARS_MAX: usize = 300;
/// A longer line is not looked into.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a log says in sum.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Recap {
    /// The commands of the agent's shell, in their order.
    pub(crate) commands: Vec<Ran>,
    /// How many there were.
    pub(crate) commands_count: u64,
    /// How many of them failed.
    pub(crate) commands_failed: u64,
    /// Those that look like tests.
    pub(crate) tests: Vec<Ran>,
    /// The turns of the agent, as `claude` counts them; of one that could not say so, the answers of the model.
    pub(crate) turns: Option<u64>,
    /// From the start of `claude` to its end, or to that of its machine, in milliseconds.
    pub(crate) duration_ms: Option<i64>,
    /// How often each tool was denied.
    pub(crate) denied_tools: BTreeMap<String, u64>,
    /// The hosts that were denied, as they were asked for, and why.
    pub(crate) denied_hosts: BTreeMap<String, String>,
    #[serde(skip)]
    pending: HashMap<String, Pending>,
    #[serde(skip)]
    began: Option<Timestamp>,
    #[serde(skip)]
    answers: u64,
    #[serde(skip)]
    last_answer: Option<String>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ran {
    /// Its first line, shortened.
    pub(crate) command: String,
    /// Whether it failed; none if its end is not known.
    pub(crate) failed: Option<bool>,
}

/// Where a command is kept whose end is still to come.
#[derive(Debug, Clone, Copy)]
struct Pending {
    command: Option<usize>,
    test: Option<usize>,
}

impl Recap {
    /// Takes one more event of `attempt`; others are passed over, and so is what cannot be read.
    pub(crate) fn take(&mut self, line: &str, attempt: u32) {
        let Ok(event) = Event::parse(line) else { return };
        if event.attempt != attempt || line.len() > LINE_BYTES_MAX {
            return;
        }
        match (event.source, &event.event) {
            (EventSource::Mayfly, Some(told)) => self.told(told, event.at),
            (EventSource::Claude, _) => {
                // Most lines have nothing of it.
                let parts = ["\"assistant\"", "\"tool_result\"", "\"num_turns\""];
                if let Some(line) =
                    event.line.filter(|line| parts.iter().any(|part| line.get().contains(part)))
                {
                    self.said(&serde_json::from_str(line.get()).unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    fn told(&mut self, event: &MayflyEvent, at: Timestamp) {
        match event {
            MayflyEvent::Started => self.began = Some(at),
            MayflyEvent::Collecting { .. } => self.ended(at),
            // A machine that was lost, or was ended by force, collects nothing.
            MayflyEvent::Releasing | MayflyEvent::Finished { .. } if self.duration_ms.is_none() => {
                self.ended(at);
            }
            MayflyEvent::Denied { host: Some(host), message, .. } if self.denied_hosts.len() < DENIED_MAX => {
                self.denied_hosts.insert(short(host), short(message));
            }
            MayflyEvent::Denied { tool, host: None, .. } if self.denied_tools.len() < DENIED_MAX => {
                *self.denied_tools.entry(short(tool)).or_default() += 1;
            }
            _ => {}
        }
    }

    fn ended(&mut self, at: Timestamp) {
        self.duration_ms = self.began.map(|began| at.as_millisecond() - began.as_millisecond());
        self.turns = self.turns.or((self.answers > 0).then_some(self.answers));
    }

    fn said(&mut self, line: &Value) {
        let blocks = line["message"]["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        match line["type"].as_str() {
            Some("assistant") => {
                self.count(line);
                for block in blocks {
                    self.call(block);
                }
            }
            Some("user") => blocks.iter().for_each(|block| self.answer(block)),
            Some("result") => self.turns = line["num_turns"].as_u64().or(self.turns),
            _ => {}
        }
    }

    /// Counts the answers of the model to the agent itself. Each may be told of in several lines.
    fn count(&mut self, line: &Value) {
        let id = line["message"]["id"].as_str();
        if line["parent_tool_use_id"].is_null() && (id.is_none() || id != self.last_answer.as_deref()) {
            self.answers += 1;
            self.last_answer = id.map(short);
        }
    }

    fn call(&mut self, block: &Value) {
        let is_shell = block["type"] == "tool_use" && block["name"] == "Bash";
        let Some(command) = block["input"]["command"].as_str().filter(|_| is_shell) else { return };
        let ran = Ran { command: short(command), failed: None };
        self.commands_count += 1;
        let test = is_test(command).then(|| put(&mut self.tests, &ran)).flatten();
        let pending = Pending { command: put(&mut self.commands, &ran), test };
        if let (Some(id), true) = (block["id"].as_str(), self.pending.len() < PENDING_MAX) {
            self.pending.insert(id.to_owned(), pending);
        }
    }

    fn answer(&mut self, block: &Value) {
        let id = block["tool_use_id"].as_str().unwrap_or_default();
        let Some(Pending { command, test }) = self.pending.remove(id) else { return };
        let failed = block["is_error"] == true;
        self.commands_failed += u64::from(failed);
        for (list, at) in [(&mut self.commands, command), (&mut self.tests, test)] {
            if let Some(ran) = at.and_then(|at| list.get_mut(at)) {
                ran.failed = Some(failed);
            }
        }
    }
}

/// Keeps it, if there is room; where.
fn put(list: &mut Vec<Ran>, ran: &Ran) -> Option<usize> {
    (list.len() < COMMANDS_MAX).then(|| {
        list.push(ran.clone());
        list.len() - 1
    })
}

/// The first line that says something.
fn short(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    match line.char_indices().nth(COMMAND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// How commands begin that run tests.
const TESTS: &[&str] = &[
    "cargo test",
    "cargo nextest",
    "npm test",
    "npm t",
    "npm run test",
    "npx jest",
    "npx vitest",
    "npx mocha",
    "npx playwright test",
    "yarn test",
    "pnpm test",
    "bun test",
    "deno test",
    "jest",
    "vitest",
    "node --test",
    "go test",
    "pytest",
    "py.test",
    "python -m pytest",
    "python -m unittest",
    "python3 -m pytest",
    "python3 -m unittest",
    "uv run pytest",
    "tox",
    "nox",
    "make test",
    "make check",
    "ctest",
    "mvn test",
    "mvn verify",
    "gradle test",
    "gradlew test",
    "sbt test",
    "rspec",
    "bundle exec rspec",
    "rake test",
    "rails test",
    "phpunit",
    "dotnet test",
    "bazel test",
    "swift test",
    "mix test",
    "zig build test",
    "zig test",
    "prove",
    "bats",
    "just test",
];
/// What stands before a command and runs it.
const BEFORE: &[&str] = &["timeout", "nice", "env", "time", "sudo", "xvfb-run", "exec"];

/// Whether one of the commands on these lines looks like a test's.
fn is_test(command: &str) -> bool {
    command.split(['\n', ';', '|', '&', '(', ')']).any(|part| {
        let mut words = part.split_whitespace().skip_while(|word| {
            let number = word.trim_end_matches(['s', 'm', 'h']).parse::<f64>().is_ok();
            BEFORE.contains(word) || word.contains('=') || word.starts_with('-') || number
        });
        let Some(program) = words.next() else { return false };
        let program = program.rsplit('/').next().unwrap_or(program);
        let line = std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ");
        let begins =
            |test: &str| line.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        TESTS.iter().any(|test| begins(test))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recap(events: &[(&str, Value)]) -> Recap {
        let mut recap = Recap::default();
        for (seq, (source, body)) in events.iter().enumerate() {
            let key = if *source == "mayfly" { "event" } else { "line" };
            let at = format!("2026-01-01T00:{:02}:{:02}.000Z", seq / 60, seq % 60);
            let line = format!(
                r#"{{"task":"t","attempt":1,"seq":{},"at":"{at}","source":"{source}","{key}":{body}}}"#,
                seq + 1
            );
            recap.take(&line, 1);
        }
        recap
    }

    fn call(id: &str, command: &str) -> (&'static str, Value) {
        let block =
            serde_json::json!({"type": "tool_use", "id": id, "name": "Bash", "input": {"command": command}});
        ("claude", serde_json::json!({"type": "assistant", "message": {"content": [block]}}))
    }

    fn answer(id: &str, is_error: bool) -> (&'static str, Value) {
        let block = serde_json::json!({"type": "tool_result", "tool_use_id": id, "content": "x", "is_error": is_error});
        ("claude", serde_json::json!({"type": "user", "message": {"content": [block]}}))
    }

    #[test]
    fn a_log_is_told_in_sum() {
        let host = serde_json::json!({"type": "denied", "tool": "network", "message": "not listed", "host": "x.org:443"});
        let recap = recap(&[
            ("mayfly", serde_json::json!({"type": "started"})),
            call("1", "ls\nmore"),
            answer("1", false),
            call("2", "cd web && timeout 60 npm test"),
            answer("2", true),
            call("3", "cargo build"),
            ("mayfly", serde_json::json!({"type": "denied", "tool": "Write", "message": "no"})),
            ("mayfly", host),
            ("claude", serde_json::json!({"type": "result", "num_turns": 7})),
            ("mayfly", serde_json::json!({"type": "collecting", "outcome": {"name": "succeeded"}})),
        ]);
        let ran = |command: &str, failed| Ran { command: command.to_owned(), failed };
        let test = ran("cd web && timeout 60 npm test", Some(true));
        assert_eq!(recap.commands, [ran("ls", Some(false)), test.clone(), ran("cargo build", None)]);
        assert_eq!((recap.tests, recap.commands_count, recap.commands_failed), (vec![test], 3, 1));
        assert_eq!((recap.turns, recap.duration_ms), (Some(7), Some(9000)));
        assert_eq!(recap.denied_tools, BTreeMap::from([("Write".to_owned(), 1)]));
        assert_eq!(recap.denied_hosts, BTreeMap::from([("x.org:443".to_owned(), "not listed".to_owned())]));
    }

    /// A lost task has told of no end, and is told in sum as far as it came.
    #[test]
    fn a_log_that_breaks_off_is_told_in_sum_too() {
        let answer = |id: &str, parent: Option<&str>| {
            let message = serde_json::json!({"id": id, "content": []});
            (
                "claude",
                serde_json::json!({"type": "assistant", "message": message, "parent_tool_use_id": parent}),
            )
        };
        let lost = [
            ("mayfly", serde_json::json!({"type": "started"})),
            answer("m1", None),
            answer("m1", None),
            answer("of-another", Some("t1")),
            answer("m2", None),
            ("mayfly", serde_json::json!({"type": "releasing"})),
            ("mayfly", serde_json::json!({"type": "finished", "outcome": {"name": "lost"}})),
        ];
        let recap = recap(&lost);
        assert_eq!((recap.turns, recap.duration_ms), (Some(2), Some(5000)));
    }

    /// S36: whatever is in a log, it costs no more than its bound, and what is of another attempt does not count.
    #[test]
    fn a_log_without_end_and_without_sense_is_bounded() {
        let calls: Vec<_> =
            (0..COMMANDS_MAX + 700).map(|id| call(&id.to_string(), &"x".repeat(999))).collect();
        let many = recap(&calls);
        assert_eq!((many.commands.len(), many.commands_count), (COMMANDS_MAX, COMMANDS_MAX as u64 + 700));
        assert_eq!(
            (many.pending.len(), many.commands[0].command.chars().count()),
            (PENDING_MAX, COMMAND_CHARS_MAX + 1)
        );
        let odd = [
            "[]",
            "7",
            r#"{"tool_use":1}"#,
            r#"{"type":"assistant","message":{"content":[{"type":"tool_use","name":"Bash"}]}}"#,
        ];
        let odd: Vec<_> = odd.map(|line| ("claude", serde_json::from_str(line).expect("JSON"))).to_vec();
        assert_eq!(recap(&odd).commands_count, 0);
        let mut other = Recap::default();
        let line = r#"{"task":"t","attempt":2,"seq":1,"at":"2026-01-01T00:00:00Z","source":"mayfly","event":{"type":"started"}}"#;
        other.take(line, 1);
        other.take("no event", 1);
        assert_eq!(other.began, None);
    }

    #[test]
    fn a_test_is_known_by_how_its_command_begins() {
        for test in [
            "cargo test --workspace",
            "RUST_LOG=x cargo nextest run",
            "cd a && ./gradlew test",
            "timeout 5m python3 -m pytest -q",
            "(make test)",
            "echo; go test ./...",
            "/usr/bin/ctest",
        ] {
            assert!(is_test(test), "{test}");
        }
        for other in
            ["echo cargo test", "cargo testify", "ls tests", "", "npm install", "git commit -m 'make test'"]
        {
            assert!(!is_test(other), "{other}");
        }
    }
}
