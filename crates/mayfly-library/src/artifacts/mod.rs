//! What a task is to leave besides its work, such as what it built: files chosen by patterns, in one archive.
//!
//! The archive is a tar as the one of a resource is ([`pack`](crate::pack)): plain files by path, and nothing else; it is read
//! as a stream, since it can be large, and taken only if its files would make those very bytes. What could be a credential by
//! its name is never in one ([`is_private`]).
//!
//! Bounds: [`FILES_MAX`] files, [`BYTES_MAX`] bytes.

mod pattern;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use tar::{Builder, EntryType, Header};

pub use pattern::Pattern;
pub use read::{BadArtifacts, Member, check, find, list, unpack};

/// The most files of one task.
pub const FILES_MAX: usize = 10_000;
/// The most bytes of them.
pub const BYTES_MAX: u64 = 1 << 30;
/// The longest archive: each file takes a head and is padded, and a long name takes as much again.
pub const ARCHIVE_BYTES_MAX: u64 = BYTES_MAX + FILES_MAX as u64 * 4096 + 1024;
/// The longest path, and the most folders of one.
const PATH_BYTES_MAX: usize = 1024;
const DEPTH_MAX: usize = 64;

/// Folders with what others should not have, and files.
const PRIVATE_FOLDERS: [&str; 8] =
    [".git", ".ssh", ".aws", ".gnupg", ".kube", ".docker", ".claude", ".azure"];
const PRIVATE_FILES: [&str; 11] = [
    ".npmrc",
    ".pypirc",
    ".netrc",
    "_netrc",
    ".claude.json",
    ".git-credentials",
    ".credentials.json",
    ".yarnrc.yml",
    ".pgpass",
    ".env",
    ".envrc",
];
/// What the names of others begin with.
const PRIVATE_PREFIXES: [&str; 5] = [".env.", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"];

/// Whether a file can be in an archive: a path of plain parts, of printable characters.
pub fn is_plain(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.chars().any(|c| c.is_control() || c == '\\')
    };
    path.len() <= PATH_BYTES_MAX && path.split('/').all(plain) && path.split('/').count() <= DEPTH_MAX
}

/// Whether a path is that of a repository's own files, or of what programs keep their credentials in.
pub fn is_private(path: &str) -> bool {
    let path = path.to_lowercase();
    let mut parts = path.rsplit('/');
    let file = parts.next().unwrap_or_default();
    PRIVATE_FILES.contains(&file)
        || PRIVATE_PREFIXES.iter().any(|prefix| file.starts_with(prefix))
        || PRIVATE_FOLDERS.contains(&file)
        || parts.any(|part| PRIVATE_FOLDERS.contains(&part))
}

/// Writes an archive, file by file, in the order of their paths.
pub struct Writer<W: io::Write>(Builder<W>);

impl<W: io::Write> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer(…)")
    }
}

impl<W: io::Write> Writer<W> {
    /// Begins one.
    pub fn new(to: W) -> Self {
        Self(Builder::new(to))
    }

    /// Appends a file of `bytes` bytes.
    ///
    /// # Errors
    /// Also if `content` has fewer; of more, nothing is read.
    pub fn append(
        &mut self,
        path: &str,
        executable: bool,
        bytes: u64,
        content: impl io::Read,
    ) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        let mut counted = Counted { content: content.take(bytes), left: bytes };
        self.0.append_data(&mut header, path, &mut counted)?;
        if counted.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        Ok(())
    }

    /// Ends it.
    pub fn end(self) -> io::Result<W> {
        self.0.into_inner()
    }
}

struct Counted<R> {
    content: R,
    left: u64,
}

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Finds paths that cannot stand beside each other on every system: one is a folder of the other, or they are the same but for
/// case.
#[derive(Debug, Default)]
struct Beside(BTreeMap<String, (String, bool)>);

impl Beside {
    /// Adds one; `Err`: what it clashes with.
    fn add(&mut self, path: &str) -> Result<(), String> {
        let folders = path.match_indices('/').map(|(at, _)| (&path[..at], true));
        for (path, is_folder) in folders.chain([(path, false)]) {
            let known = self.0.entry(path.to_lowercase()).or_insert_with(|| (path.to_owned(), is_folder));
            if known.0 != path || known.1 != is_folder || !is_folder && known.1 {
                return Err(known.0.clone());
            }
        }
        Ok(())
    }
}
