//! A tree as the bytes of a layer: a tar, packed by gzip, in which nothing is left to chance.
//!
//! Entries are in the order of their paths, each after the folders that it is in. There is one time for all of them, no name of
//! a user or a group, and nothing that is the packer's own. Read back, it is the same tree.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::gone::{Watch, given_up};
use crate::root::{self, At};
use crate::tree::{BadTree, Content, Data, Entry, Tree};

/// The time of everything in an image: the beginning of 2000. Some programs do not take one before 1980.
pub(crate) const TIME: u64 = 946_684_800;
/// The same, as OCI writes it.
pub(crate) const TIME_TEXT: &str = "2000-01-01T00:00:00Z";
/// How often it is said how far it is.
const TELL_EVERY_BYTES: u64 = 4 << 20;
/// A mark of the packer's system, for none.
const NO_SYSTEM: u8 = 255;

/// A layer that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// The SHA-256 of what was written, in hex.
    pub(crate) sha256: String,
    /// How long that is.
    pub(crate) bytes: u64,
    /// The SHA-256 of the tar alone.
    pub(crate) tar_sha256: String,
}

/// Writes a tree.
pub(crate) fn write<W: Write>(tree: &Tree, to: W, watch: Watch<'_>) -> io::Result<Written> {
    let packed = GzBuilder::new().operating_system(NO_SYSTEM).write(Counted::new(to), Compression::default());
    let told = Told { to: Counted::new(packed), next: 0, watch };
    let mut told = write_tar(tree, told)?;
    told.flush()?;
    let Counted { to: packed, hash: of_tar, .. } = told.to;
    let Counted { to: mut out, hash, bytes } = GzEncoder::finish(packed)?;
    out.flush()?;
    let hex = |hash: Sha256| hex::encode(hash.finalize());
    Ok(Written { sha256: hex(hash), bytes, tar_sha256: hex(of_tar) })
}

/// Writes the tar alone.
pub(crate) fn write_tar<W: Write>(tree: &Tree, to: W) -> io::Result<W> {
    let mut builder = Builder::new(to);
    for (path, entry) in tree.entries() {
        let mut header = header(entry);
        match &entry.content {
            Content::Folder => builder.append_data(&mut header, format!("{path}/"), io::empty())?,
            Content::File(data) => builder.append_data(&mut header, path, data.read())?,
            Content::Link(to) | Content::Same(to) => builder.append_link(&mut header, path, to)?,
        }
    }
    builder.into_inner()
}

/// Adds what a layer has to a tree. What it is unpacked to is in `scratch`, in a file without a name.
pub(crate) fn add_to(tree: &mut Tree, layer: File, scratch: &Path) -> Result<(), BadTree> {
    let mut tar = tempfile::tempfile_in(scratch).map_err(BadTree::Unreadable)?;
    io::copy(&mut GzDecoder::new(BufReader::new(layer)), &mut tar).map_err(BadTree::Unreadable)?;
    let tar = Arc::new(tar);
    let mut read = Archive::new(At::begin(&tar));
    for entry in read.entries().map_err(BadTree::Unreadable)? {
        let entry = entry.map_err(BadTree::Unreadable)?;
        let Some(path) = root::path(&entry.path_bytes())? else { continue };
        let Some(entry) = root::found(&path, &entry, &tar)? else { continue };
        let is_folder = |entry: &Entry| matches!(entry.content, Content::Folder);
        // Each layer names the folders that it is in.
        if !(is_folder(&entry) && tree.get(&path).is_some_and(is_folder)) {
            tree.add(&path, entry)?;
        }
    }
    Ok(())
}

fn header(entry: &Entry) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(match entry.content {
        Content::Folder => EntryType::Directory,
        Content::File(_) => EntryType::Regular,
        Content::Link(_) => EntryType::Symlink,
        Content::Same(_) => EntryType::Link,
    });
    header.set_size(if let Content::File(data) = &entry.content { Data::len(data) } else { 0 });
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(TIME);
    header
}

/// Knows what was written through it.
struct Counted<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Counted<W> {
    fn new(to: W) -> Self {
        Self { to, hash: Sha256::new(), bytes: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Says how far it is.
struct Told<'a, W> {
    to: Counted<W>,
    next: u64,
    watch: Watch<'a>,
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.to.bytes >= self.next {
            self.next = self.to.bytes + TELL_EVERY_BYTES;
            if !(self.watch)(&format!("{} MB", self.to.bytes / 1_000_000)) {
                return Err(given_up());
            }
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
