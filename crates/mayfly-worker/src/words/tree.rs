//! Reads a repository's working tree and nothing beside it, whatever its links say.
//!
//! Every name is opened from the tree's own folder by `openat2`, which goes no further than that: a link inside is
//! followed, one that leads out is an error. Nothing but plain files is read. Bounds: [`FILE_BYTES_MAX`]
//! a file, [`ENTRIES_MAX`] a folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The most entries of one folder.
const ENTRIES_MAX: usize = 100_000;
/// The most bytes of one file.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A working tree.
#[derive(Debug)]
pub(crate) struct Tree(OwnedFd);

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    /// Whether it is a folder itself: a link is none.
    pub(crate) is_folder: bool,
}

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// It is not there.
    #[error("is not there")]
    Absent,
    /// It is there, and what it leads to is not in the tree.
    #[error("leads out of the repository")]
    Outside,
    /// It has more than [`FILE_BYTES_MAX`].
    #[error("is larger than 1 MiB")]
    Large,
    /// It has more than [`ENTRIES_MAX`].
    #[error("holds too much to look through")]
    Full,
    /// Neither a plain file nor what was looked for.
    #[error("is no plain file")]
    Odd,
    /// The system said no.
    #[error("cannot be read")]
    System(#[source] io::Error),
}

impl From<Errno> for Unread {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::Absent,
            Errno::XDEV => Self::Outside,
            Errno::NOTDIR | Errno::NXIO => Self::Odd,
            other => Self::System(other.into()),
        }
    }
}

impl Tree {
    pub(crate) fn at(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, folder, flags, Mode::empty())?))
    }

    /// The bytes of a file.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, Unread> {
        let file = self.open(path, OFlags::NONBLOCK)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(Unread::Odd);
        }
        let mut bytes = Vec::new();
        File::from(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Unread::System)?;
        if bytes.len() as u64 > FILE_BYTES_MAX { Err(Unread::Large) } else { Ok(bytes) }
    }

    /// What a folder holds, by name; the empty path is the tree itself.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<Entry>, Unread> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mut folder = Dir::new(self.open(path, OFlags::DIRECTORY)?)?;
        let mut entries = Vec::new();
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                let is_folder = entry.file_type() == FileType::Directory;
                if entries.len() == ENTRIES_MAX {
                    return Err(Unread::Full);
                }
                entries.push(Entry { name: name.to_owned(), is_folder });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Unread> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.0, path, flags, Mode::empty(), beneath)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Covers S06: a link inside is followed, and none that leads out, however it does.
    #[test]
    fn nothing_outside_of_the_tree_is_read() {
        let place = tempfile::tempdir().expect("a folder");
        let top = place.path().join("tree");
        fs::create_dir_all(top.join("docs")).expect("a folder");
        fs::write(place.path().join("canary"), "canary").expect("a file");
        fs::write(top.join("AGENTS.md"), "words").expect("a file");
        symlink("AGENTS.md", top.join("CLAUDE.md")).expect("a link");
        symlink("../canary", top.join("up.md")).expect("a link");
        symlink(place.path().join("canary"), top.join("absolute.md")).expect("a link");
        symlink("/proc/self/environ", top.join("environ.md")).expect("a link");
        symlink("..", top.join("docs/out")).expect("a link");
        symlink("../..", top.join("docs/further")).expect("a link");
        let tree = Tree::at(&top).expect("the tree");

        assert_eq!(tree.read("CLAUDE.md".as_ref()).expect("its words"), b"words");
        assert_eq!(tree.read("docs/out/AGENTS.md".as_ref()).expect("its words"), b"words");
        let out = ["up.md", "absolute.md", "environ.md", "docs/further/canary", "../canary", "/proc/version"];
        for path in out {
            let read = tree.read(path.as_ref());
            assert!(matches!(read, Err(Unread::Outside)), "{path}: {read:?}");
        }
        assert!(matches!(tree.list("docs/further".as_ref()), Err(Unread::Outside)));
    }

    /// Covers S12: neither size nor kind of a file stops the reader.
    #[test]
    fn a_file_that_is_none_or_too_large_is_refused() {
        let place = tempfile::tempdir().expect("a folder");
        let file = File::create(place.path().join("large.md")).expect("a file");
        file.set_len(100 << 20).expect("a sparse file");
        let fifo = place.path().join("pipe.md");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        let tree = Tree::at(place.path()).expect("the tree");
        assert!(matches!(tree.read("large.md".as_ref()), Err(Unread::Large)));
        assert!(matches!(tree.read("pipe.md".as_ref()), Err(Unread::Odd)));
        assert!(matches!(tree.read("none.md".as_ref()), Err(Unread::Absent)));
    }
}
