//! The reference, `docs/mayfly.toml`: every key with its words and its default, made from the table of keys.

use super::keys::{self, Default, Key};

const HEAD: &str = "\
# mayfly.toml: every key, with its words and its default.
#
# mayfly reads --config PATH, else $XDG_CONFIG_HOME/mayfly/mayfly.toml, else ~/.config/mayfly/mayfly.toml.
# A flag comes before this file, and this file before a default: `mayfly doctor --settings` shows what is in
# force and where it came from. Credentials are read from the environment alone, and have no key.
";

/// The whole page.
pub(super) fn page() -> String {
    let keys = keys::all();
    let mut page = HEAD.to_owned();
    let of = |section: &str| -> String {
        keys.iter().filter(|key| key.section == section).map(paragraph).collect()
    };
    page.push_str(&of(""));
    for (section, about) in keys::SECTIONS {
        page.push_str(&format!(
            "\n\n{}[{section}]\n{}",
            comment(about),
            of(section).trim_start_matches('\n')
        ));
    }
    page
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

fn comment(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("#{line}\n")).collect()
}
