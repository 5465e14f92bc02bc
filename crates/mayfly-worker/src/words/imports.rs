//! The `@path` words in a text, by which the CLI reads other files into it.
//!
//! It takes every word that follows an `@` for a path, wherever Markdown may end or begin a piece of text, and follows
//! it to any file of the machine. Here more is taken for one than the CLI does, never less. One that leads out of the
//! repository is broken by a space after its `@`: it stays to be read, and is a path no more.

use std::path::{Component, Path, PathBuf};

/// A word that the CLI may take for a path.
#[derive(Debug, PartialEq, Eq)]
struct Word<'a> {
    /// Where it begins, after the `@`.
    at: usize,
    text: &'a str,
}

/// Breaks the imports that leave, as `leaves` finds; their words.
pub(crate) fn broken(text: &str, leaves: impl Fn(&str) -> bool) -> (String, Vec<String>) {
    let (mut kept, mut gone, mut from) = (String::with_capacity(text.len()), Vec::new(), 0);
    for word in words(text).into_iter().filter(|word| leaves(&path(word.text))) {
        kept.push_str(&text[from..word.at]);
        kept.push(' ');
        from = word.at;
        gone.push(word.text.to_owned());
    }
    kept.push_str(&text[from..]);
    (kept, gone)
}

/// The paths that a text may import.
pub(crate) fn paths(text: &str) -> Vec<String> {
    words(text).into_iter().map(|word| path(word.text)).collect()
}

/// Where a path leads that stands in a file of this folder: within the tree, as far as its letters tell.
pub(crate) fn within(folder: &Path, path: &str) -> Option<PathBuf> {
    if path == "~" || path.starts_with("~/") {
        return None;
    }
    let mut led: Vec<Component<'_>> = folder.components().collect();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) => led.push(component),
            Component::ParentDir => drop(led.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(led.into_iter().collect())
}

fn words(text: &str) -> Vec<Word<'_>> {
    let begins = text.match_indices('@').map(|(at, _)| at + 1);
    let word = |at: usize| Word { at, text: &text[at..at + length(&text[at..])] };
    begins.map(word).filter(|word| !word.text.is_empty()).collect()
}

/// How far a word goes: to the next white space that has no backslash before it. Of white space that is no ASCII some
/// ends a word for the CLI and some does not; here none does, and of a word that is longer each part is looked at.
fn length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c') && !(escaped && c == ' ') {
            return at;
        }
        escaped = c == '\\';
    }
    text.len()
}

/// The path in a word: up to an anchor, with its spaces.
fn path(word: &str) -> String {
    word.split('#').next().unwrap_or_default().replace("\\ ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        broken(text, |path| within(Path::new("docs"), path).is_none()).0
    }

    /// Covers S06 for imports, also where Markdown ends a piece of text before them.
    #[test]
    fn an_import_that_leaves_the_tree_is_none_any_more() {
        for (text, after) in [
            ("see @/etc/passwd and @~/x", "see @ /etc/passwd and @ ~/x"),
            ("[@/etc/x](y) **@../../x**", "[@ /etc/x](y) **@ ../../x**"),
            ("@a/../../../x", "@ a/../../../x"),
            ("@./../../x#top", "@ ./../../x#top"),
            ("@a\\ b/../../../x", "@ a\\ b/../../../x"),
            ("@@/etc/x", "@@ /etc/x"),
            ("@a\u{85}/../../../x", "@ a\u{85}/../../../x"),
        ] {
            assert_eq!(kept(text), after);
        }
        for same in ["@../README.md @a.md", "mail me@example.com", "npm i @scope/pkg a@~1.2", "@", "x @ /etc"]
        {
            assert_eq!(kept(same), same);
        }
    }

    #[test]
    fn a_path_is_what_the_cli_would_open() {
        assert_eq!(paths("@docs/a\\ b.md#c and @x"), ["docs/a b.md", "x"]);
        assert_eq!(within(Path::new("docs"), "../a.md"), Some("a.md".into()));
        assert_eq!(within(Path::new(""), "../a.md"), None);
    }
}
