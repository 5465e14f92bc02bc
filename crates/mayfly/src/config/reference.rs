//! The reference, `docs/mayfly.toml`: every key with its words and its default, made from the table of keys.

use super::keys::{Default, Key, SECTIONS, all};
use super::repos::PAGE;

const HEAD: &str = "\
# mayfly.toml: every key, with its words and its default.
#
# mayfly reads --config PATH, else $XDG_CONFIG_HOME/mayfly/mayfly.toml, else ~/.config/mayfly/mayfly.toml.
# A flag comes before this file, and this file before a default: `mayfly doctor --settings` shows what is in
# force and where it came from. Credentials are read from the environment alone, and have no key.
";

/// The whole page.
pub(super) fn page() -> String {
    let sections = SECTIONS.iter().map(|(section, about)| {
        let keys = of(section);
        format!("\n\n{}[{section}]\n{}", comment(about), keys.trim_start_matches('\n'))
    });
    let parts = [HEAD.to_owned(), of("")].into_iter().chain(sections);
    let parts: Vec<_> = parts.chain([PAGE.to_owned()]).collect();
    parts.concat()
}

/// The keys of one section.
fn of(section: &str) -> String {
    let keys: Vec<_> = all().iter().filter(|key| key.section == section).map(paragraph).collect();
    keys.concat()
}

fn paragraph(key: &Key) -> String {
    let (words, name) = (comment(key.words), key.name);
    match &key.default {
        Default::Value(value) => format!("\n{words}#{name} = {value}\n"),
        Default::Unset { instead, example } => {
            format!("\n{words}# Default: {instead}.\n#{name} = {example}\n")
        }
    }
}

/// A doc comment's lines begin with a space.
fn comment(lines: &[&str]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| format!("#{line}\n")).collect();
    lines.concat()
}
