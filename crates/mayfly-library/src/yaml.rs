//! A setting of an agent that is more than words or a list, read as YAML to the JSON that the CLI takes.
//!
//! It is a parser of others that reads it; here it is only put together. Read is what stands there: no reference to
//! another part, which can multiply, and no type by name. Bound: [`DEPTH_MAX`] levels.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Number, Value};

use crate::kinds::end_of;

/// How deep tables and lists may stand in each other.
const DEPTH_MAX: usize = 32;

/// Why a text is not read, and where: the line from 1, the column from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) words: String,
}

/// The value of a text that is one entry of this key, `key: value`, and nothing else.
pub(crate) fn value_of_entry(text: &str, key: &str) -> Result<Value, Unread> {
    let mut events = Events(Parser::new_from_str(text));
    events.only_entry(key).map_err(|Wrong { at, words }| {
        let (line, column) = place(text, at);
        Unread { line, column, words }
    })
}

/// The line and the column of a mark: a `\r` alone ends a line for YAML, and for nobody else.
fn place(text: &str, at: Marker) -> (usize, usize) {
    let text = text.replace("\r\n", "\n");
    let mut lines = text.split_inclusive(['\n', '\r']);
    let above: String = lines.by_ref().take(at.line().saturating_sub(1)).collect();
    let before: String = lines.next().unwrap_or_default().chars().take(at.col()).collect();
    end_of(&(above + &before))
}

/// What is wrong, at a mark of the parser's.
struct Wrong {
    at: Marker,
    words: String,
}

impl Wrong {
    fn at(span: Span, words: impl Into<String>) -> Self {
        Self { at: span.start, words: words.into() }
    }
}

impl From<ScanError> for Wrong {
    fn from(error: ScanError) -> Self {
        Self { at: *error.marker(), words: error.info().to_owned() }
    }
}

struct Events<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Wrong> {
        let end = || Wrong::at(Span::default(), "ends too early");
        Ok(self.0.next().ok_or_else(end)??)
    }

    fn only_entry(&mut self, key: &str) -> Result<Value, Wrong> {
        let value = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::MappingStart(..), _) => break self.entry(key)?,
                (_, span) => return Err(Wrong::at(span, "is no entry")),
            }
        };
        loop {
            match self.next()? {
                (Event::MappingEnd | Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(value),
                (_, span) => return Err(Wrong::at(span, "is another entry behind it")),
            }
        }
    }

    /// The next entry of a table, which has this key.
    fn entry(&mut self, key: &str) -> Result<Value, Wrong> {
        match self.next()? {
            (Event::Scalar(read, _, 0, None), _) if read == key => {
                let value = self.next()?;
                self.value(value, DEPTH_MAX)
            }
            (_, span) => Err(Wrong::at(span, "is no entry of this name")),
        }
    }

    /// What follows the beginning of a table, to its end.
    fn table(&mut self, depth: usize) -> Result<Map<String, Value>, Wrong> {
        let mut table = Map::new();
        loop {
            let (key, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(table),
                (Event::Scalar(key, _, 0, None), span) => (key.into_owned(), span),
                (_, span) => return Err(Wrong::at(span, "is no plain key")),
            };
            let value = self.next()?;
            let value = self.value(value, depth)?;
            if table.insert(key, value).is_some() {
                return Err(Wrong::at(span, "is there twice"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>, Wrong> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(list),
                item => list.push(self.value(item, depth)?),
            }
        }
    }

    fn value(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Value, Wrong> {
        let deeper = || depth.checked_sub(1).ok_or_else(|| Wrong::at(span, "is too deep"));
        match event {
            Event::Scalar(text, ScalarStyle::Plain, 0, None) => Ok(plain(&text)),
            Event::Scalar(text, _, 0, None) => Ok(text.into()),
            Event::SequenceStart(0, None) => self.list(deeper()?).map(Value::from),
            Event::MappingStart(0, None) => self.table(deeper()?).map(Value::from),
            _ => Err(Wrong::at(span, "refers to something else, or names a type: write what it stands for")),
        }
    }
}

/// What a word without quotes is.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => serde_json::from_str::<Number>(text).map_or_else(|_| text.into(), Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_and_lists_are_read_as_json() {
        let text = "hooks:\n  PreToolUse:\n    - matcher: \"Bash\"\n      hooks:\n        - type: command\n          command: ./x.sh --n=1\n          timeout: 5\n          async: true\n          note: ~\n";
        let hook =
            json!({"type": "command", "command": "./x.sh --n=1", "timeout": 5, "async": true, "note": null});
        assert_eq!(
            value_of_entry(text, "hooks"),
            Ok(json!({"PreToolUse": [{"matcher": "Bash", "hooks": [hook]}]}))
        );
        let servers = json!([{"db": {"command": "db", "args": ["a", "1"]}}, "github"]);
        assert_eq!(
            value_of_entry("mcpServers:\n- db: {command: db, args: [a, \"1\"]}\n- github\n", "mcpServers"),
            Ok(servers)
        );
    }

    #[test]
    fn what_is_not_read_is_named_with_its_place() {
        let deep = format!("a: {}", "[".repeat(100));
        for (text, place, words) in [
            ("a:\n  b: *c\n", (2, 6), "unknown anchor"),
            ("a: &b\n  c: 1\n", (1, 4), "refers to something else"),
            ("a:\n  b: !!str 1\n", (2, 6), "refers to something else"),
            ("a:\n  b: 1\n  b: 2\n", (3, 3), "is there twice"),
            ("a:\n  [b]: 1\n", (2, 3), "is no plain key"),
            (deep.as_str(), (1, 36), "is too deep"),
            ("a:\n# more\n\n  b: *c\n", (4, 6), "unknown anchor"),
            ("a:\n  b: 1\r  c: *d\n", (2, 13), "unknown anchor"),
            ("a:\n  b: 1\r\r\n  c: *d\n", (3, 6), "unknown anchor"),
            ("a: 1\rb: 2\n", (1, 6), "is another entry behind it"),
            ("a: 1\n--- b\n", (2, 1), "is another entry behind it"),
            ("a: 1\n...\nb: 2\n", (3, 1), "is another entry behind it"),
            ("b: 1\n", (1, 1), "is no entry of this name"),
            ("{}\n", (1, 2), "is no entry of this name"),
            ("a\n", (1, 1), "is no entry"),
        ] {
            let unread = value_of_entry(text, "a").expect_err(text);
            assert!(unread.words.contains(words), "{text}: {unread:?}");
            assert_eq!((unread.line, unread.column), place, "{text}: {unread:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-:\"'\\[\\]{}|>,#&*! a1\n\u{e9}]{0,80}") {
            let _ = value_of_entry(&text, "a");
        }
    }
}
