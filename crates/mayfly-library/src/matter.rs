//! The settings at the head of an agent, a skill, a command or a rule: read leniently, and written anew.
//!
//! What the CLI is given of a repository is never its own text of them: each entry that may stay is read to plain words,
//! and these are written as JSON strings, which YAML reads as they are. So it does not matter where its reader and this
//! one differ: nothing can be in the CLI's that is not in ours. What cannot be read is left out, and named. Of a library,
//! which is its owner's word, what is not known here goes on as it stands.

use serde_json::Value;

/// The most that the patterns of one rule or skill may be, in bytes, in choices, which multiply, and in stars.
pub const PATTERNS_BYTES_MAX: usize = 4096;
/// See [`PATTERNS_BYTES_MAX`].
pub const CHOICES_MAX: usize = 8;
/// See [`PATTERNS_BYTES_MAX`].
pub const STARS_MAX: usize = 100;

/// What bounds an agent.
const BOUNDS: [&str; 5] = ["tools", "allowedTools", "disallowedTools", "deniedTools", "max_tokens"];
/// Those that may stand in an agent's text, a line each.
const PLAIN: [&str; 2] = ["allowedTools", "deniedTools"];
/// Those that a text may begin a line with, and mean nothing by it.
const IN_PROSE: [&str; 2] = ["tools", "max_tokens"];

/// One entry.
#[derive(Debug, PartialEq)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value, unless it has none that is words.
    pub value: Option<Value>,
    /// Its lines as they stand, with the comments between them.
    pub lines: String,
    /// The line of the text that it begins on, from 1.
    pub line: usize,
}

impl Setting {
    /// Its words, if they are on one line and begin with one: no quotes, no list, no other sign that means something.
    pub fn plain(&self) -> Option<&str> {
        let mut lines = self.lines.lines();
        let (_, first) = lines.next()?.split_once(':')?;
        let is_plain = first.trim_start().starts_with(char::is_alphanumeric) && !first.contains('\r');
        let is_alone = lines.all(|line| line.starts_with('#') || line.trim().is_empty());
        self.value.as_ref().and_then(Value::as_str).filter(|_| is_plain && is_alone)
    }
}

/// A line that could be meant for a bound, and would bound nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Unclear {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it, and what to do.
    pub words: String,
}

/// Parts a text into the settings at its head and what follows.
pub fn split(text: &str) -> (Vec<Setting>, &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(head) = text.trim_start().strip_prefix("---") else { return (Vec::new(), text) };
    let Some((_, head)) = head.split_once('\n') else { return (Vec::new(), text) };
    let before = text[..text.len() - head.len()].matches('\n').count();
    let mut end = 0;
    for line in head.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return (settings(&head[..end], before + 1), &head[end + line.len()..]);
        }
        end += line.len();
    }
    (Vec::new(), text)
}

/// Checks that no line of a head is passed over: that the head ends, and that what goes on goes on from an entry.
pub fn check_head(text: &str) -> Result<(), Unclear> {
    let unclear = |line, words: &str| Err(Unclear { line, words: words.to_owned() });
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let blank = text.len() - text.trim_start().len();
    if !text[blank..].starts_with("---") {
        return Ok(());
    }
    let first = text[..blank].matches('\n').count() + 1;
    let lines = || text[blank..].lines().enumerate().skip(1);
    let Some((end, _)) = lines().find(|(_, line)| line.trim_end() == "---") else {
        return unclear(
            first,
            "begins settings that nothing ends: write --- on a line of its own below them",
        );
    };
    let (at, line) = lines().find(|(_, line)| !is_nothing(line)).expect("the end is something");
    match at < end && line.starts_with([' ', '\t', '-', '{', '[', '?']) {
        true => unclear(first + at, "is no setting: write `key: value` from the beginning of the line"),
        false => Ok(()),
    }
}

/// Whether a line of a head says nothing.
fn is_nothing(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

/// Takes out of a body the lines that are settings by [`PLAIN`], as some write them without a head; not those in a block
/// of code. `first` is the number of the body's first line.
///
/// # Errors
/// A line that looks like a bound and is none: one before the text begins, or, since prose has no such word, one that is
/// like [`PLAIN`] anywhere.
pub fn take_plain(body: &str, first: usize) -> Result<(Vec<Setting>, String), Unclear> {
    let (mut taken, mut rest, mut in_code, mut has_begun) = (Vec::new(), String::new(), false, false);
    for (at, line) in body.split_inclusive('\n').enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        let key = line.split_once(':').map(|(key, _)| key);
        if !in_code && key.is_some_and(|key| PLAIN.contains(&key)) {
            let of_line = settings(line, first + at);
            if of_line.iter().any(goes_on) {
                let words =
                    "is one line in a text: write its whole list there, or among the settings above it";
                return Err(Unclear { line: first + at, words: words.to_owned() });
            }
            taken.extend(of_line);
            continue;
        }
        let bound = key.filter(|_| !in_code).and_then(|key| Some((key.trim(), meant(key.trim())?)));
        if let Some((key, bound)) = bound
            && (!has_begun || !IN_PROSE.contains(&bound))
        {
            let words = format!(
                "`{}` bounds nothing in a text: write `{bound}` among settings above it, between two lines of ---",
                key.escape_debug()
            );
            return Err(Unclear { line: first + at, words });
        }
        has_begun |= !is_nothing(line);
        rest.push_str(line);
    }
    Ok((taken, rest))
}

/// Whether the list of a line is not all on it.
fn goes_on(setting: &Setting) -> bool {
    let (_, text) = setting.lines.split_once(':').unwrap_or_default();
    let is_none = setting.value.as_ref().and_then(words).is_some_and(|words| words.is_empty());
    (is_none && !text.contains('[')) || text.trim_end().ends_with(',')
}

/// The key that bounds an agent which another is like but for case, `-` and `_`.
pub(crate) fn meant(key: &str) -> Option<&'static str> {
    let plain = |key: &str| key.replace(['-', '_'], "").to_ascii_lowercase();
    BOUNDS.into_iter().find(|bound| plain(bound) == plain(key))
}

/// Puts settings in front of a body. A body that could be taken for settings is given an empty head.
pub fn join(settings: &[(&str, Value)], body: &str) -> String {
    if settings.is_empty() && !body.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).starts_with("---")
    {
        return body.to_owned();
    }
    let mut text = "---\n".to_owned();
    for (key, value) in settings {
        // Three of them end the settings, as some read it, wherever they are.
        let value = value.to_string().replace("---", r"-\u002d-");
        text.extend(["\"", key, "\": ", &value, "\n"]);
    }
    text + "---\n" + body
}

/// The entries of a head whose first line has this number.
fn settings(head: &str, first: usize) -> Vec<Setting> {
    let mut entries: Vec<(usize, Vec<&str>)> = Vec::new();
    for (at, line) in head.lines().enumerate() {
        let goes_on = line.starts_with([' ', '\t', '-', '#']) || line.is_empty();
        match entries.last_mut() {
            Some((_, lines)) if goes_on => lines.push(line),
            _ if goes_on => {}
            _ => entries.push((first + at, vec![line])),
        }
    }
    let setting = |(line, lines): (usize, Vec<&str>)| {
        let (key, first) = entry(lines[0]);
        let rest = lines[1..].iter().copied().filter(|line| !line.starts_with('#'));
        let value = value(&[first].into_iter().chain(rest).collect::<Vec<_>>());
        Setting { key, value, lines: lines.join("\n") + "\n", line }
    };
    entries.into_iter().map(setting).collect()
}

/// A line that begins an entry: its key, and the first line of its value.
fn entry(line: &str) -> (String, &str) {
    let (key, rest) = line.split_once(':').unwrap_or((line, "{"));
    (key.trim().trim_matches(['"', '\'']).to_owned(), rest.trim())
}

/// The words of a list, however it is written: as one text with commas, or as items. `None`: it is no list of words.
pub fn words(value: &Value) -> Option<Vec<String>> {
    let split = |text: &str| {
        let parts = parts(text).into_iter().map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    match value {
        Value::String(text) => Some(split(text)),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Whether these are patterns that nobody would need long to match.
pub fn patterns_are_bounded(text: &str) -> bool {
    let count = |c: char| text.matches(c).count();
    text.len() <= PATTERNS_BYTES_MAX && count('{') <= CHOICES_MAX && count('*') <= STARS_MAX
}

fn value(lines: &[&str]) -> Option<Value> {
    let (first, rest) = lines.split_first()?;
    let rest: Vec<&str> = rest.iter().map(|line| line.trim()).collect();
    let all = || [&[*first], &rest[..]].concat().join(" ").trim().to_owned();
    match first.chars().next() {
        Some('|') => Some(rest.join("\n").into()),
        Some('>') => Some(rest.join(" ").into()),
        Some('[') => all().strip_prefix('[')?.strip_suffix(']').and_then(list),
        Some('{' | '&' | '*' | '!' | '%' | '@' | '`') => None,
        None => items(&rest),
        Some(_) => scalar(&all()),
    }
}

/// The items of a list, a line each.
fn items(lines: &[&str]) -> Option<Value> {
    let lines = lines.iter().filter(|line| !line.is_empty());
    let items: Option<Vec<Value>> = lines.map(|line| scalar(line.strip_prefix('-')?.trim())).collect();
    Some(Value::Array(items?))
}

/// The items of a list on one line.
fn list(text: &str) -> Option<Value> {
    let items = parts(text).into_iter().map(str::trim).filter(|item| !item.is_empty());
    items.map(scalar).collect::<Option<Vec<_>>>().map(Value::Array)
}

/// Parts a text at its commas, those in quotes and brackets left alone.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quote, mut depth) = (Vec::new(), 0, None, 0_usize);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            // What follows it is not the end of the quote.
            '\\' if quote == Some('"') => drop(chars.next()),
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if quote == Some(c) => quote = None,
            '(' if quote.is_none() => depth += 1,
            ')' if quote.is_none() => depth = depth.saturating_sub(1),
            ',' if quote.is_none() && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A word, a number, a truth or a text.
fn scalar(text: &str) -> Option<Value> {
    if let Some(inner) = text.strip_prefix('"') {
        let inner = inner.strip_suffix('"')?;
        return Some(serde_json::from_str(text).unwrap_or_else(|_| Value::from(inner)));
    }
    if let Some(inner) = text.strip_prefix('\'') {
        return Some(inner.strip_suffix('\'')?.replace("''", "'").into());
    }
    let text = text.split(" #").next().unwrap_or_default().trim_end();
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => Some(value),
        _ => Some(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(head: &str) -> Vec<(String, Option<Value>)> {
        let text = format!("---\n{head}\n---\nbody");
        let (settings, body) = split(&text);
        assert_eq!(body, "body");
        settings.into_iter().map(|setting| (setting.key, setting.value)).collect()
    }

    #[test]
    fn every_usual_way_to_write_a_setting_is_read() {
        for (head, value) in [
            ("tools: Read, Grep", json!("Read, Grep")),
            (
                "tools: [Read, \"Bash(git log:*, -n)\", Edit(a, b)]",
                json!(["Read", "Bash(git log:*, -n)", "Edit(a, b)"]),
            ),
            ("tools:\n  - Read\n  - 'Grep'", json!(["Read", "Grep"])),
            ("tools:\n- Read\n- Grep", json!(["Read", "Grep"])),
            ("tools: |\n  one\n  two", json!("one\ntwo")),
            ("tools: >-\n  one\n  two", json!("one two")),
            ("tools: Use it when: always # not now", json!("Use it when: always")),
            ("tools: \"a\\n\\u0041\"", json!("a\nA")),
            ("tools: 'it''s'", json!("it's")),
            ("tools: true", json!(true)),
            ("tools: one\n  and two", json!("one and two")),
        ] {
            assert_eq!(read(head), [("tools".to_owned(), Some(value))], "{head}");
        }
    }

    #[test]
    fn settings_without_a_head_are_taken_out_of_the_text() {
        let text = "# Reviewer\nallowedTools: Read, Bash(git log:*)\n```\ndeniedTools: no\n```\ndeniedTools: [Bash]\nend";
        let (taken, rest) = take_plain(text, 1).expect("clear");
        let taken: Vec<_> = taken.iter().map(|one| (one.line, one.value.as_ref().and_then(words))).collect();
        assert_eq!(
            taken,
            [(2, Some(vec!["Read".into(), "Bash(git log:*)".into()])), (6, Some(vec!["Bash".to_owned()]))]
        );
        assert_eq!(rest, "# Reviewer\n```\ndeniedTools: no\n```\nend");
    }

    #[test]
    fn a_quote_in_a_quote_does_not_end_it() {
        let text = join(&[("k", serde_json::json!(["{\",", "b"]))], "body");
        assert_eq!(split(&text).0[0].value, Some(serde_json::json!(["{\",", "b"])));
    }

    #[test]
    fn a_setting_knows_where_it_stands() {
        let (settings, _) = split("\n---\n# words\nname: x\ntools:\n# more\n  - Read\n---\nbody");
        let places: Vec<_> = settings.iter().map(|one| (one.line, one.lines.as_str())).collect();
        assert_eq!(places, [(4, "name: x\n"), (5, "tools:\n# more\n  - Read\n")]);
        assert_eq!(settings[1].value, Some(json!(["Read"])));
    }

    #[test]
    fn plain_words_are_told_from_what_means_something() {
        for (head, plain) in [
            ("k: Use it when: always # not now\n# more\n\n", Some("Use it when: always")),
            ("k: \u{fc}ber: alles", Some("\u{fc}ber: alles")),
            ("k: 7", None),
            ("k: 'a': 'b'", None),
            ("k: - a: b", None),
            ("k: @a: b", None),
            ("k: a: b\n  c: d", None),
            ("k: a\rc: d", None),
            ("k", None),
            ("k:", None),
        ] {
            let text = format!("---\n{head}\n---\n");
            assert_eq!(split(&text).0[0].plain(), plain, "{head:?}");
        }
    }

    #[test]
    fn what_is_no_words_has_no_value() {
        for head in
            ["hooks:\n  PreToolUse:\n    - x", "hooks: {a: b}", "hooks: *anchor", "hooks: [a", "hooks: 'a"]
        {
            assert_eq!(read(head), [("hooks".to_owned(), None)], "{head}");
        }
        assert_eq!(read("{hooks: x, name: y}")[0].0, "{hooks");
    }

    /// Covers S01 for what a reader could be made to take for another setting.
    #[test]
    fn a_value_cannot_become_a_setting() {
        let sly = "a\"\nhooks:\n  SessionStart: x\n---\nb";
        let text = join(&[("description", sly.into())], "---\nhooks: y\n---\nbody");
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(!text.lines().nth(1).expect("the description").contains("---"), "{text}");
        let (settings, body) = split(&text);
        let [Setting { key, value, .. }] = &settings[..] else { panic!("{settings:?}") };
        assert_eq!((key.as_str(), value), ("description", &Some(sly.into())));
        assert!(body.starts_with("---"));
        assert!(join(&[], " \n---\nhooks: x\n---\n").starts_with("---\n---\n"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(---\n)?[-:\"'\\[\\]{}|>,# a\n\u{e9}]{0,60}(\n---\n)?.{0,9}") {
            let (settings, _) = split(&text);
            for Setting { value, .. } in settings {
                let text = join(&[("k", value.clone().unwrap_or_default())], "body");
                prop_assert_eq!(split(&text).0[0].value.clone(), Some(value.unwrap_or("null".into())));
            }
        }
    }
}
