//! Takes configured secrets out of what is stored or shown.
//!
//! ```text
//! carry ++ piece ──► each byte of a secret becomes `*` ──► redacted
//!   ▲                                                        │
//!   └──── its end, if more follows and a secret may begin there
//! ```
//!
//! A secret is known as it is and as JSON (also JSON within JSON), hex, base64 and percent-encoding write it; base64 at
//! each of its three alignments, in both alphabets, and broken over lines ([`broken`]). The length stays, and so does
//! every other byte. What comes out does not depend on where the text is cut.
//!
//! This is against accidents: whoever wants to hide a secret can write it in some other way. Bounds:
//! [`SECRET_BYTES_MIN`], [`SECRET_BYTES_MAX`]; a carry is at most as long as the longest form of a secret, with a line
//! break after each of its characters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use self::broken::Broken;

mod broken;

/// A shorter secret is left alone: it would be found in all kinds of words.
pub const SECRET_BYTES_MIN: usize = 8;
/// The longest secret.
pub const SECRET_BYTES_MAX: usize = 4 * 1024;
/// What a byte of a secret becomes: as good inside a JSON text as outside.
const MASK: u8 = b'*';

/// Knows some secrets in all of their forms.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<Forms>>);

struct Forms {
    /// Tells quickly whether there is anything.
    any: AhoCorasick,
    /// Finds all that there is, also what overlaps.
    all: AhoCorasick,
    sorted: Sorted,
    broken: Broken,
}

/// Forms by their bytes, to tell what one begins with.
struct Sorted {
    forms: Vec<Vec<u8>>,
    longest: usize,
}

/// A text without secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redacted {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many stretches of it were masked; one that began in an earlier piece is counted there.
    pub places: u32,
}

/// The end of a text so far, which may be the beginning of a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Carry {
    bytes: Vec<u8>,
    /// How many of them belong to a secret that began before.
    covered: usize,
}

impl fmt::Debug for Carry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carry({} bytes)", self.bytes.len())
    }
}

impl Carry {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let covered = u32::try_from(self.covered).expect("a form is far below 4 GiB");
        [&covered.to_le_bytes(), &self.bytes[..]].concat()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (covered, bytes) = bytes.split_first_chunk()?;
        let covered = usize::try_from(u32::from_le_bytes(*covered)).ok()?;
        (covered <= bytes.len()).then(|| Self { bytes: bytes.to_vec(), covered })
    }

    /// What is told of it where the text breaks off: nothing but its length, since it may be most of a secret.
    pub fn masked(&self) -> Redacted {
        let places = u32::from(self.covered < self.bytes.len());
        Redacted { bytes: vec![MASK; self.bytes.len()], places }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forms = self.0.as_ref().map_or(0, |forms| forms.sorted.forms.len());
        write!(f, "Redactor({forms} forms)")
    }
}

impl Redactor {
    /// Whether it is this one, and not one made later of other secrets.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(this), Some(other)) => Arc::ptr_eq(this, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// Knows those of these secrets that are long enough, up to [`SECRET_BYTES_MAX`].
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let lengths = SECRET_BYTES_MIN..=SECRET_BYTES_MAX;
        let secrets = secrets.into_iter().filter(|secret| lengths.contains(&secret.len()));
        let secrets: BTreeSet<&str> = secrets.collect();
        Self((!secrets.is_empty()).then(|| Arc::new(Forms::of(&secrets))))
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a piece of a text, before which nothing waits, stays as it is: no secret is in it, and none may begin at
    /// its end if the text goes on.
    pub fn is_clean(&self, piece: &[u8], goes_on: bool) -> bool {
        let Some(forms) = &self.0 else { return true };
        let begins = || goes_on && forms.begins_in(piece) < piece.len();
        !(forms.any.is_match(piece) || forms.broken.is_match(piece) || begins())
    }

    /// The next piece of a text, after what waits from the one before; if it goes on, some of its end may wait.
    pub fn piece(&self, carry: &mut Carry, piece: &[u8], goes_on: bool) -> Redacted {
        let Carry { mut bytes, covered } = std::mem::take(carry);
        bytes.extend_from_slice(piece);
        let found = self.0.as_ref().map_or_else(Vec::new, |forms| forms.found(&bytes));
        let found = with_earlier(covered, found);
        let cut = match &self.0 {
            Some(forms) if goes_on => forms.begins_in(&bytes),
            _ => bytes.len(),
        };
        let waits = bytes.split_off(cut);
        let over =
            found.iter().find(|place| place.start < cut && place.end > cut).map(|place| place.end - cut);
        *carry = Carry { bytes: waits, covered: if cut == 0 { covered } else { over.unwrap_or_default() } };
        let here = found.iter().filter(|place| place.start < cut);
        let earlier = usize::from(covered > 0 && cut > 0);
        let places = u32::try_from(here.clone().count() - earlier).expect("a piece is far below 4 GiB");
        for place in here {
            bytes[place.start..place.end.min(cut)].fill(MASK);
        }
        Redacted { bytes, places }
    }

    /// A whole text without secrets. `None`: there is none in it.
    pub fn redact(&self, text: &[u8]) -> Option<Redacted> {
        (!self.is_clean(text, false)).then(|| self.piece(&mut Carry::default(), text, false))
    }

    /// Takes the secrets out of a text. Whether there were any.
    pub fn text(&self, text: &mut String) -> bool {
        let Some(redacted) = self.redact(text.as_bytes()) else { return false };
        *text = String::from_utf8(redacted.bytes)
            .expect("a form of a text is masked from its first byte to its last");
        true
    }
}

/// What is covered from the beginning on, before and with what was found.
fn with_earlier(covered: usize, mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    if covered == 0 {
        return found;
    }
    let apart = found.iter().position(|place| place.start >= covered).unwrap_or(found.len());
    let end = found[..apart].iter().map(|place| place.end).fold(covered, usize::max);
    found.splice(..apart, std::iter::once(0..end));
    found
}

impl Forms {
    fn of(secrets: &BTreeSet<&str>) -> Self {
        let base64: BTreeSet<Vec<u8>> = secrets.iter().flat_map(|secret| base64(secret)).collect();
        let forms: BTreeSet<Vec<u8>> =
            secrets.iter().flat_map(|secret| forms(secret)).chain(base64.iter().cloned()).collect();
        let any = automaton(&forms, MatchKind::LeftmostFirst, None);
        let all = automaton(&forms, MatchKind::Standard, Some(AhoCorasickKind::ContiguousNFA));
        Self { any, all, sorted: Sorted::of(forms), broken: Broken::of(base64) }
    }

    /// The stretches that belong to a secret, in their order. Those that only touch are two.
    fn found(&self, text: &[u8]) -> Vec<Range<usize>> {
        // As a rule there is none, and a secret only seemed to begin at an end.
        let whole =
            self.any.is_match(text).then(|| self.all.find_overlapping_iter(text)).into_iter().flatten();
        let mut each: Vec<_> = whole.map(|one| one.range()).collect();
        each.extend(self.broken.found(text));
        each.sort_by_key(|one| one.end);
        let mut found: Vec<Range<usize>> = Vec::new();
        for one in each {
            let mut start = one.start;
            while let Some(last) = found.pop_if(|last| last.end > start) {
                start = start.min(last.start);
            }
            found.push(start..one.end);
        }
        found
    }

    /// Where the earliest secret may begin that the text does not have the end of; its length if none may. Never right
    /// behind a backslash, which says what the next byte is.
    fn begins_in(&self, text: &[u8]) -> usize {
        let begins = self.sorted.begins_in(text).min(self.broken.begins_in(text));
        begins - usize::from(text[..begins].ends_with(b"\\"))
    }
}

impl Sorted {
    fn of(forms: BTreeSet<Vec<u8>>) -> Self {
        let longest = forms.iter().map(Vec::len).max().unwrap_or_default();
        Self { forms: forms.into_iter().collect(), longest }
    }

    /// Where the earliest form may begin that the text does not have the end of; its length if none may.
    fn begins_in(&self, text: &[u8]) -> usize {
        let earliest = text.len().saturating_sub(self.longest - 1);
        (earliest..text.len()).find(|&at| self.has_beginning(&text[at..])).unwrap_or(text.len())
    }

    /// Whether a form begins so, and has more.
    fn has_beginning(&self, beginning: &[u8]) -> bool {
        let at = self.forms.partition_point(|form| form.as_slice() <= beginning);
        self.forms.get(at).is_some_and(|form| form.starts_with(beginning))
    }
}

fn automaton(
    forms: &BTreeSet<Vec<u8>>,
    kind: MatchKind,
    implementation: Option<AhoCorasickKind>,
) -> AhoCorasick {
    let mut builder = AhoCorasick::builder();
    builder.match_kind(kind).kind(implementation).build(forms).expect("forms of bounded length fit")
}

/// All ways in which a secret may be written, but for base64.
fn forms(secret: &str) -> BTreeSet<Vec<u8>> {
    let json = json(secret);
    let mut forms = BTreeSet::from([secret.to_owned(), self::json(&json), json.replace('/', "\\/"), json]);
    forms.extend([hex::encode(secret), hex::encode_upper(secret)]);
    // What may stay as it is, by RFC 3986 and by JavaScript.
    for kept in ["-._~", "-._~!'()*"] {
        forms.extend([true, false].map(|upper| percent(secret, kept, upper)));
    }
    forms.into_iter().map(String::into_bytes).collect()
}

/// A secret in base64, wherever it begins in what is encoded, without the characters that have bits of what is before or
/// after.
fn base64(secret: &str) -> BTreeSet<Vec<u8>> {
    let alphabets = [STANDARD_NO_PAD, URL_SAFE_NO_PAD];
    let ways = alphabets.iter().flat_map(|alphabet| [0, 1, 2].map(|skipped| (alphabet, skipped)));
    let form = |(alphabet, skipped): (&GeneralPurpose, usize)| {
        let written = alphabet.encode([&[0; 2][..skipped], secret.as_bytes()].concat());
        let whole = (skipped + secret.len()) * 8 / 6;
        written.as_bytes()[(skipped * 8).div_ceil(6)..whole].to_vec()
    };
    ways.map(form).collect()
}

/// A text as JSON writes it between quotes.
fn json(text: &str) -> String {
    let mut written = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => written.extend(['\\', c]),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            c if c < ' ' => write!(written, "\\u{:04x}", u32::from(c)).expect("a string takes all"),
            c => written.push(c),
        }
    }
    written
}

/// A text with all but letters, digits and `kept` in hex, in upper or lower case.
fn percent(text: &str, kept: &str, upper: bool) -> String {
    let mut written = String::new();
    for &byte in text.as_bytes() {
        let plain = byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte);
        match (plain, upper) {
            (true, _) => written.push(char::from(byte)),
            (false, true) => write!(written, "%{byte:02X}").expect("a string takes all"),
            (false, false) => write!(written, "%{byte:02x}").expect("a string takes all"),
        }
    }
    written
}

/// The secrets of one process, by who knows them, and their redactor.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    by_source: BTreeMap<String, BTreeSet<String>>,
    /// How many sources know each.
    sources: BTreeMap<String, usize>,
    redactor: Redactor,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("redactor", &self.redactor).finish_non_exhaustive()
    }
}

impl Known {
    fn set(&mut self, source: &str, secrets: BTreeSet<String>) {
        let before = self.by_source.remove(source).unwrap_or_default();
        let mut changed = false;
        for new in secrets.difference(&before) {
            let sources = self.sources.entry(new.clone()).or_default();
            changed |= *sources == 0;
            *sources += 1;
        }
        for gone in before.difference(&secrets) {
            let sources = self.sources.get_mut(gone).expect("its source was counted");
            *sources -= 1;
            if *sources == 0 {
                self.sources.remove(gone);
                changed = true;
            }
        }
        if !secrets.is_empty() {
            self.by_source.insert(source.to_owned(), secrets);
        }
        // A thousand tasks may have one credential.
        if changed {
            self.redactor = Redactor::new(self.sources.keys().map(String::as_str));
        }
    }
}

impl Secrets {
    /// What `source` knows from now on, in place of what it knew before.
    pub fn set(&self, source: &str, secrets: impl IntoIterator<Item = String>) {
        let secrets: BTreeSet<String> =
            secrets.into_iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN).collect();
        if self.0.read().unwrap_or_else(PoisonError::into_inner).by_source.get(source) != Some(&secrets) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).set(source, secrets);
        }
    }

    /// What `source` knows from now on besides what it knew before.
    pub fn add(&self, source: &str, secret: &str) {
        let has = |known: &Known| known.by_source.get(source).is_some_and(|all| all.contains(secret));
        let short = secret.len() < SECRET_BYTES_MIN;
        if short || has(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        // Read again, since two may add at once.
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = known.by_source.get(source).cloned().unwrap_or_default();
        all.insert(secret.to_owned());
        known.set(source, all);
    }

    /// What knows all of them as they are now.
    pub fn redactor(&self) -> Redactor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).redactor.clone()
    }
}

#[cfg(test)]
mod tests;
