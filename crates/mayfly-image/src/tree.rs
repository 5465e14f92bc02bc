//! Files by path, as a layer has them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// What marks a file that is to be gone, in a layer on top of others.
const WHITEOUT: &str = ".wh.";
/// The bits of a mode that a layer keeps: with the sticky one, and without those that make a program another's.
const MODE: u32 = 0o1777;
/// The longest path.
const PATH_BYTES_MAX: usize = 4096;

/// Files by path, in order.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<String, Entry>);

/// One of them.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its permissions.
    pub mode: u32,
    /// Its user, by number.
    pub uid: u32,
    /// Its group, by number.
    pub gid: u32,
    /// What it is.
    pub content: Content,
}

/// What a path is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A folder.
    Folder,
    /// A file.
    File(Data),
    /// A symbolic link to there.
    Link(String),
    /// The same file as the one of that path, which comes before it.
    Same(String),
}

/// A part of a file.
#[derive(Debug, Clone)]
pub enum Data {
    /// It, in memory.
    Bytes(Vec<u8>),
    /// Of a file on the disk, from that byte on, so many.
    Part(Arc<File>, u64, u64),
}

impl Entry {
    /// A folder of root's.
    pub fn folder() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, content: Content::Folder }
    }

    /// A file of root's.
    pub fn file(mode: u32, data: Data) -> Self {
        Self { mode, uid: 0, gid: 0, content: Content::File(data) }
    }

    /// The same of another owner.
    #[must_use]
    pub fn of(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }
}

impl Tree {
    /// Adds a path, without what would make a program another's than who runs it.
    pub fn add(&mut self, path: &str, mut entry: Entry) -> Result<(), BadTree> {
        check(path)?;
        entry.mode &= MODE;
        match self.0.insert(path.to_owned(), entry) {
            None => Ok(()),
            Some(_) => Err(BadTree::name(path, "is there twice")),
        }
    }

    /// The entry of a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    /// Puts another entry in the place of a path's, or adds it.
    pub fn set(&mut self, path: &str, entry: Entry) -> Result<(), BadTree> {
        self.0.remove(path);
        self.add(path, entry)
    }

    /// All of them, in the order of their paths.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_str(), entry))
    }
}

impl Tree {
    /// Checks that what is below a path is in a folder: nobody who unpacks it is led elsewhere by a link.
    pub(crate) fn check_folders(&self) -> Result<(), BadTree> {
        for path in self.0.keys() {
            let folders = path.match_indices('/').filter_map(|(at, _)| self.0.get(&path[..at]));
            if folders.into_iter().any(|above| !matches!(above.content, Content::Folder)) {
                return Err(BadTree::name(path, "is below what is no folder"));
            }
        }
        Ok(())
    }
}

/// Refuses a name that is none in every layer and for every reader.
fn check(path: &str) -> Result<(), BadTree> {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let why = match () {
        () if path.len() > PATH_BYTES_MAX => "is too long",
        () if !path.split('/').all(is_plain) => "does not lead to one place below the root",
        () if path.contains('\0') => "has a zero byte in it",
        () if path.split('/').any(|part| part.starts_with(WHITEOUT)) => {
            "would take another file away: no name in a layer may begin with `.wh.`"
        }
        () => return Ok(()),
    };
    Err(BadTree::name(path, why))
}

impl Data {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part(_, _, length) => *length,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads it from its beginning.
    pub fn read(&self) -> impl io::Read {
        Reader { data: self, at: 0 }
    }

    /// All of it.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.read(), &mut bytes)?;
        Ok(bytes)
    }
}

struct Reader<'a> {
    data: &'a Data,
    at: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.data.len() - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = match self.data {
            Data::Bytes(bytes) => {
                let at = usize::try_from(self.at).expect("it is in memory");
                buffer[..wanted].copy_from_slice(&bytes[at..at + wanted]);
                wanted
            }
            Data::Part(file, from, _) => file.read_at(&mut buffer[..wanted], from + self.at)?,
        };
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// Why something cannot be in a layer.
#[derive(Debug, thiserror::Error)]
pub enum BadTree {
    /// A name, or what it stands for.
    #[error("`{path}` cannot be in an image: it {why}")]
    Name {
        /// Its path, fit to be shown.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The archive does not read.
    #[error("cannot read the tree of an image")]
    Unreadable(#[source] io::Error),
    /// There is no room for it, or nobody waits any more.
    #[error("cannot write the file system")]
    Unwritable(#[source] io::Error),
}

impl BadTree {
    pub(crate) fn name(path: &str, why: impl Into<String>) -> Self {
        Self::Name { path: path.escape_debug().to_string(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_everywhere_is_refused() {
        let long = "a/".repeat(3000) + "a";
        let bad = [
            "",
            "/etc",
            "etc/",
            "a//b",
            ".",
            "a/./b",
            "..",
            "a/../b",
            "a\0b",
            ".wh.a",
            "a/.wh..wh..opq",
            &long,
        ];
        for path in bad {
            Tree::default().add(path, Entry::folder()).expect_err(path);
        }
        for path in ["a", "a/b c", "Főtanúsítvány", "a\nb", "..a", "a..", "x.wh."] {
            Tree::default().add(path, Entry::folder()).expect(path);
        }
    }

    #[test]
    fn nothing_is_there_twice_or_makes_a_program_anothers() {
        let mut tree = Tree::default();
        tree.add("su", Entry::file(0o6755, Data::Bytes(Vec::new()))).expect("added");
        tree.add("tmp", Entry { mode: 0o1777, ..Entry::folder() }).expect("added");
        assert_eq!(tree.get("su").map(|entry| entry.mode), Some(0o755));
        assert_eq!(tree.get("tmp").map(|entry| entry.mode), Some(0o1777));
        let twice = tree.add("su", Entry::folder()).expect_err("twice");
        assert_eq!(twice.to_string(), "`su` cannot be in an image: it is there twice");
    }

    #[test]
    fn a_part_of_a_file_is_read_and_a_shorter_file_is_an_error() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(b"0123456789", 0).expect("written");
        let file = Arc::new(file);
        assert_eq!(Data::Part(Arc::clone(&file), 2, 3).bytes().expect("read"), b"234");
        assert_eq!(Data::Part(Arc::clone(&file), 10, 0).bytes().expect("read"), b"");
        Data::Part(file, 8, 3).bytes().expect_err("two bytes are there");
    }
}
