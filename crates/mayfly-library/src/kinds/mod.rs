//! What each kind of resource has in it, read from its files.
//!
//! What is not known here is kept as it stands, since the CLI may know it; what is known must be what it is to be.

pub mod agent;
pub mod beside;
pub mod hooks;
pub mod mcp;
pub mod own;
pub mod settings;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::id::{Kind, ResourceId};
use crate::matter;
use crate::problem::{Problem, Problems};
use crate::tree::File;

/// What a resource has in it.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A skill: its files go on as they are.
    Skill {
        /// Whether the CLI names it among its skills from the start.
        is_listed: bool,
        /// Whether the CLI runs something of its own at its events.
        has_hooks: bool,
    },
    /// An agent.
    Agent(Box<agent::Agent>),
    /// Servers, by name.
    Mcp(Vec<mcp::Server>),
    /// Hooks, by event.
    Hooks(Map<String, Value>),
    /// Rules: its files go on as they are.
    Rules,
    /// Settings of the CLI's.
    Settings(Map<String, Value>),
}

/// Reads what `files` make of the resource `id`.
pub(crate) fn read(id: &ResourceId, files: &[File]) -> Result<What, Problems> {
    match id.kind {
        Kind::Skill => skill(id, files),
        Kind::Agent => agent::read(id, files).map(|agent| What::Agent(Box::new(agent))),
        Kind::Mcp => mcp::read(id, files).map(What::Mcp),
        Kind::Hooks => hooks::read(id, files).map(What::Hooks),
        Kind::Rules => rules(id, files).map(|()| What::Rules),
        Kind::Settings => settings::read(id, files).map(What::Settings),
    }
}

/// The CLI lists one that says what it is for, to users too, and wherever they work.
fn skill(id: &ResourceId, files: &[File]) -> Result<What, Problems> {
    let file = files.iter().find(|file| file.path.eq_ignore_ascii_case("SKILL.md"));
    let file = file.ok_or_else(|| Problem::new(id.to_string(), "has no SKILL.md"))?;
    if file.path != "SKILL.md" {
        let words = "must be called SKILL.md: rename it";
        return Err(Problem::new(format!("{id}/{}", file.path), words).into());
    }
    let source = Source::of(id, file)?;
    let head = matter::split(source.text).0;
    source.named(&head, id)?;
    source.bounded(&head)?;
    let says = |key: &str| head.iter().find(|setting| setting.key == key);
    let is_for = says("description").or(says("when_to_use"));
    let is_hidden = says("user-invocable").is_some_and(|setting| setting.value == Some(false.into()));
    let is_listed = is_for.is_some() && !is_hidden && says("paths").is_none();
    Ok(What::Skill { is_listed, has_hooks: says("hooks").is_some() })
}

fn rules(id: &ResourceId, files: &[File]) -> Result<(), Problems> {
    let is_rule = |file: &&File| Path::new(&file.path).extension() == Some(OsStr::new("md"));
    if !files.iter().any(|file| is_rule(&file)) {
        return Err(Problem::new(id.to_string(), "has no rule: put a file there that ends in .md").into());
    }
    files.iter().filter(is_rule).try_for_each(|file| {
        let source = Source::of(id, file)?;
        source.bounded(&matter::split(source.text).0)
    })
}

/// A text of a resource, and what it is called in messages.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) file: String,
    pub(crate) text: &'a str,
}

impl<'a> Source<'a> {
    /// A file that must be UTF-8.
    pub(crate) fn of(id: &ResourceId, file: &'a File) -> Result<Self, Problems> {
        let name = format!("{id}/{}", file.path);
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => Ok(Self { file: name, text: text.strip_prefix('\u{feff}').unwrap_or(text) }),
            Err(error) => {
                let before = String::from_utf8_lossy(&file.bytes[..error.valid_up_to()]);
                let (line, column) = end_of(&before);
                Err(Problem::at(name, line, column, "is not UTF-8").into())
            }
        }
    }

    /// The file of this name, which must be there.
    pub(crate) fn called(id: &ResourceId, files: &'a [File], name: &str) -> Result<Self, Problems> {
        let file = files.iter().find(|file| file.path == name);
        Self::of(id, file.ok_or_else(|| Problem::new(id.to_string(), format!("has no {name}")))?)
    }

    /// What the text is as JSON, checked for what is known of it.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<(T, Map<String, Value>), Problems> {
        let wrong = |error| Problems::from(Problem::json(&self.file, self.text, &error));
        let known = serde_json::from_str(self.text).map_err(wrong)?;
        let whole = serde_json::from_str(self.text).map_err(wrong)?;
        Ok((known, whole))
    }

    /// A problem where `word` first stands.
    pub(crate) fn near(&self, word: &str, words: impl Into<String>) -> Problem {
        match self.text.find(word) {
            Some(at) => self.at(at, words),
            None => Problem::new(&self.file, words),
        }
    }

    /// A problem where `word` first stands in a part of the text, else where that begins.
    pub(crate) fn near_in(&self, part: &Range<usize>, word: &str, words: impl Into<String>) -> Problem {
        let at = self.text[part.clone()].find(word).unwrap_or_default();
        self.at(part.start + at, words)
    }

    /// A problem where `word` first stands in one of the entries of these keys, of JSON or of settings at a head.
    pub(crate) fn near_entry(&self, keys: &[&str], word: &str, words: impl Into<String>) -> Problem {
        let mut entries = keys.iter().filter_map(|key| self.entry(key));
        match entries.find(|part| self.text[part.clone()].contains(word)) {
            Some(part) => self.near_in(&part, word, words),
            None => self.near(word, words),
        }
    }

    /// Where the value of a key at the top is, if the text has one.
    fn entry(&self, key: &str) -> Option<Range<usize>> {
        if let Ok(all) = serde_json::from_str::<BTreeMap<String, &RawValue>>(self.text) {
            return all.get(key).map(|value| self.place(value));
        }
        let mut entries = Vec::new();
        let mut at = 0;
        for line in self.text.split_inclusive('\n') {
            if !line.starts_with([' ', '\t', '-', '#']) {
                entries.push((at, line));
            }
            at += line.len();
        }
        let is_of = |line: &str| line.split_once(':').is_some_and(|(found, _)| found == key);
        let first = entries.iter().position(|(_, line)| is_of(line))?;
        let end = entries.get(first + 1).map_or(self.text.len(), |(at, _)| *at);
        Some(entries[first].0..end)
    }

    /// Where a value is, which was read of this very text.
    pub(crate) fn place(&self, value: &RawValue) -> Range<usize> {
        let start = value.get().as_ptr().addr() - self.text.as_ptr().addr();
        start..start + value.get().len()
    }

    fn at(&self, at: usize, words: impl Into<String>) -> Problem {
        let (line, column) = end_of(&self.text[..at]);
        Problem::at(&self.file, line, column, words)
    }

    /// Checks that the patterns of files among the settings are such that the CLI is not busy with them for ever.
    pub(crate) fn bounded(&self, settings: &[matter::Setting]) -> Result<(), Problems> {
        let unbounded = settings
            .iter()
            .find(|setting| setting.key == "paths" && !matter::patterns_are_bounded(&setting.lines));
        unbounded.map_or(Ok(()), |setting| {
            let words = format!(
                "`paths` is more than the CLI could match in time: at most {} bytes, {} times {{ and {} times *",
                matter::PATTERNS_BYTES_MAX,
                matter::CHOICES_MAX,
                matter::STARS_MAX
            );
            Err(Problem::at(&self.file, setting.line, 1, words).into())
        })
    }

    /// Checks that a `name` among the settings is that of the folder.
    pub(crate) fn named(&self, settings: &[matter::Setting], id: &ResourceId) -> Result<(), Problems> {
        let name = settings.iter().find(|setting| setting.key == "name");
        match name.map(|setting| (setting.line, setting.value.as_ref().and_then(Value::as_str))) {
            Some((line, name)) if name != Some(id.name.as_str()) => {
                Err(Problem::at(&self.file, line, 1, other_name(id, name.unwrap_or_default())).into())
            }
            _ => Ok(()),
        }
    }
}

/// The line and the column of what follows a text, from 1.
pub(crate) fn end_of(before: &str) -> (usize, usize) {
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// What is said of a name that differs from its folder's.
pub(crate) fn other_name(id: &ResourceId, name: &str) -> String {
    let name = name.escape_debug();
    format!("its name is `{name}`, and its folder is called `{}`: give both the same name", id.name)
}
