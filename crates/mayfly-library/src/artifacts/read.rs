//! An archive of artifacts from a machine, read strictly.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

use super::{BYTES_MAX, Beside, FILES_MAX, Writer, is_plain, is_private};

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path below the workspace.
    pub path: String,
    /// How long it is.
    pub bytes: u64,
    /// Where it begins in the archive.
    pub at: u64,
    executable: bool,
}

/// Why bytes are no archive of artifacts.
#[derive(Debug, thiserror::Error)]
pub enum BadArtifacts {
    /// They do not read.
    #[error("the artifacts cannot be read")]
    Unreadable(#[source] io::Error),
    /// There is more than there may be.
    #[error("the artifacts are more than {FILES_MAX} files or {BYTES_MAX} bytes")]
    Large,
    /// Something that is in none.
    #[error("the artifacts have an entry that is in none: `{entry}` {why}")]
    Entry {
        /// Its path, fit to be shown.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The same files would have made other bytes.
    #[error("the artifacts were not packed by mayfly: something in them is written in another way")]
    Foreign,
    /// They cannot be put into their place.
    #[error("the artifacts cannot be written")]
    Unwritable(#[source] io::Error),
}

/// Checks that an archive is one, and gives its files.
///
/// # Errors
/// The first thing in it that is in none.
pub fn check(archive: impl Read) -> Result<Vec<Member>, BadArtifacts> {
    through(archive, |_, _| Ok(()))
}

/// The files of an archive that was [checked](check).
///
/// # Errors
/// If it cannot be read.
pub fn list(archive: impl Read + Seek) -> Result<Vec<Member>, BadArtifacts> {
    let mut read = Archive::new(archive);
    let entries = read.entries_with_seek().map_err(BadArtifacts::Unreadable)?;
    entries.map(|entry| member(&entry.map_err(BadArtifacts::Unreadable)?)).collect()
}

/// The one that is called `path`.
///
/// # Errors
/// As for [`list`].
pub fn find(archive: impl Read + Seek, path: &str) -> Result<Option<Member>, BadArtifacts> {
    Ok(list(archive)?.into_iter().find(|member| member.path == path))
}

/// Checks an archive and puts its files below `folder`, an empty one that nobody else writes into.
///
/// # Errors
/// The first thing in it that is in none; what was written by then is the caller's to remove.
pub fn unpack(archive: impl Read, folder: &Path) -> Result<Vec<Member>, BadArtifacts> {
    through(archive, |member, content| {
        let path = folder.join(&member.path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let mode = if member.executable { 0o777 } else { 0o666 };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        content.0.replace(file);
        Ok(())
    })
}

/// Where the content of a file goes besides the check.
#[derive(Debug, Default)]
struct Copy(Option<fs::File>);

/// Reads all of an archive, and packs what it reads once more: the bytes must be the same.
fn through(
    archive: impl Read,
    mut begin: impl FnMut(&Member, &mut Copy) -> io::Result<()>,
) -> Result<Vec<Member>, BadArtifacts> {
    let mut read = Archive::new(Hashed { inner: archive, hash: Sha256::new() });
    let mut again = Writer::new(Hashed { inner: io::sink(), hash: Sha256::new() });
    let (mut members, mut beside, mut left): (Vec<Member>, _, _) = (Vec::new(), Beside::default(), BYTES_MAX);
    for entry in read.entries().map_err(BadArtifacts::Unreadable)? {
        let entry = entry.map_err(BadArtifacts::Unreadable)?;
        let member = member(&entry)?;
        let refuse = |why| BadArtifacts::Entry { entry: member.path.escape_debug().to_string(), why };
        if members.last().is_some_and(|last| last.path >= member.path) {
            return Err(refuse("is there twice, or not in its order"));
        }
        beside.add(&member.path).map_err(|_| refuse("cannot stand beside another on every system"))?;
        left = left
            .checked_sub(member.bytes)
            .filter(|_| members.len() < FILES_MAX)
            .ok_or(BadArtifacts::Large)?;
        let mut copy = Copy::default();
        begin(&member, &mut copy).map_err(BadArtifacts::Unwritable)?;
        let content = Tee { inner: entry, copy };
        again
            .append(&member.path, member.executable, member.bytes, content)
            .map_err(BadArtifacts::Unreadable)?;
        members.push(member);
    }
    let mut rest = read.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(BadArtifacts::Unreadable)?;
    let again = again.end().map_err(BadArtifacts::Unreadable)?;
    if rest.hash.finalize() == again.hash.finalize() { Ok(members) } else { Err(BadArtifacts::Foreign) }
}

fn member<R: Read>(entry: &Entry<'_, R>) -> Result<Member, BadArtifacts> {
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let refuse = |why| BadArtifacts::Entry { entry: path.escape_debug().to_string(), why };
    if entry.header().entry_type() != EntryType::Regular {
        return Err(refuse("is no plain file"));
    }
    if !is_plain(&path) {
        return Err(refuse("is no plain path below a folder"));
    }
    if is_private(&path) {
        return Err(refuse("is a file that could hold a credential by its name"));
    }
    let mode = entry.header().mode().map_err(BadArtifacts::Unreadable)?;
    let (bytes, at) = (entry.size(), entry.raw_file_position());
    Ok(Member { executable: mode & 0o111 != 0, path, bytes, at })
}

struct Hashed<I> {
    inner: I,
    hash: Sha256,
}

impl<I: Read> Read for Hashed<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl<I: Write> Write for Hashed<I> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Tee<R> {
    inner: R,
    copy: Copy,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(file) = &mut self.copy.0 {
            file.write_all(&buffer[..read])?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tar::{Builder, Header};

    use super::*;
    use crate::crafted::{NO_FILES, crafted};

    fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, content) in files {
            writer.append(path, false, content.len() as u64, *content).expect("memory");
        }
        writer.end().expect("memory")
    }

    fn refused(archive: &[u8]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = unpack(archive, folder.path()).expect_err("refused");
        assert_eq!(check(archive).expect_err("refused").to_string(), refused.to_string());
        refused.to_string()
    }

    /// S46: nothing gets through but plain files with plain names, as they are packed here; S17: nor what could be a credential.
    #[test]
    fn only_plain_files_as_they_are_packed_here_are_taken() {
        assert_eq!(check(&crafted(b"x", |_| ())[..]).expect("one").len(), 1);
        for name in [&b"../x"[..], b"/x", b"a/../x", b"./x", b"a//x", b"a\nb", b"a\\b"] {
            assert!(refused(&crafted(name, |_| ())).contains("no plain path"), "{name:?}");
        }
        for name in [
            &b".git/config"[..],
            b"a/.GIT/hooks/x",
            b".npmrc",
            b"a/.netrc",
            b".claude.json",
            b".ssh/id",
            b".env",
        ] {
            assert!(refused(&crafted(name, |_| ())).contains("could hold a credential"), "{name:?}");
        }
        for kind in NO_FILES {
            let link = |header: &mut Header| {
                header.set_entry_type(kind);
                header.set_link_name("/etc/passwd").expect("a name");
            };
            let said = refused(&crafted(b"x", link));
            assert!(
                said.contains("`x` is no plain file") || said.contains("cannot be read"),
                "{kind:?}: {said}"
            );
        }
        for mode in [0o4755, 0o2755, 0o1644, 0o777, 0o600] {
            let said = refused(&crafted(b"x", |header| header.set_mode(mode)));
            assert!(said.contains("not packed by mayfly"), "{said}");
        }
        assert!(refused(&crafted(b"x", |header| header.set_uid(1000))).contains("not packed"));
        // A terabyte that is only claimed is none.
        assert!(refused(&crafted(b"x", |header| header.set_size(1 << 40))).contains("more than"));
        assert!(refused(&crafted(b"x", |header| header.set_size(1 << 20))).contains("cannot be read"));
        for (files, why) in [
            (&[("x", &b"1"[..]), ("x", b"2")][..], "twice"),
            (&[("b", b"1"), ("a", b"2")], "not in its order"),
            (&[("A", b"1"), ("a", b"2")], "cannot stand beside"),
            (&[("a", b"1"), ("a/b", b"2")], "cannot stand beside"),
        ] {
            assert!(refused(&pack(files)).contains(why), "{why}");
        }
        assert!(refused(&[pack(&[("x", b"1")]), vec![1]].concat()).contains("not packed"));
        let mut spoiled = pack(&[("x", b"1")]);
        *spoiled.last_mut().expect("bytes") = 1;
        assert!(refused(&spoiled).contains("not packed"));
    }

    /// S46 for a size that two heads give in two ways.
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
        refused(&builder.into_inner().expect("memory"));
    }

    #[test]
    fn one_file_too_many_is_refused() {
        let names: Vec<String> = (0..=FILES_MAX).map(|number| format!("{number:06}")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(refused(&pack(&files)).contains("more than"));
        assert_eq!(check(&pack(&files[1..])[..]).expect("within the bound").len(), FILES_MAX);
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(
            files in prop::collection::btree_map("[a-z\u{e4}\u{df} _-]{1,9}(/[a-z]{1,150}){0,2}", any::<Vec<u8>>(), 0..9)
        ) {
            let mut beside = Beside::default();
            let files: Vec<(&str, &[u8])> = files
                .iter()
                .map(|(path, content)| (path.as_str(), &content[..]))
                .filter(|(path, _)| is_plain(path) && beside.add(path).is_ok())
                .collect();
            let archive = pack(&files);
            let folder = tempfile::tempdir().expect("a folder");
            let members = unpack(&archive[..], folder.path()).expect("as it was packed");
            prop_assert_eq!(&list(io::Cursor::new(&archive)).expect("a list"), &members);
            prop_assert_eq!(members.len(), files.len());
            for ((path, content), member) in files.iter().zip(&members) {
                let (from, bytes) = (usize::try_from(member.at).expect("small"), content.len());
                prop_assert_eq!(&archive[from..from + bytes], *content);
                prop_assert_eq!(&fs::read(folder.path().join(path)).expect("there"), content);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0_usize..600) {
            let _ = check(&bytes[..]);
            let mut spoiled = pack(&[("x", b"1")]);
            let at = at.min(spoiled.len());
            let until = (at + bytes.len()).min(spoiled.len());
            spoiled[at..until].copy_from_slice(&bytes[..until - at]);
            if let Ok(members) = check(&spoiled[..]) {
                prop_assert!(members.iter().all(|member| is_plain(&member.path)));
            }
        }
    }
}
