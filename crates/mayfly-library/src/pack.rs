//! A resource as one archive, which is named by its SHA-256.
//!
//! It is a tar of plain files by path, with nothing in it that the files do not say: no owner, no time, no folder. The
//! same files are always the same bytes, and an archive is taken for one only if its files would make those very bytes.
//! So nothing gets through that this module would not have written: no link, no device, no name that leads out, no run
//! bit beside the ordinary one, no second file of a name, and no entry that two readers would read in two ways.

use std::io::{self, Read as _};

use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::tree::{BYTES_MAX, FILES_MAX, File, PATH_BYTES_MAX, clash, is_plain};

/// The longest archive: each file takes a head and is padded, and a long name takes as much again.
pub const ARCHIVE_BYTES_MAX: usize = BYTES_MAX + FILES_MAX * 4 * 1024;

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
    #[error("the archive has an entry that no resource has: `{entry}` {why}")]
    Entry {
        /// Its path, fit to be shown.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// The same files would have made other bytes.
    #[error("the archive was not written by mayfly: {0}")]
    Foreign(String),
}

impl BadArchive {
    fn entry(path: &str, why: impl Into<String>) -> Self {
        Self::Entry { entry: path.escape_debug().to_string(), why: why.into() }
    }
}

/// The archive of files, which are in the order of their paths.
pub fn pack(files: &[File]) -> Vec<u8> {
    pack_into(files, Vec::new())
}

/// The name of the archive of files, without having it whole in memory.
pub fn name_of(files: &[File]) -> String {
    hex::encode(pack_into(files, Hashed(Sha256::new())).0.finalize())
}

/// What is written is not kept.
struct Hashed(Sha256);

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pack_into<W: io::Write>(files: &[File], to: W) -> W {
    let mut builder = Builder::new(to);
    for file in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(file.bytes.len() as u64);
        header.set_mode(if file.executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        let appended = builder.append_data(&mut header, &file.path, &file.bytes[..]);
        appended.expect("a plain path, and nothing that refuses what is written");
    }
    builder.into_inner().expect("nothing refuses what is written")
}

/// The name of an archive.
pub fn sha256(archive: &[u8]) -> String {
    hex::encode(Sha256::digest(archive))
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

/// The files of an archive, whatever it is called. Of the format's extensions a long name is read, and no other.
pub fn files(archive: &[u8]) -> Result<Vec<File>, BadArchive> {
    let (mut files, mut ends) = (Vec::<File>::new(), Vec::new());
    let (mut read, mut long_name, mut bytes_left) = (Archive::new(archive), None, BYTES_MAX);
    for entry in read.entries().map_err(BadArchive::Unreadable)?.raw(true) {
        let mut entry = entry.map_err(BadArchive::Unreadable)?;
        if entry.header().entry_type() == EntryType::GNULongName && long_name.is_none() {
            long_name = Some(read_long_name(&mut entry)?);
            continue;
        }
        let path = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let file = file(String::from_utf8_lossy(&path).into_owned(), &mut entry)?;
        bytes_left = fits(&file, &files, bytes_left)?;
        let begin = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
        ends.push(begin.saturating_add(file.bytes.len()));
        files.push(file);
    }
    if let Some((path, why)) = clash(&files) {
        return Err(BadArchive::entry(path, why));
    }
    let again = pack(&files);
    if again == archive {
        return Ok(files);
    }
    // The first byte that differs is in the head of an entry, in what fills it up, or behind all of them.
    let differs = archive.iter().zip(&again).take_while(|(one, other)| one == other).count();
    let near = ends.iter().position(|end| *end > differs).map(|at| &files[at].path);
    Err(BadArchive::Foreign(match near {
        Some(path) => format!("the head of `{}` says something else", path.escape_debug()),
        None => "it does not end where its files do".to_owned(),
    }))
}

/// The bytes that are left for more files once there is this one behind `before`.
fn fits(file: &File, before: &[File], bytes_left: usize) -> Result<usize, BadArchive> {
    if before.len() == FILES_MAX {
        return Err(BadArchive::entry(&file.path, format!("is one more than {FILES_MAX} files")));
    }
    if before.last().is_some_and(|last| last.path >= file.path) {
        let is_there = before.iter().any(|other| other.path == file.path);
        let why = if is_there { "is there twice" } else { "is not in the order of the paths" };
        return Err(BadArchive::entry(&file.path, why));
    }
    bytes_left.checked_sub(file.bytes.len()).ok_or_else(|| {
        BadArchive::entry(&file.path, format!("makes the resource larger than {} MiB", BYTES_MAX >> 20))
    })
}

fn read_long_name(entry: &mut tar::Entry<'_, &[u8]>) -> Result<Vec<u8>, BadArchive> {
    let mut name = Vec::new();
    entry.take(PATH_BYTES_MAX as u64 + 2).read_to_end(&mut name).map_err(BadArchive::Unreadable)?;
    name.pop_if(|last| *last == 0);
    Ok(name)
}

fn file(path: String, entry: &mut tar::Entry<'_, &[u8]>) -> Result<File, BadArchive> {
    let wrong = match entry.header().entry_type() {
        EntryType::Regular if is_plain(&path) => None,
        EntryType::Regular => Some("is no path beneath its folder"),
        EntryType::Symlink | EntryType::Link => Some("is a link"),
        _ => Some("is no plain file"),
    };
    if let Some(why) = wrong {
        return Err(BadArchive::entry(&path, why));
    }
    let mode = entry.header().mode().map_err(BadArchive::Unreadable)?;
    if ![0o644, 0o755].contains(&mode) {
        return Err(BadArchive::entry(&path, format!("has the mode {mode:o}, which is neither 644 nor 755")));
    }
    let mut bytes = Vec::new();
    // No more than the archive has: a size that it only claims is not believed.
    entry.read_to_end(&mut bytes).map_err(BadArchive::Unreadable)?;
    let claimed = entry.header().entry_size().map_err(BadArchive::Unreadable)?;
    if claimed != bytes.len() as u64 {
        return Err(BadArchive::entry(
            &path,
            format!("says {claimed} bytes of itself, and has {}", bytes.len()),
        ));
    }
    Ok(File { path, executable: mode == 0o755, bytes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crafted::{NO_FILES, add, crafted};

    fn a(path: &str, bytes: &[u8]) -> File {
        File { path: path.to_owned(), executable: false, bytes: bytes.to_vec() }
    }

    fn refused(archive: &[u8]) -> String {
        files(archive).expect_err("refused").to_string()
    }

    /// Covers S46: nothing gets through but plain files with plain names, and what is refused is named.
    #[test]
    fn only_plain_files_with_plain_names_are_unpacked() {
        assert!(files(&crafted(b"x", |_| ())).is_ok());
        for name in [&b"../x"[..], b"/x", b"a/../x", b"./x", b"a//x", b"a\nb", b"a\\b", b"\x1b[2J"] {
            let shown = String::from_utf8_lossy(name).escape_debug().to_string();
            let said = refused(&crafted(name, |_| ()));
            assert!(
                said.ends_with(&format!("no resource has: `{shown}` is no path beneath its folder")),
                "{said}"
            );
        }
        for name in [&b""[..], b"\xff"] {
            let said = refused(&crafted(name, |_| ()));
            assert!(said.contains("no resource has: `") || said.contains("the head of `"), "{said}");
        }
        for kind in NO_FILES {
            let link = |header: &mut Header| {
                header.set_entry_type(kind);
                header.set_link_name("/etc/passwd").expect("a name");
            };
            let said = refused(&crafted(b"x", link));
            assert!(said.ends_with("`x` is a link") || said.ends_with("`x` is no plain file"), "{said}");
        }
        for mode in [0o4755, 0o2755, 0o1644, 0o777, 0o600] {
            let said = refused(&crafted(b"x", |header| header.set_mode(mode)));
            assert!(said.contains(&format!("`x` has the mode {mode:o}")), "{said}");
        }
        let owned = crafted(b"x", |header| header.set_uid(1000));
        assert_eq!(
            refused(&owned),
            "the archive was not written by mayfly: the head of `x` says something else"
        );
        let trailing = [pack(&[a("x", b"1")]), vec![1]].concat();
        assert!(refused(&trailing).ends_with("it does not end where its files do"));
    }

    /// Covers S46 for entries that go together badly: a link to write through is refused before what would go through it.
    #[test]
    fn entries_that_cannot_stand_beside_each_other_are_named() {
        let mut builder = Builder::new(Vec::new());
        add(&mut builder, b"a", b"", |header| {
            header.set_entry_type(EntryType::Symlink);
            header.set_link_name("/etc").expect("a name");
        });
        add(&mut builder, b"a/passwd", b"root", |_| ());
        assert!(refused(&builder.into_inner().expect("memory")).ends_with("`a` is a link"));
        for (one, other, words) in [
            ("x", "x", "`x` is there twice"),
            ("b", "a", "`a` is not in the order of the paths"),
            ("a", "a/b", "`a/b` needs `a` to be a folder, and it is a file too"),
            ("SKILL.md", "skill.md", "`skill.md` is called as `SKILL.md` is but for upper and lower case"),
            ("A/x", "a/y", "`a/y` is called as `A` is but for upper and lower case"),
        ] {
            let said = refused(&pack(&[a(one, b"1"), a(other, b"2")]));
            assert!(said.ends_with(words), "{said}");
        }
        assert!(files(&pack(&[a("a", b""), a("a-b", b""), a("b/c/d", b""), a("b/c/e", b"")])).is_ok());
    }

    /// Covers S46: a size is believed only as far as there are bytes, and no extension has a say in it.
    #[test]
    fn a_size_that_is_not_that_of_the_bytes_is_refused() {
        let said = refused(&crafted(b"x", |header| header.set_size(1 << 40)));
        assert!(said.ends_with("`x` says 1099511627776 bytes of itself, and has 1024"), "{said}");
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([("size", &b"512"[..])]).expect("memory");
        add(&mut builder, b"x", b"", |_| ());
        add(&mut builder, b"y", b"", |_| ());
        assert!(refused(&builder.into_inner().expect("memory")).ends_with("`` is no plain file"));
        let mut builder = Builder::new(Vec::new());
        let sparse = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"1099511627776"),
        ];
        builder.append_pax_extensions(sparse).expect("memory");
        add(&mut builder, b"x", b"1\n0\n0\n", |_| ());
        assert!(refused(&builder.into_inner().expect("memory")).ends_with("`` is no plain file"));
    }

    /// Covers S46 for a long name, which is the one extension that is read: nothing else may be in it, and none twice.
    #[test]
    fn a_long_name_is_held_to_what_a_short_one_is() {
        let named = |name: &[u8], times: usize| {
            let mut builder = Builder::new(Vec::new());
            for _ in 0..times {
                add(&mut builder, b"././@LongLink", name, |header| {
                    header.set_entry_type(EntryType::GNULongName);
                });
            }
            add(&mut builder, b"x", b"", |_| ());
            builder.into_inner().expect("memory")
        };
        assert!(
            refused(&named(b"../../etc/x\0", 1)).ends_with("`../../etc/x` is no path beneath its folder")
        );
        assert!(refused(&named(&vec![b'a'; 1 << 20], 1)).ends_with("is no path beneath its folder"));
        assert!(refused(&named(b"a\0", 2)).ends_with("`a` is no plain file"));
        assert!(refused(&named(b"a\0", 1)).ends_with("the head of `a` says something else"));
    }

    /// Covers S46 for a million entries and for bytes without end: none is read beyond the bounds.
    #[test]
    fn too_many_entries_and_bytes_are_refused() {
        let many: Vec<File> = (0..=FILES_MAX).map(|at| a(&format!("{at:07}"), b"")).collect();
        assert!(refused(&pack(&many)).ends_with("`0002000` is one more than 2000 files"));
        assert!(files(&pack(&many[1..])).is_ok());
        let head = crafted(b"x", |_| ())[..512].to_vec();
        let million = head.repeat(1_000_000);
        assert!(matches!(unpack(&million, &sha256(b"")), Err(BadArchive::Large)));
        assert!(refused(&million).ends_with("`x` is there twice"));
        let half = vec![0; BYTES_MAX / 2 + 1];
        let said = refused(&pack(&[a("x", &half), a("y", &half)]));
        assert!(said.ends_with("`y` makes the resource larger than 16 MiB"), "{said}");
        // What is compressed is no archive.
        assert!(files(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].repeat(200)).is_err());
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
            prop_assume!(clash(&files).is_none());
            let archive = pack(&files);
            prop_assert_eq!(name_of(&files), sha256(&archive));
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
