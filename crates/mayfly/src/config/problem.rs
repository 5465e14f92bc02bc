//! What is wrong with a file, with the place and the next step.
//!
//! The parser says where: a byte. The key there is found by walking the file as plain TOML, and a key that is in
//! no table of ours is compared with those that are.

use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::FILE_BYTES_MAX;
use super::keys::{NAMES, SECTIONS};
use super::repos;

/// How like a name must be to be taken for a slip of the pen: 1 is the same.
const LIKENESS_MIN: f64 = 0.8;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadConfig {
    #[error("the configuration `{}` does not exist: name another with --config, or leave it out", path.display())]
    Missing { path: PathBuf },
    #[error("the configuration `{}` is no file: name a file with --config", path.display())]
    NoFile { path: PathBuf },
    #[error("cannot read the configuration `{}`", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the configuration `{}` can be changed by everybody, and it names a program to run: chmod o-w it", path.display())]
    Open { path: PathBuf },
    #[error("the configuration `{}` is longer than {} KiB: is it the right file?", path.display(), FILE_BYTES_MAX / 1024)]
    TooLong { path: PathBuf },
    #[error("the configuration `{}` is not UTF-8 text: is it the right file?", path.display())]
    NotText { path: PathBuf },
    #[error("the configuration is not TOML at {place}: {said}")]
    Syntax { place: String, said: String },
    #[error("unknown key {key} at {place}: {advice}")]
    UnknownKey { key: String, place: String, advice: String },
    #[error("wrong value of {key} at {place}: {said}")]
    WrongValue { key: String, place: String, said: String },
}

/// Adds the place and the key to what the parser said.
pub(super) fn placed(error: &toml::de::Error, path: &Path, text: &str) -> BadConfig {
    let at = error.span().unwrap_or_default().start;
    let place = format!("{}:{}", path.display(), line_of(text, at));
    let said = error.message().lines().collect::<Vec<_>>().join(", ");
    let keys = DeTable::parse(text).ok().and_then(|table| keys_at(table.get_ref(), at));
    match keys.as_deref().unwrap_or_default() {
        [] => BadConfig::Syntax { place, said },
        [outer @ .., name] => {
            let section = section_of(outer);
            let key = shown(&outer.join("."), name);
            let is_section = match outer {
                [] => name == repos::SECTION || SECTIONS.iter().any(|(section, _)| section == name),
                [outer] => outer == repos::SECTION,
                _ => false,
            };
            let known = [NAMES, repos::NAMES].iter().any(|names| names.contains(&(&section, name)));
            match is_section || known {
                true => BadConfig::WrongValue { key, place, said },
                false => BadConfig::UnknownKey { key, place, advice: advice(&section, name) },
            }
        }
    }
}

/// A section as the tables have it, whatever the repository is called.
fn section_of(outer: &[String]) -> String {
    match outer {
        [first, _, rest @ ..] if first == repos::SECTION => {
            [&[first.as_str(), repos::NAME], &rest.iter().map(String::as_str).collect::<Vec<_>>()[..]]
                .concat()
                .join(".")
        }
        _ => outer.join("."),
    }
}

/// The line of the byte `at`, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The key whose name or value is at the byte `at`, outermost table first.
fn keys_at(table: &DeTable<'_>, at: usize) -> Option<Vec<String>> {
    table.iter().find_map(|(key, value)| {
        let within = match value.get_ref() {
            DeValue::Table(table) => keys_at(table, at),
            _ => value.span().contains(&at).then(Vec::new),
        };
        let keys = within.or_else(|| key.span().contains(&at).then(Vec::new))?;
        Some(std::iter::once(key.get_ref().to_string()).chain(keys).collect())
    })
}

fn shown(section: &str, name: &str) -> String {
    if section.is_empty() { format!("`{name}`") } else { format!("`{name}` in [{section}]") }
}

fn advice(section: &str, name: &str) -> String {
    let sections = SECTIONS.iter().map(|(section, _)| *section).chain([repos::SECTION]);
    let sections = sections.filter(|_| section.is_empty()).map(|section| ("", section));
    let known: Vec<_> = NAMES.iter().chain(repos::NAMES).copied().chain(sections).collect();
    // Of two that are equally like, the one in the same section is meant.
    let likeness = |(other, known): (&str, &str)| (strsim::jaro_winkler(name, known), other == section);
    let rank = |a, b| likeness(a).partial_cmp(&likeness(b)).expect("a likeness is a number");
    match known.iter().copied().max_by(|a, b| rank(*a, *b)) {
        Some((other, known)) if strsim::jaro_winkler(name, known) >= LIKENESS_MIN => {
            let known = if other == section { format!("`{known}`") } else { shown(other, known) };
            format!("did you mean {known}?")
        }
        _ => {
            let here = known.iter().filter(|(other, _)| *other == section);
            let here: Vec<_> = here.map(|(_, name)| format!("`{name}`")).collect();
            format!("known here are {}", here.join(", "))
        }
    }
}
