//! What of a repository was left out, as the user is told of it.
//!
//! Names and keys are the repository's: shortened, and as many as the bounds [`FILES_MAX`] and [`PARTS_MAX`] say; of
//! files that come later only their number is kept.

use std::collections::BTreeMap;
use std::path::Path;

use mayfly_wire::worker::Report;

use crate::claude::interpret::shorten;

/// The most files that are named.
const FILES_MAX: usize = 100;
/// The most parts of one file that are named.
const PARTS_MAX: usize = 50;

/// Files, each with the parts of it that were left out; none is all of it.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    named: BTreeMap<String, Vec<String>>,
    /// The first of which all was left out for a reason, with that.
    whole: Option<String>,
    /// How often one more could not be named.
    more: usize,
}

impl Ignored {
    /// A file of which nothing counts, for a reason if there is more to say than that.
    pub(crate) fn whole(&mut self, file: &Path, why: &str) {
        if !why.is_empty() {
            self.whole.get_or_insert_with(|| shorten(&format!("{}: {why}", file.display())));
        }
        self.parts(file, [why.to_owned()]);
    }

    /// Parts of a file.
    pub(crate) fn parts(&mut self, file: &Path, parts: impl IntoIterator<Item = String>) {
        let mut parts = parts.into_iter().filter(|part| !part.is_empty()).peekable();
        let file = shorten(&file.to_string_lossy());
        if self.named.len() == FILES_MAX && !self.named.contains_key(&file) {
            self.more += 1;
            return;
        }
        let known = self.named.entry(file).or_default();
        while known.len() < PARTS_MAX {
            let Some(part) = parts.next().map(|part| shorten(&part)) else { return };
            if !known.contains(&part) {
                known.push(part);
            }
        }
        if parts.peek().is_some() && known.len() == PARTS_MAX {
            known.push("and more".to_owned());
        }
    }

    /// The first file of which all was left out for a reason, with that.
    pub(crate) fn first_whole(&self) -> Option<&str> {
        self.whole.as_deref()
    }

    pub(crate) fn reports(self) -> Vec<Report> {
        let named = self.named.into_iter();
        let mut reports: Vec<_> = named.map(|(file, parts)| Report::Ignored { file, parts }).collect();
        if self.more > 0 {
            let text = format!("{} more parts or files of the repository do not count", self.more);
            reports.push(Report::Warning { text });
        }
        reports
    }
}
