//! Text that is safe to show: whatever a machine, a repository or a server says, a terminal obeys none of it.
//!
//! Control characters (C0, DEL, C1), line separators, and characters that are invisible or change the
//! direction of others are written as `\u{1b}`. Lengths are cut at character borders.

use std::fmt;

/// A bounded text without any character that a terminal would act on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown(String);

impl Shown {
    /// `text` on one line, at most `chars_max` of its characters. Newlines and tabs become spaces.
    pub(crate) fn line(text: &str, chars_max: usize) -> Self {
        let mut shown = String::new();
        for (i, c) in text.chars().enumerate() {
            if i == chars_max {
                shown.push('…');
                break;
            }
            match c {
                '\n' | '\t' => shown.push(' '),
                c if acts(c) => shown.extend(c.escape_unicode()),
                c => shown.push(c),
            }
        }
        Self(shown)
    }

    /// A line of a file, whole, with its tabs.
    pub(crate) fn code(line: &str) -> Self {
        let mut shown = String::new();
        for c in line.chars() {
            match c {
                c if acts(c) && c != '\t' => shown.extend(c.escape_unicode()),
                c => shown.push(c),
            }
        }
        Self(shown)
    }

    /// The lines of `text` that are not blank, at most `lines_max`; what is left out is counted.
    pub(crate) fn lines(text: &str, lines_max: usize, chars_max: usize) -> Vec<Self> {
        let mut rest = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let mut lines: Vec<Self> =
            rest.by_ref().take(lines_max).map(|line| Self::line(line, chars_max)).collect();
        match rest.count() {
            0 => {}
            more => lines.push(Self(format!("… ({more} more lines)"))),
        }
        lines
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// How many characters it has.
    pub(crate) fn len(&self) -> usize {
        self.0.chars().count()
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether a terminal, or a reader's eye, would take `c` for more than itself.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S45: no control byte, no bidi override, whatever the text.
        #[test]
        fn no_text_gets_through_that_acts_on_a_terminal(
            text in "(\\PC|[\\x00-\\x1f\\x7f-\\u{9f}\\u{200b}-\\u{202e}\\u{2066}-\\u{2069}\\u{feff}\\u{61c}]){0,60}",
            chars_max in 0_usize..80,
        ) {
            for shown in Shown::lines(&text, 3, chars_max).iter().chain([&Shown::line(&text, chars_max)]) {
                let bad = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)
                    || ('\u{2066}'..='\u{2069}').contains(&c) || c == '\u{2028}' || c == '\u{61c}';
                prop_assert!(!shown.as_str().contains(bad), "{shown:?}");
            }
        }

        #[test]
        fn plain_text_is_shown_as_it_is(text in "[a-zA-Zäß日本 .,/()-]{0,40}") {
            let shown = Shown::line(&text, 40);
            prop_assert_eq!(shown.as_str(), text);
        }
    }

    #[test]
    fn the_known_tricks_are_spelled_out() {
        let cases = [
            ("\u{1b}[2J", r"\u{1b}[2J"),
            ("a\rb", r"a\u{d}b"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("a\u{202e}b", r"a\u{202e}b"),
            ("\u{1b}]52;c;aGk=\u{7}", r"\u{1b}]52;c;aGk=\u{7}"),
            ("a\tb\nc", "a b c"),
        ];
        for (text, expected) in cases {
            assert_eq!(Shown::line(text, 100).as_str(), expected);
        }
    }

    #[test]
    fn a_line_of_code_keeps_its_tabs_alone() {
        assert_eq!(Shown::code("\ta\u{1b}[2J\u{202e}b\r").as_str(), "\ta\\u{1b}[2J\\u{202e}b\\u{d}");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_said_so() {
        assert_eq!(Shown::line("äöü", 2).as_str(), "äö…");
        assert_eq!(Shown::line("äöü", 3).as_str(), "äöü");
        let lines = Shown::lines("a\r\n\n  \nb\nc\nd\n", 2, 10);
        assert_eq!(lines.iter().map(Shown::as_str).collect::<Vec<_>>(), ["a", "b", "… (2 more lines)"]);
    }
}
