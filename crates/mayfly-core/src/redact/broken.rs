//! Base64 that is broken over lines of any length, by a line break or by what JSON writes for one.
//!
//! One line break between two characters is skipped; after a second one something else begins. A letter behind a
//! backslash may be a part of a line break, and nothing begins there: so what is found does not depend on where a text is
//! cut, as long as it is not cut right behind a backslash.
//!
//! ```text
//! "c2stYW50LW\ndlcyI6  ──► c2stYW50LWdlcyI6 ──► searched, and told by where it is in the text
//! ```
//!
//! Most of a text is not looked at twice: a stretch around a line break counts only if it is as long as a secret.

use std::collections::BTreeSet;
use std::iter;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::{Sorted, automaton};

/// A line break: as it is, as JSON writes it, and JSON within JSON.
const BREAKS: [&[u8]; 6] = [b"\n", b"\r\n", br"\n", br"\r\n", br"\\n", br"\\r\\n"];
/// The longest of them.
const BREAK_BYTES_MAX: usize = 6;

/// Knows secrets in base64.
pub(super) struct Broken {
    /// Tells quickly whether there is anything.
    any: AhoCorasick,
    /// Finds all that there is, also what overlaps.
    all: AhoCorasick,
    sorted: Sorted,
    shortest: usize,
}

impl Broken {
    pub(super) fn of(forms: BTreeSet<Vec<u8>>) -> Self {
        let any = automaton(&forms, MatchKind::LeftmostFirst, None);
        let all = automaton(&forms, MatchKind::Standard, Some(AhoCorasickKind::ContiguousNFA));
        let shortest = forms.iter().map(Vec::len).min().unwrap_or_default();
        Self { any, all, sorted: Sorted::of(forms), shortest }
    }

    /// Whether there is one in a text.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.stretches(text).any(|stretch| self.any.is_match(&stretch.letters))
    }

    /// Where they are, with their line breaks.
    pub(super) fn found(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for stretch in self.stretches(text) {
            let all = self.all.find_overlapping_iter(&stretch.letters);
            found.extend(all.map(|one| stretch.at(one.start())..stretch.at(one.end() - 1) + 1));
        }
        found
    }

    /// Where the earliest may begin that the text does not have the end of; its length if none may.
    pub(super) fn begins_in(&self, text: &[u8]) -> usize {
        let reach = (self.sorted.longest - 1) * (1 + BREAK_BYTES_MAX) + BREAK_BYTES_MAX;
        let mut from = text.len().saturating_sub(reach);
        while let Some(start) = (from..text.len()).find(|&at| can_begin(text, at)) {
            let stretch = Stretch::read(text, start);
            if stretch.is_open {
                let begins = self.sorted.begins_in(&stretch.letters);
                return if begins < stretch.letters.len() { stretch.at(begins) } else { text.len() };
            }
            from = stretch.end;
        }
        text.len()
    }

    /// The stretches that go over a line break and are long enough, in their order.
    fn stretches<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Stretch> + 'a {
        let mut from = 0;
        iter::from_fn(move || {
            loop {
                let at = from + memchr::memchr3(b'\n', b'\r', b'\\', text.get(from..)?)?;
                from = at + 1;
                if goes_on(text, at).is_none() {
                    continue;
                }
                let line = text[..at].iter().rev().take_while(|byte| is_letter(**byte)).count();
                let Some(start) = (at - line..at).find(|&start| can_begin(text, start)) else { continue };
                from = lines(text, start).last()?.end;
                if lines(text, start).map(|line| line.len()).sum::<usize>() >= self.shortest {
                    return Some(Stretch::read(text, start));
                }
            }
        })
    }
}

/// Characters of base64 with single line breaks in between.
struct Stretch {
    /// Without the line breaks.
    letters: Vec<u8>,
    /// Where each line begins in the letters, and in the text.
    lines: Vec<(usize, usize)>,
    /// Its end in the text.
    end: usize,
    /// Whether it may go on where the text does.
    is_open: bool,
}

impl Stretch {
    fn read(text: &[u8], start: usize) -> Self {
        let mut stretch = Self { letters: Vec::new(), lines: Vec::new(), end: start, is_open: false };
        for line in lines(text, start) {
            stretch.lines.push((stretch.letters.len(), line.start));
            stretch.end = line.end;
            stretch.letters.extend_from_slice(&text[line]);
        }
        stretch.is_open = BREAKS.iter().any(|line_break| line_break.starts_with(&text[stretch.end..]));
        stretch
    }

    /// Where a letter is in the text.
    fn at(&self, letter: usize) -> usize {
        let line = self.lines.partition_point(|(first, _)| *first <= letter) - 1;
        let (first, at) = self.lines[line];
        at + letter - first
    }
}

/// The lines of the stretch that begins at `start`.
fn lines(text: &[u8], start: usize) -> impl Iterator<Item = Range<usize>> {
    let line = |at: usize| at..at + text[at..].iter().take_while(|byte| is_letter(**byte)).count();
    iter::successors(Some(line(start)), move |before| goes_on(text, before.end).map(line))
}

/// Where the next line begins, if there is a line break and then a letter.
fn goes_on(text: &[u8], at: usize) -> Option<usize> {
    let line_break = BREAKS.iter().find(|line_break| text[at..].starts_with(line_break))?;
    let next = at + line_break.len();
    text.get(next).is_some_and(|byte| is_letter(*byte)).then_some(next)
}

fn can_begin(text: &[u8], at: usize) -> bool {
    is_letter(text[at]) && !text[..at].ends_with(b"\\")
}

/// A character of base64 in one of its alphabets.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}
