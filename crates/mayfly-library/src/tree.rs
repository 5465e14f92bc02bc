//! The files of one resource: plain ones in plain folders, within bounds.
//!
//! A link is refused, wherever it leads, and so is whatever else is no plain file: what a machine gets is what stands
//! in this folder. Files and folders whose names begin with `.git` are left out, so that a checkout can be dropped in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::problem::Problem;

/// The most files of one resource.
pub const FILES_MAX: usize = 2000;
/// The most bytes of them together.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most folders in it.
pub const FOLDERS_MAX: usize = 2000;
/// How deep they may be.
pub const DEPTH_MAX: usize = 16;
/// The longest path of a file in it.
pub const PATH_BYTES_MAX: usize = 1024;

/// One file of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Its path in the resource, with `/` between the parts.
    pub path: String,
    /// Whether it can be run.
    pub executable: bool,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl File {
    /// Its text, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

/// Whether a file of a resource may be at this path: parts that are plain names, of printable characters.
pub fn is_plain(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.chars().any(|c| c.is_control() || c == '\\')
    };
    path.len() <= PATH_BYTES_MAX && path.split('/').all(plain) && path.split('/').count() <= DEPTH_MAX
}

/// The path of a file, by the order of the paths, that another cannot stand beside on every system: it is a folder of the
/// other's, or is called the same where upper and lower case are. And what is wrong with it.
pub fn clash(files: &[File]) -> Option<(&str, String)> {
    let mut known: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    for file in files {
        let parts = file.path.match_indices('/').map(|(at, _)| (&file.path[..at], true));
        for (path, is_folder) in parts.chain([(file.path.as_str(), false)]) {
            let (other, was_folder) = *known.entry(path.to_lowercase()).or_insert((path, is_folder));
            let shown = other.escape_debug();
            if other != path {
                return Some((&file.path, format!("is called as `{shown}` is but for upper and lower case")));
            }
            if was_folder != is_folder {
                return Some((&file.path, format!("needs `{shown}` to be a folder, and it is a file too")));
            }
        }
    }
    None
}

/// Reads the files below `folder`, by path. In messages it is called `named`.
pub fn read(folder: &Path, named: &str) -> Result<Vec<File>, Problem> {
    let mut reading = Reading { named, files: Vec::new(), bytes_left: BYTES_MAX, folders_left: FOLDERS_MAX };
    reading.folder(folder, "")?;
    reading.files.sort();
    match clash(&reading.files) {
        None => Ok(reading.files),
        Some((path, why)) => Err(reading.problem(path, &format!("{why}: rename one of them"))),
    }
}

fn is_left_out(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".git")
}

/// The path of something below `folder` that [`read`] leaves out; none where there is no folder.
pub(crate) fn left_out(folder: &Path) -> io::Result<Option<String>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_left_out(&name) {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
        if entry.file_type()?.is_dir()
            && let Some(path) = left_out(&entry.path())?
        {
            return Ok(Some(format!("{}/{path}", name.to_string_lossy())));
        }
    }
    Ok(None)
}

struct Reading<'a> {
    named: &'a str,
    files: Vec<File>,
    bytes_left: usize,
    folders_left: usize,
}

impl Reading<'_> {
    fn folder(&mut self, folder: &Path, below: &str) -> Result<(), Problem> {
        let left = self.folders_left.checked_sub(1);
        self.folders_left =
            left.ok_or_else(|| self.problem("", &format!("has more than {FOLDERS_MAX} folders")))?;
        let unreadable = |error| self.problem(below, &format!("cannot be read: {error}"));
        let entries = fs::read_dir(folder).map_err(unreadable)?;
        for entry in entries {
            let entry = entry.map_err(|error| self.problem(below, &format!("cannot be read: {error}")))?;
            let name = entry.file_name();
            let path = if below.is_empty() { String::new() } else { format!("{below}/") };
            let path = format!("{path}{}", name.to_string_lossy());
            if name.to_str().is_none() || !is_plain(&path) {
                let words = format!(
                    "is no path that a resource can have: printable UTF-8 without \\, at most {DEPTH_MAX} folders \
                     deep: rename it"
                );
                return Err(self.problem(&path, &words));
            }
            if is_left_out(&name) {
                continue;
            }
            self.entry(&entry.path(), path)?;
        }
        Ok(())
    }

    fn entry(&mut self, at: &Path, path: String) -> Result<(), Problem> {
        let unreadable = |error| self.problem(&path, &format!("cannot be read: {error}"));
        let kind = fs::symlink_metadata(at).map_err(unreadable)?;
        if kind.is_dir() {
            return self.folder(at, &path);
        }
        if kind.is_symlink() {
            return Err(self.problem(&path, "is a link: put the file itself there"));
        }
        if !kind.is_file() {
            return Err(self.problem(&path, "is no plain file: remove it"));
        }
        if self.files.len() == FILES_MAX {
            return Err(self.problem("", &format!("has more than {FILES_MAX} files")));
        }
        let file = fs::File::open(at).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(self.bytes_left as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let Some(left) = self.bytes_left.checked_sub(bytes.len()) else {
            return Err(
                self.problem(&path, &format!("makes the resource larger than {} MiB", BYTES_MAX >> 20))
            );
        };
        self.bytes_left = left;
        self.files.push(File { path, executable: is_executable(&kind), bytes });
        Ok(())
    }

    fn problem(&self, path: &str, words: &str) -> Problem {
        let file = if path.is_empty() { self.named.to_owned() } else { format!("{}/{path}", self.named) };
        Problem::new(file, words)
    }
}

/// Whether somebody may run it.
pub(crate) fn is_executable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

/// Gives a file or a folder this mode, whatever the process's own mask is.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused(make: impl FnOnce(&Path)) -> String {
        let place = tempfile::tempdir().expect("a folder");
        make(place.path());
        read(place.path(), "skill/_global/x").expect_err("refused").to_string()
    }

    #[test]
    fn files_come_by_path_and_with_their_run_bit() {
        let place = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(place.path().join("b/.git")).expect("folders");
        fs::create_dir(place.path().join(".git")).expect("a folder");
        fs::write(place.path().join(".git/config"), "x").expect("a file");
        for (name, text) in [("b/two", "2"), ("a", "1"), ("b/.git/x", "3")] {
            fs::write(place.path().join(name), text).expect("a file");
        }
        let files = read(place.path(), "x").expect("files");
        let paths: Vec<_> =
            files.iter().map(|file| (file.path.as_str(), file.text(), file.executable)).collect();
        assert_eq!(paths, [("a", Some("1"), false), ("b/two", Some("2"), false)]);
    }

    /// Covers S06 and S46 for links, which may also lead in circles.
    #[test]
    fn a_link_is_refused_wherever_it_leads() {
        for to in ["..", ".", "/etc/passwd", "nowhere", "loop"] {
            let words = refused(|place| symlink(to, place.join("loop")).expect("a link"));
            assert!(words.starts_with("skill/_global/x/loop: is a link"), "{words}");
        }
    }

    /// Covers S10: a name that could be taken for something else is refused, and shown so that it cannot.
    #[test]
    fn an_odd_file_name_is_refused() {
        for name in ["a\nb", "a\u{1b}[2Jb", "a\\b"] {
            let words = refused(|place| fs::write(place.join(name), "").expect("a file"));
            assert!(words.contains("is no path") && !words.contains(['\n', '\u{1b}']), "{words:?}");
        }
    }

    /// Covers S46: two files that are one on a system where upper and lower case are the same.
    #[test]
    fn names_that_differ_in_case_alone_are_refused() {
        let words = refused(|place| {
            for name in ["SKILL.md", "skill.md"] {
                fs::write(place.join(name), "").expect("a file");
            }
        });
        assert_eq!(
            words,
            "skill/_global/x/skill.md: is called as `SKILL.md` is but for upper and lower case: rename one of them"
        );
    }

    /// Covers S12, S46: too many bytes, in one file, in several or in one that is sparse, and too many files or folders, are refused.
    #[test]
    fn what_is_too_large_is_refused() {
        let words = refused(|place| {
            let file = fs::File::create(place.join("SKILL.md")).expect("a file");
            file.set_len(1 << 40).expect("a sparse file");
        });
        assert!(words.contains("x/SKILL.md: makes the resource larger than 16 MiB"), "{words}");
        let words = refused(|place| {
            for name in ["a", "b"] {
                fs::write(place.join(name), vec![b'x'; 9 << 20]).expect("a file");
            }
        });
        assert!(words.contains(": makes the resource larger than 16 MiB"), "{words}");
        let words = refused(|place| {
            (0..=FOLDERS_MAX).for_each(|at| fs::create_dir(place.join(at.to_string())).expect("a folder"));
        });
        assert!(words.contains("more than 2000 folders"), "{words}");
        let deep = ["d"; DEPTH_MAX + 1].join("/");
        let words = refused(|place| fs::create_dir_all(place.join(&deep)).expect("folders"));
        assert!(words.contains("at most 16 folders deep: rename it"), "{words}");
        let words = refused(|place| {
            (0..=FILES_MAX).for_each(|at| fs::write(place.join(at.to_string()), "").expect("a file"));
        });
        assert!(words.contains("more than 2000 files"), "{words}");
    }

    #[test]
    fn a_pipe_is_refused_and_not_read() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let words = refused(|place| {
            mknodat(CWD, place.join("p"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        });
        assert!(words.contains("x/p: is no plain file"), "{words}");
    }
}
