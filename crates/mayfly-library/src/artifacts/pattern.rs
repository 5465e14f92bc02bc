//! Patterns for paths below a folder: `*` and `?` within a part, `**` for any number of parts.
//!
//! Matching takes at most the length of the pattern times that of the path.

use std::fmt;
use std::str::FromStr;

/// The longest pattern.
const BYTES_MAX: usize = 300;

/// A pattern such as `dist/**` or `target/*/report.xml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<String>,
}

impl Pattern {
    /// Whether it means the file at `path`.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        matches(&self.parts, &path, |part| part == "**", |part, name| is_like(part, name))
    }

    /// Whether it could mean a file below the folder at `path`; an empty path is the top.
    pub fn goes_below(&self, path: &str) -> bool {
        let folders = path.split('/').filter(|part| !part.is_empty());
        for (at, folder) in folders.enumerate() {
            match self.parts.get(at) {
                Some(part) if part == "**" => return true,
                // The last part is a file's.
                Some(part) if at + 1 < self.parts.len() && is_like(part, folder) => {}
                _ => return false,
            }
        }
        true
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let whole = if text.ends_with('/') { format!("{text}**") } else { text.to_owned() };
        let parts: Vec<String> = whole.split('/').map(str::to_owned).collect();
        let good = |part: &String| {
            let is_plain =
                !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
            is_plain && (part == "**" || !part.contains("**"))
        };
        if whole.len() > BYTES_MAX || !parts.iter().all(good) || whole.contains('\\') {
            return Err(format!(
                "expected a path below the workspace such as `dist/**` or `target/*/report.xml`, without `..`, of at most \
                 {BYTES_MAX} bytes"
            ));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_like(part: &str, name: &str) -> bool {
    let (part, name): (Vec<char>, Vec<char>) = (part.chars().collect(), name.chars().collect());
    matches(&part, &name, |c| *c == '*', |c, other| *c == '?' || c == other)
}

/// Whether `text` is as `pattern` says, where some of its items mean any number of those of the text. It is enough to go back
/// to the last of these.
fn matches<P, T>(
    pattern: &[P],
    text: &[T],
    is_any: impl Fn(&P) -> bool,
    is_same: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut read, mut back) = (0, 0, None);
    while read < text.len() {
        match pattern.get(at) {
            Some(item) if is_any(item) => {
                back = Some((at + 1, read));
                at += 1;
            }
            Some(item) if is_same(item, &text[read]) => (at, read) = (at + 1, read + 1),
            _ => {
                let Some((after, from)) = back else { return false };
                back = Some((after, from + 1));
                (at, read) = (after, from + 1);
            }
        }
    }
    pattern[at..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect(text)
    }

    #[test]
    fn a_pattern_means_what_it_looks_like() {
        for (text, yes, no) in [
            ("dist/**", &["dist/a", "dist/a/b.js"][..], &["dist2/a", "a/dist/b"][..]),
            ("dist/", &["dist/a", "dist/a/b"], &["dis/a"]),
            ("**/*.xml", &["a.xml", "a/b/c.xml"], &["a.xml/b", "axml"]),
            (
                "target/*/report.xml",
                &["target/x/report.xml"],
                &["target/report.xml", "target/x/y/report.xml"],
            ),
            ("a/**/z", &["a/z", "a/b/c/z"], &["a/b", "z"]),
            ("report-?.txt", &["report-1.txt"], &["report-12.txt", "report-.txt"]),
            ("*", &["a", ".hidden"], &["a/b"]),
            ("\u{e4}*\u{df}", &["\u{e4}x\u{df}"], &["a"]),
        ] {
            let pattern = pattern(text);
            for path in no {
                assert!(!pattern.matches(path), "{text} {path}");
            }
            for path in yes {
                assert!(pattern.matches(path), "{text} {path}");
                for (at, _) in path.match_indices('/') {
                    assert!(pattern.goes_below(&path[..at]), "{text} {path}");
                }
            }
        }
        assert!(pattern("dist/**").goes_below("") && !pattern("dist/**").goes_below("src"));
        assert!(!pattern("a/*").goes_below("a/b"));
    }

    #[test]
    fn what_leads_out_is_no_pattern() {
        for text in ["", "/etc/*", "../x", "a/../b", "a//b", "./a", "a**", "a\\b", "a\nb", &"x".repeat(301)] {
            text.parse::<Pattern>().expect_err(text);
        }
    }

    /// S12: no pattern multiplies.
    #[test]
    fn a_pattern_of_many_stars_ends() {
        let many = pattern(&format!("{}b", "*a".repeat(140)));
        assert!(!many.matches(&"a".repeat(100_000)));
        let deep = pattern(&format!("{}x", "**/".repeat(90)));
        assert!(!deep.matches(&"a/".repeat(5000)));
    }
}
