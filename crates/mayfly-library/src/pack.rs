//! A resource as one archive, which is named by its SHA-256.
//!
//! It is a tar of plain files by path, with nothing in it that the files do not say: no owner, no time, no folder. The
//! same files are always the same bytes, and an archive is taken for one only if its files would make those very bytes.
//! So nothing gets through that this module would not have written: no link, no device, no name that leads out, no run
//! bit beside the ordinary one, no second file of a name, and no entry that two readers would read in two ways.

use std::io::{self, Read as _};

use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::tree::{BYTES_MAX, FILES_MAX, File, is_plain};

/// The longest archive: each file takes a head and is padded, and a long name takes as much again.
pub const ARCHIVE_BYTES_MAX: usize = BYTES_MAX + FILES_MAX * 4 * 1024;

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why bytes are no archive of a resource.
#[derive(Debug, thiserror::Error)]
pub enum BadArchive {
    /// They are not what they are called.
    #[error("the archive is not the one that was named: its SHA-256 is {0}")]
    Other(String),
    /// There are too many.
    #[error("the archive is larger than a resource can be")]
    Large,
    /// They do not read.
    #[error("the archive cannot be read")]
    Unreadable(#[source] io::Error),
    /// Something that no resource has.
    #[error("the archive has an entry that no resource has: `{0}`")]
    Entry(String),
    /// The same files would have made other bytes.
    #[error("the archive was not written by mayfly")]
    Foreign,
}

/// The archive of files, which are in the order of their paths.
pub fn pack(files: &[File]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for file in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(file.bytes.len() as u64);
        header.set_mode(if file.executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        let appended = builder.append_data(&mut header, &file.path, &file.bytes[..]);
        appended.expect("a plain path, and memory that takes what is written");
    }
    builder.into_inner().expect("memory takes what is written")
}

/// The name of an archive.
pub fn sha256(archive: &[u8]) -> String {
    hex::encode(Sha256::digest(archive))
}

/// The SHA-256 of all that can be read, in hex.
pub fn sha256_of(mut from: impl io::Read) -> io::Result<String> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&piece[..read]),
        }
    }
}

/// Whether a text could be the name of one: all digits, in lower case.
pub fn is_sha256(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(digit)
}

/// The files of the archive that is called `name`.
pub fn unpack(archive: &[u8], name: &str) -> Result<Vec<File>, BadArchive> {
    if archive.len() > ARCHIVE_BYTES_MAX {
        return Err(BadArchive::Large);
    }
    let is = sha256(archive);
    if is != name {
        return Err(BadArchive::Other(is));
    }
    files(archive)
}

/// The files of an archive, whatever it is called.
pub fn files(archive: &[u8]) -> Result<Vec<File>, BadArchive> {
    let mut files = Vec::new();
    let mut read = Archive::new(archive);
    for entry in read.entries().map_err(BadArchive::Unreadable)? {
        files.push(file(entry.map_err(BadArchive::Unreadable)?)?);
        if files.len() > FILES_MAX {
            return Err(BadArchive::Large);
        }
    }
    let sorted = files.windows(2).all(|pair: &[File]| pair[0].path < pair[1].path);
    if sorted && pack(&files) == archive { Ok(files) } else { Err(BadArchive::Foreign) }
}

fn file(mut entry: tar::Entry<'_, &[u8]>) -> Result<File, BadArchive> {
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let shown = || BadArchive::Entry(path.escape_debug().to_string());
    if entry.header().entry_type() != EntryType::Regular || !is_plain(&path) {
        return Err(shown());
    }
    let mode = entry.header().mode().map_err(BadArchive::Unreadable)?;
    let mut bytes = Vec::new();
    // No more than the archive has: a size that it only claims is not believed.
    entry.read_to_end(&mut bytes).map_err(BadArchive::Unreadable)?;
    Ok(File { path, executable: mode & 0o111 != 0, bytes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a(path: &str, bytes: &[u8]) -> File {
        File { path: path.to_owned(), executable: false, bytes: bytes.to_vec() }
    }

    fn refused(archive: &[u8]) -> String {
        files(archive).expect_err("refused").to_string()
    }

    /// An archive with one entry, whose head is as told.
    fn crafted(name: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_mtime(0);
        change(&mut header);
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, &[][..]).expect("memory");
        builder.into_inner().expect("memory")
    }

    /// Covers S46: nothing gets through but plain files with plain names, as they are packed here.
    #[test]
    fn only_what_was_packed_here_is_unpacked() {
        assert!(files(&crafted(b"x", |_| ())).is_ok());
        for name in [&b"../x"[..], b"/x", b"a/../x", b"./x", b"a//x", b"a\nb", b"", b"\xff"] {
            let said = refused(&crafted(name, |_| ()));
            assert!(said.contains("an entry that no resource has") || said.contains("not written"), "{said}");
        }
        let kinds = [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
            EntryType::Directory,
            EntryType::Continuous,
        ];
        for kind in kinds {
            let link = |header: &mut Header| {
                header.set_entry_type(kind);
                header.set_link_name("/etc/passwd").expect("a name");
            };
            assert!(refused(&crafted(b"x", link)).contains("no resource has: `x`"), "{kind:?}");
        }
        for mode in [0o4755, 0o2755, 0o1644, 0o777, 0o600] {
            assert!(
                refused(&crafted(b"x", |header| header.set_mode(mode))).contains("not written by mayfly")
            );
        }
        assert!(refused(&crafted(b"x", |header| header.set_uid(1000))).contains("not written"));
        assert!(refused(&crafted(b"x", |header| header.set_size(1 << 40))).contains("cannot be read"));
        let twice = pack(&[a("x", b"1"), a("x", b"2")]);
        assert!(refused(&twice).contains("not written by mayfly"));
        assert!(refused(&[pack(&[a("x", b"1")]), vec![1]].concat()).contains("not written by mayfly"));
    }

    /// Covers S46 for a size that two heads give in two ways.
    #[test]
    fn a_size_in_an_extension_is_refused() {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([("size", &b"512"[..])]).expect("memory");
        let mut header = Header::new_ustar();
        header.set_path("x").expect("a name");
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, &[][..]).expect("memory");
        builder.append(&header, &[][..]).expect("memory");
        assert!(files(&builder.into_inner().expect("memory")).is_err());
    }

    #[test]
    fn another_archive_than_the_one_that_was_named_is_refused() {
        let archive = pack(&[a("x", b"1")]);
        assert!(unpack(&archive, &sha256(&archive)).is_ok());
        assert!(matches!(unpack(&archive, &sha256(b"")), Err(BadArchive::Other(_))));
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(
            files in prop::collection::btree_map("[a-zäß ._-]{1,9}(/[a-z]{1,150}){0,2}", (any::<bool>(), any::<Vec<u8>>()), 0..9)
        ) {
            let file = |(path, (executable, bytes)): (String, (bool, Vec<u8>))| File { path, executable, bytes };
            let files: Vec<File> = files.into_iter().map(file).filter(|file| is_plain(&file.path)).collect();
            let archive = pack(&files);
            prop_assert_eq!(unpack(&archive, &sha256(&archive)).expect("files"), files);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0_usize..600) {
            let _ = files(&bytes);
            let archive = pack(&[a("x", b"1")]);
            let end = (at + bytes.len()).min(archive.len());
            let at = at.min(end);
            bytes.truncate(end - at);
            let mut spoiled = archive.clone();
            spoiled[at..at + bytes.len()].copy_from_slice(&bytes);
            if let Ok(files) = files(&spoiled) {
                prop_assert_eq!(pack(&files), spoiled);
            }
        }
    }
}
