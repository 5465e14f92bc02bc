//! The tasks of `--file`: a JSON object a line, the body of `POST /v1/tasks` each.
//!
//! What a line leaves out is taken from the flags. Every line is read and checked before the first task is
//! submitted, and the first bad one is named by its number. No message repeats a value, which may be a credential
//! in the wrong place. Lines of white space are skipped, and so is a mark of the byte order at the very start.
//!
//! Bounds: [`LINE_BYTES_MAX`] and [`TASKS_MAX`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use mayfly_engine::{SubmitError, check_shape, check_task};
use mayfly_wire::api::{CreateTask, PROMPT_BYTES_MAX};
use serde_json::{Map, Value};

/// The longest line: the longest prompt with every byte escaped, and what comes with it.
const LINE_BYTES_MAX: usize = 6 * PROMPT_BYTES_MAX + 64 * 1024;
/// The most tasks of one file.
const TASKS_MAX: usize = 10_000;

/// What some editors put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The tasks of the file at `path`, where `-` is `stdin`.
pub(crate) fn read(path: &Path, defaults: &CreateTask, stdin: impl Read) -> Result<Vec<CreateTask>, BadFile> {
    if path == Path::new("-") {
        return tasks(BufReader::new(stdin), "standard input", defaults);
    }
    let place = format!("`{}`", path.display());
    let file = File::open(path).map_err(|error| BadFile::unreadable(&place, error))?;
    tasks(BufReader::new(file), &place, defaults)
}

fn tasks(mut from: impl BufRead, place: &str, defaults: &CreateTask) -> Result<Vec<CreateTask>, BadFile> {
    let defaults = object(defaults);
    let mut tasks = Vec::new();
    for number in 1.. {
        let bad = |reason| BadFile::Line { place: place.to_owned(), number, reason };
        let mut line = Vec::new();
        let read = from.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|error| BadFile::unreadable(place, error))?;
        if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        match read {
            0 => break,
            _ if line.len() > LINE_BYTES_MAX => return Err(bad(BadLine::TooLong)),
            _ if line.iter().all(u8::is_ascii_whitespace) => {}
            _ if tasks.len() == TASKS_MAX => return Err(BadFile::TooMany(place.to_owned())),
            _ => tasks.push(task(&line, &defaults).map_err(bad)?),
        }
    }
    if tasks.is_empty() { Err(BadFile::Empty(place.to_owned())) } else { Ok(tasks) }
}

fn task(line: &[u8], defaults: &Map<String, Value>) -> Result<CreateTask, BadLine> {
    let line = std::str::from_utf8(line).map_err(|_| BadLine::NotText)?.trim();
    if !line.starts_with('{') {
        return Err(BadLine::NoObject);
    }
    // Once as it is, so that what is wrong is told with its place; once more to see what it leaves out.
    let own: CreateTask = serde_json::from_str(line)
        .map_err(|error| check_shape(line).map_or_else(BadLine::Invalid, |()| BadLine::json(&error)))?;
    let named: Map<String, Value> = serde_json::from_str(line).map_err(|error| BadLine::json(&error))?;
    let left_out = defaults.iter().filter(|(key, _)| !named.contains_key(*key));
    let mut whole = object(&own);
    whole.extend(left_out.map(|(key, value)| (key.clone(), value.clone())));
    let task = serde_json::from_value(Value::Object(whole)).map_err(|error| BadLine::json(&error))?;
    check_task(&task).map_err(BadLine::Invalid)?;
    Ok(task)
}

/// A task as its fields; those that say nothing are left out.
fn object(task: &CreateTask) -> Map<String, Value> {
    match serde_json::to_value(task) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("a task is a JSON object"),
    }
}

/// Why a file of tasks cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadFile {
    #[error("cannot read the tasks from {place}")]
    Unreadable {
        place: String,
        #[source]
        source: io::Error,
    },
    #[error("{0} has no task in it: each line is one, such as {{\"prompt\": \"fix the failing test\"}}")]
    Empty(String),
    #[error("{0} has more than {TASKS_MAX} tasks: split it")]
    TooMany(String),
    #[error("line {number} of {place} is no task, and nothing was submitted")]
    Line {
        place: String,
        number: usize,
        #[source]
        reason: BadLine,
    },
}

impl BadFile {
    fn unreadable(place: &str, source: io::Error) -> Self {
        Self::Unreadable { place: place.to_owned(), source }
    }
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadLine {
    #[error(
        "it is longer than {LINE_BYTES_MAX} bytes: put the long part into a file of the repository and name it"
    )]
    TooLong,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it is no JSON object, such as {{\"prompt\": \"fix the failing test\"}}")]
    NoObject,
    #[error("{0}")]
    Json(String),
    #[error("{0}")]
    Invalid(SubmitError),
}

impl BadLine {
    /// The parser counts lines too, and knows only of this one.
    fn json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let text = text.split(" at line 1 column").next().unwrap_or_default();
        let place =
            if error.column() > 0 { format!(", at column {}", error.column()) } else { String::new() };
        Self::Json(format!("{}{place}", without_values(text)))
    }
}

/// The parser repeats a text, or a word of a closed list, that it did not expect.
fn without_values(text: &str) -> String {
    let marks = [("string \"", "\", expected"), ("unknown variant `", "`, expected")];
    for (before, after) in marks {
        if let Some((head, rest)) = text.split_once(before)
            && let Some((_, tail)) = rest.rsplit_once(after)
        {
            return format!("{head}{before}…{after}{tail}");
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use mayfly_test_needs::one_of_each;

    use super::*;

    fn defaults() -> CreateTask {
        CreateTask {
            model: Some("sonnet".to_owned()),
            timeout_ms: Some(1_800_000),
            priority: 5,
            retries: 2,
            ..CreateTask::default()
        }
    }

    fn read_text(text: &str) -> Result<Vec<CreateTask>, BadFile> {
        read(Path::new("-"), &defaults(), text.as_bytes())
    }

    fn said(text: &str) -> String {
        let error = read_text(text).expect_err("a bad file");
        format!("{:#}", anyhow::Error::new(error))
    }

    #[test]
    fn a_line_has_the_last_word_and_the_flags_fill_in_what_it_leaves_out() {
        let text =
            "{\"prompt\":\"a\"}\n\n{\"prompt\":\"b\",\"model\":\"opus\",\"priority\":0,\"retries\":null}\r\n";
        assert!(read_text(text).is_err(), "null is no number");
        let text = "{\"prompt\":\"a\"}\n \n{\"prompt\":\"b\",\"model\":\"opus\",\"priority\":0}\r\n{\"prompt\":\"c\",\"timeout_ms\":null}";
        let tasks = read_text(text).expect("tasks");
        let brief = tasks.iter().map(|task| {
            (task.prompt.as_str(), task.model.as_deref(), task.priority, task.retries, task.timeout_ms)
        });
        let brief: Vec<_> = brief.collect();
        assert_eq!(
            brief,
            [
                ("a", Some("sonnet"), 5, 2, Some(1_800_000)),
                ("b", Some("opus"), 0, 2, Some(1_800_000)),
                ("c", Some("sonnet"), 5, 2, None),
            ]
        );
    }

    #[test]
    fn a_mark_of_the_byte_order_is_passed_over_at_the_very_start_alone() {
        let line = "{\"prompt\":\"a\"}\n";
        for text in [format!("\u{feff}{line}"), format!("\u{feff}\n{line}")] {
            assert_eq!(read_text(&text).expect("tasks").len(), 1, "{text:?}");
        }
        assert!(said(&format!("{line}\u{feff}{line}")).starts_with("line 2 of"));
        assert!(said(&format!("\u{feff}\u{feff}{line}")).starts_with("line 1 of"));
        assert!(said("\u{feff}").contains("has no task in it"));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_what_is_wrong() {
        let good = r#"{"prompt":"a"}"#;
        let bad = [
            r#"{"promt":"a"}"#,
            r#"{"prompt":"a""#,
            r"[]",
            r#"{"prompt":" "}"#,
            r#"{"prompt":"a","priority":1001}"#,
            r#"{"prompt":"a","retries":11}"#,
            r#"{"prompt":"a","timeout_ms":0}"#,
            r#"{"prompt":"a","model":"-x"}"#,
            r#"{"prompt":"a","timeout_ms":18446744073709551615}"#,
            r#"{"prompt":"a","timeout_ms":"1h"}"#,
            r#"{"prompt":"a","workspace":"x"}"#,
            r#"{"prompt":"a","workspace":{"id":"x","name":"x","base":"x"}}"#,
            r#"{"prompt":"a","prompt":"b"}"#,
            "{\"prompt\":\"a\u{1}\"}",
        ];
        let said: Vec<String> = bad.iter().map(|bad| said(&format!("{good}\n\n{bad}\n{good}\n"))).collect();
        assert!(said.iter().all(|said| said.starts_with("line 3 of standard input is no task")), "{said:#?}");
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn each_reason_to_refuse_a_file_is_told_in_these_words() {
        let place = || "`tasks.jsonl`".to_owned();
        let task = CreateTask { prompt: "a".to_owned(), priority: 1001, ..CreateTask::default() };
        let reasons = one_of_each![BadLine:
            BadLine::TooLong => BadLine::TooLong,
            BadLine::NotText => BadLine::NotText,
            BadLine::NoObject => BadLine::NoObject,
            BadLine::Json(_) => BadLine::Json("[what]".to_owned()),
            BadLine::Invalid(_) => BadLine::Invalid(check_task(&task).expect_err("no such priority")),
        ];
        let mut files = one_of_each![BadFile:
            BadFile::Unreadable { .. } => {
                BadFile::unreadable(&place(), io::ErrorKind::PermissionDenied.into())
            },
            BadFile::Empty(_) => BadFile::Empty(place()),
            BadFile::TooMany(_) => BadFile::TooMany(place()),
            BadFile::Line { .. } => {
                BadFile::Line { place: place(), number: 1, reason: BadLine::NoObject }
            },
        ];
        let line = |reason| BadFile::Line { place: place(), number: 1, reason };
        files.extend(reasons.into_iter().map(line));
        let lines: Vec<String> = files.iter().map(|file| mayfly_core::causes(file)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn no_message_repeats_a_value() {
        for bad in [
            r#"{"prompt":"a","credential":"canary"}"#,
            r#"{"prompt":"a","priority":"can\"ary\", expected"}"#,
            r#"{"prompt":"a","credential":{"kind":"canary","secret":"canary"}}"#,
            r#"{"prompt":"a","credential":{"kind":"api-key","secret":"can ary"}}"#,
        ] {
            let said = said(bad);
            assert!(!said.contains("can"), "{said}");
        }
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        assert!(said("").contains("has no task in it"));
        assert!(said("\n \n").contains("has no task in it"));
        let endless = read(Path::new("-"), &defaults(), io::repeat(b'x')).expect_err("too long");
        assert!(matches!(endless, BadFile::Line { number: 1, reason: BadLine::TooLong, .. }), "{endless}");
        let many = "{\"prompt\":\"a\"}\n".repeat(TASKS_MAX + 1);
        assert!(matches!(read_text(&many), Err(BadFile::TooMany(_))));
        let binary = read(Path::new("-"), &defaults(), &b"\xff\n"[..]).expect_err("no text");
        assert!(matches!(binary, BadFile::Line { number: 1, reason: BadLine::NotText, .. }), "{binary}");
        let nowhere = read(Path::new("/nowhere/x"), &defaults(), io::empty()).expect_err("nowhere");
        assert!(nowhere.to_string().contains("/nowhere/x"), "{nowhere}");
    }
}
