//! Archives that nobody packs here, for tests of what is refused.

use tar::{Builder, EntryType, Header};

/// The kinds of entries that are no plain files.
pub(crate) const NO_FILES: [EntryType; 8] = [
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Char,
    EntryType::Block,
    EntryType::Fifo,
    EntryType::Directory,
    EntryType::Continuous,
    EntryType::GNUSparse,
];

/// An archive with one entry, whose head is as told.
pub(crate) fn crafted(name: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    add(&mut builder, name, b"", change);
    builder.into_inner().expect("memory")
}

/// Adds an entry, whose head is as told.
pub(crate) fn add(
    builder: &mut Builder<Vec<u8>>,
    name: &[u8],
    bytes: &[u8],
    change: impl FnOnce(&mut Header),
) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    change(&mut header);
    header.set_cksum();
    builder.append(&header, bytes).expect("memory");
}
