//! A tree as a file system that is only read: EROFS, which Linux has had since 5.4.
//!
//! ```text
//! block 0          the superblock, at byte 1024
//! from block 1     inodes of 64 bytes each, the root's first
//! after these      what each of them holds, in the same order, each from a block's beginning
//! ```
//!
//! Nothing is packed, so a file is read from where it lies. The form is that of the kernel's `erofs_fs.h`: inodes of the
//! extended kind with their data in one piece, and folders whose blocks have entries, sorted by name, before the names.
//! The same tree is the same bytes.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use crate::gone::{Watch, given_up};
use crate::layer::TIME;
use crate::tree::{BadTree, Content, Data, Entry, Tree};

const BLOCK_BYTES: usize = 4096;
const BLOCK_BITS: u8 = 12;
/// Where the superblock is in the first block.
const SUPER_AT: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const INODE_BYTES: usize = 64;
/// An inode's number counts places of this size from the file system's beginning.
const PLACE_BYTES: usize = 32;
/// Of the extended kind, its data in one piece.
const FORMAT: u16 = 1;
/// An entry of a folder, before its name.
const ENTRY_BYTES: usize = 12;
/// The longest name.
const NAME_BYTES_MAX: usize = 255;
const VOLUME: &[u8] = b"mayfly";
/// How often it is said how far it is.
const TELL_EVERY_BYTES: u64 = 16 << 20;

/// Writes a tree.
pub(crate) fn write(tree: &Tree, to: impl Write, watch: Watch<'_>) -> Result<(), BadTree> {
    let inodes = Inodes::of(tree)?;
    let mut out = Out { to: BufWriter::new(to), bytes: 0, next: 0, watch };
    write_all(&inodes, &mut out).map_err(BadTree::Unwritable)
}

fn write_all(inodes: &Inodes<'_>, out: &mut Out<'_, impl Write>) -> io::Result<()> {
    let places = inodes.places()?;
    out.write_all(&superblock(inodes.0.len(), places.end)?)?;
    for (number, (inode, block)) in inodes.0.iter().zip(&places.blocks).enumerate() {
        out.write_all(&inode.bytes(number, *block)?)?;
    }
    out.fill()?;
    for inode in &inodes.0 {
        match inode.entry.map(|entry| &entry.content) {
            Some(Content::File(data)) => drop(io::copy(&mut data.read(), out)?),
            Some(Content::Link(to)) => out.write_all(to.as_bytes())?,
            _ => out.write_all(&inode.folder())?,
        }
        out.fill()?;
    }
    out.to.flush()
}

/// Everything that has a number, the root first.
struct Inodes<'a>(Vec<Inode<'a>>);

struct Inode<'a> {
    /// None for the root, and for a folder that no entry names.
    entry: Option<&'a Entry>,
    links: u32,
    /// Of a folder: what is in it, by name, with its number.
    entries: BTreeMap<&'a [u8], (usize, Kind)>,
}

/// What an entry of a folder is, as the format numbers it.
#[derive(Clone, Copy)]
enum Kind {
    File = 1,
    Folder = 2,
    Link = 7,
}

/// Where the data of each inode begins, and where all of it ends, in blocks.
struct Places {
    blocks: Vec<u32>,
    end: u32,
}

impl<'a> Inodes<'a> {
    fn of(tree: &'a Tree) -> Result<Self, BadTree> {
        let mut inodes = Self(vec![Inode::folder_in(None, 0)]);
        let mut numbers = BTreeMap::from([("", 0)]);
        for (path, entry) in tree.entries() {
            if path.split('/').any(|name| name.len() > NAME_BYTES_MAX) {
                return Err(BadTree::name(path, "has too long a name in it"));
            }
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let above = inodes.folder_of(folder, &mut numbers);
            let above = above.ok_or_else(|| BadTree::name(path, "is below what is no folder"))?;
            let number = match &entry.content {
                Content::Same(of) => {
                    let same = numbers.get(of.as_str()).copied();
                    same.ok_or_else(|| BadTree::name(path, "is the same as a file that is not there"))?
                }
                Content::Folder => inodes.add(Inode::folder_in(Some(entry), above)),
                Content::File(_) | Content::Link(_) => {
                    inodes.add(Inode { entry: Some(entry), links: 0, entries: BTreeMap::new() })
                }
            };
            inodes.enter(path, number, above);
            numbers.insert(path, number);
        }
        Ok(inodes)
    }

    fn add(&mut self, inode: Inode<'a>) -> usize {
        self.0.push(inode);
        self.0.len() - 1
    }

    /// The folder of a path; one that no entry names is root's, as it is for who unpacks a layer.
    fn folder_of(&mut self, path: &'a str, numbers: &mut BTreeMap<&'a str, usize>) -> Option<usize> {
        if let Some(number) = numbers.get(path) {
            return self.0[*number].is_folder().then_some(*number);
        }
        let above = self.folder_of(path.rsplit_once('/').map_or("", |(folder, _)| folder), numbers)?;
        let number = self.add(Inode::folder_in(None, above));
        self.enter(path, number, above);
        numbers.insert(path, number);
        Some(number)
    }

    /// Puts what has this number into the folder `above` it.
    fn enter(&mut self, path: &'a str, number: usize, above: usize) {
        let kind = self.0[number].kind();
        match kind {
            Kind::Folder => {
                self.0[number].entries.insert(b".", (number, kind));
                self.0[above].links += 1;
            }
            Kind::File | Kind::Link => self.0[number].links += 1,
        }
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        self.0[above].entries.insert(name.as_bytes(), (number, kind));
    }

    fn places(&self) -> io::Result<Places> {
        let mut next = 1 + blocks_of((self.0.len() * INODE_BYTES) as u64)?;
        let mut blocks = Vec::with_capacity(self.0.len());
        for inode in &self.0 {
            blocks.push(next);
            next = next.checked_add(blocks_of(inode.len())?).ok_or_else(too_large)?;
        }
        Ok(Places { blocks, end: next })
    }
}

impl<'a> Inode<'a> {
    /// The root's `.` is its own number, which is that of the folder that it is in too.
    fn folder_in(entry: Option<&'a Entry>, above: usize) -> Self {
        let names = [(&b"."[..], (above, Kind::Folder)), (b"..", (above, Kind::Folder))];
        Self { entry, links: 2, entries: names.into() }
    }

    fn kind(&self) -> Kind {
        match self.entry.map(|entry| &entry.content) {
            Some(Content::File(_)) => Kind::File,
            Some(Content::Link(_)) => Kind::Link,
            _ => Kind::Folder,
        }
    }

    fn is_folder(&self) -> bool {
        matches!(self.kind(), Kind::Folder)
    }

    fn len(&self) -> u64 {
        match self.entry.map(|entry| &entry.content) {
            Some(Content::File(data)) => Data::len(data),
            Some(Content::Link(to)) => to.len() as u64,
            _ => self.folder().len() as u64,
        }
    }

    /// A folder's blocks, of which the last one ends where its last name does.
    fn folder(&self) -> Vec<u8> {
        let (mut whole, mut block) = (Vec::new(), Vec::new());
        let mut used = 0;
        for (name, at) in &self.entries {
            if used + ENTRY_BYTES + name.len() > BLOCK_BYTES {
                whole.extend(folder_block(&block));
                whole.resize(whole.len().next_multiple_of(BLOCK_BYTES), 0);
                (used, block) = (0, Vec::new());
            }
            used += ENTRY_BYTES + name.len();
            block.push((*name, *at));
        }
        whole.extend(folder_block(&block));
        whole
    }

    fn bytes(&self, number: usize, block: u32) -> io::Result<[u8; INODE_BYTES]> {
        let (mode, uid, gid) = self.entry.map_or((0o755, 0, 0), |entry| (entry.mode, entry.uid, entry.gid));
        let kind = match self.kind() {
            Kind::File => 0o100_000,
            Kind::Folder => 0o040_000,
            Kind::Link => 0o120_000,
        };
        let mode = u16::try_from(mode).map_err(|_| too_large())? | kind;
        let number = u32::try_from(number + 1).map_err(|_| too_large())?;
        let mut bytes = [0; INODE_BYTES];
        put(&mut bytes, 0, &FORMAT.to_le_bytes());
        put(&mut bytes, 4, &mode.to_le_bytes());
        put(&mut bytes, 8, &self.len().to_le_bytes());
        put(&mut bytes, 16, &block.to_le_bytes());
        put(&mut bytes, 20, &number.to_le_bytes());
        put(&mut bytes, 24, &uid.to_le_bytes());
        put(&mut bytes, 28, &gid.to_le_bytes());
        put(&mut bytes, 32, &TIME.to_le_bytes());
        put(&mut bytes, 44, &self.links.to_le_bytes());
        Ok(bytes)
    }
}

/// Entries, and behind them their names.
fn folder_block(entries: &[(&[u8], (usize, Kind))]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut name_at = entries.len() * ENTRY_BYTES;
    for (name, (number, kind)) in entries {
        block.extend(place_of(*number).to_le_bytes());
        block.extend(u16::try_from(name_at).expect("within a block").to_le_bytes());
        block.extend([*kind as u8, 0]);
        name_at += name.len();
    }
    for (name, _) in entries {
        block.extend(*name);
    }
    block
}

/// By what an inode is named in a folder.
fn place_of(number: usize) -> u64 {
    ((BLOCK_BYTES + number * INODE_BYTES) / PLACE_BYTES) as u64
}

fn superblock(inodes: usize, blocks: u32) -> io::Result<[u8; BLOCK_BYTES]> {
    let root = u16::try_from(place_of(0)).map_err(|_| too_large())?;
    let mut block = [0; BLOCK_BYTES];
    let put = |block: &mut [u8], at: usize, bytes: &[u8]| put(block, SUPER_AT + at, bytes);
    put(&mut block, 0, &MAGIC.to_le_bytes());
    put(&mut block, 12, &[BLOCK_BITS]);
    put(&mut block, 14, &root.to_le_bytes());
    put(&mut block, 16, &(inodes as u64).to_le_bytes());
    put(&mut block, 24, &TIME.to_le_bytes());
    put(&mut block, 36, &blocks.to_le_bytes());
    put(&mut block, 64, VOLUME);
    Ok(block)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn blocks_of(bytes: u64) -> io::Result<u32> {
    u32::try_from(bytes.div_ceil(BLOCK_BYTES as u64)).map_err(|_| too_large())
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the tree is larger than such a file system can be")
}

/// Counts, and says how far it is.
struct Out<'a, W: Write> {
    to: BufWriter<W>,
    bytes: u64,
    next: u64,
    watch: Watch<'a>,
}

impl<W: Write> Out<'_, W> {
    /// Zeros to the end of the block.
    fn fill(&mut self) -> io::Result<()> {
        let used = usize::try_from(self.bytes % BLOCK_BYTES as u64).expect("less than a block");
        self.write_all(&[0; BLOCK_BYTES][..(BLOCK_BYTES - used) % BLOCK_BYTES])
    }
}

impl<W: Write> Write for Out<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes >= self.next {
            self.next = self.bytes + TELL_EVERY_BYTES;
            if !(self.watch)(&format!("{} MB", self.bytes / 1_000_000)) {
                return Err(given_up());
            }
        }
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests;
