//! What is wrong in a library: the file, the place in it, and what to do about it.

use std::fmt;

use serde::Serialize;

use crate::kinds::end_of;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file or folder, from the top of the library.
    pub file: String,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong, and what to do.
    pub words: String,
}

impl Problem {
    /// One about a whole file or folder.
    pub fn new(file: impl Into<String>, words: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, column: None, words: words.into() }
    }

    /// One at a place.
    pub fn at(file: impl Into<String>, line: usize, column: usize, words: impl Into<String>) -> Self {
        Self { line: Some(line), column: Some(column.max(1)), ..Self::new(file, words) }
    }

    /// What a reader of JSON stumbled over.
    pub fn json(file: &str, text: &str, error: &serde_json::Error) -> Self {
        let whole = error.to_string();
        let words = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(words, _)| words);
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        let before = line.get(..error.column().saturating_sub(1)).unwrap_or(line);
        let comment = error.is_syntax() && line[before.len()..].starts_with(['/', '#']);
        let hint = if comment { ": JSON has no comments" } else { "" };
        Self::at(file, error.line().max(1), before.chars().count() + 1, format!("{words}{hint}"))
    }

    /// What a reader of TOML stumbled over.
    pub fn toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let (line, column) = end_of(before);
        Self::at(file, line, column, error.message())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.escape_debug())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}", self.words)
    }
}

/// All that is wrong, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
