//! The search for the canary in all that is left, by its bytes and as base64.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Row;

/// What is looked for.
#[derive(Debug)]
pub(super) struct Hunt {
    needles: Vec<Vec<u8>>,
    provider: String,
}

impl Hunt {
    /// The canary, and the base64 of it wherever it may begin in a longer text.
    pub(super) fn for_canary(canary: &str, provider: &str) -> Self {
        let shifted = |shift: usize| {
            let text = STANDARD.encode([&vec![b'x'; shift], canary.as_bytes()].concat());
            // What surrounds it decides the first and the last characters.
            text.as_bytes()[4..text.len() - 4].to_vec()
        };
        let needles = vec![canary.as_bytes().to_vec(), shifted(0), shifted(1), shifted(2)];
        Self { needles, provider: provider.to_owned() }
    }

    /// Whether it is in these bytes.
    pub(super) fn finds(&self, bytes: &[u8]) -> bool {
        self.needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
    }

    /// A row for some bytes, which must be some.
    pub(super) fn bytes(&self, place: &str, bytes: &[u8]) -> Row {
        let found = self.finds(bytes).then(|| place.to_owned());
        self.row(place, bytes.len(), found.as_slice())
    }

    /// A row for every file below a folder.
    pub(super) fn folder(&self, place: &str, folder: &Path) -> anyhow::Result<Row> {
        let (mut size, mut found) = (0, Vec::new());
        for file in files(folder)? {
            let bytes = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
            size += bytes.len();
            if self.finds(&bytes) {
                found.push(file.display().to_string());
            }
        }
        Ok(self.row(place, size, &found))
    }

    fn row(&self, place: &str, size: usize, found: &[String]) -> Row {
        let failed = match found {
            [] => "there was nothing to search".to_owned(),
            found => format!("it is in {}", found.join(", ")),
        };
        let (tried, held) = (format!("the canary: {place}"), format!("not in its {size} bytes"));
        Row::of(&self.provider, "canary", &tried, found.is_empty() && size > 0, (&held, &failed))
    }
}

/// The plain files below a folder.
pub(super) fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            files.extend(self::files(&path)?);
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn it_is_found_as_it_is_and_in_base64_wherever_it_begins() {
        let hunt = Hunt::for_canary("made-up-canary-1234", "sandbox");
        assert!(hunt.finds(b"..made-up-canary-1234.."));
        for before in ["", "a", "ab", "abc"] {
            assert!(hunt.finds(STANDARD.encode(format!("{before}made-up-canary-1234 and more")).as_bytes()));
        }
        assert!(!hunt.finds(b"made-up-canary-123"));
        assert_eq!(hunt.bytes("nothing", b"").verdict, Verdict::Failed);
        assert_eq!(hunt.bytes("it", b"made-up-canary-1234").verdict, Verdict::Failed);
        assert_eq!(hunt.bytes("not it", b"x").verdict, Verdict::Held);
    }
}
