//! What set-up commands made, as one file: written before the agent has been started, read in machines to come.
//!
//! ```text
//! MAGIC, then each entry: kind u8 · mode u16 · time i64 · length of the path u16 · path
//!                         and for a file or a link: length u64 · its bytes or where it leads
//! and an entry of kind 0 at the end. Numbers are little-endian; a folder comes before what is in it.
//! ```
//!
//! Programs of a repository have made the files, so what is read is hostile: nothing is written but plain files, folders
//! and links, by plain names, within the folders that were asked for, each opened beneath the workspace and through no
//! link. A name comes once. Where a link leads is not looked at: it is followed by the machine's own programs alone.
//!
//! Bounds: [`BYTES_MAX`], [`ENTRIES_MAX`], [`PATH_BYTES_MAX`], [`DEPTH_MAX`]; and whoever waits for it can stop it.

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2, symlinkat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

const MAGIC: &[u8] = b"mayfly set-up 1\n";
/// The most that its files have in all.
pub(crate) const BYTES_MAX: u64 = 4 << 30;
/// The most files, folders and links.
const ENTRIES_MAX: u64 = 1_000_000;
const PATH_BYTES_MAX: usize = 4096;
const DEPTH_MAX: usize = 200;

const END: u8 = 0;
const FOLDER: u8 = 1;
const FILE: u8 = 2;
const LINK: u8 = 3;

/// Why an archive was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadArchive {
    /// A folder that was to be kept is none.
    #[error("there is no folder `{0}`")]
    Absent(String),
    /// There is more than an archive can have.
    #[error("there is more than {ENTRIES_MAX} files, or {BYTES_MAX} bytes in them")]
    Large,
    /// Something that no archive of ours has.
    #[error("the archive has an entry that it cannot have: `{0}`")]
    Entry(String),
    /// It is none, or cut off.
    #[error("the archive cannot be read")]
    Unreadable,
    /// The system said no.
    #[error("a file cannot be read or written")]
    System(#[from] io::Error),
}

impl From<Errno> for BadArchive {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// An archive's file, of which nothing more is read or written once it is stopped.
#[derive(Debug)]
pub(crate) struct Stoppable {
    pub(crate) file: File,
    pub(crate) stop: CancellationToken,
}

impl Stoppable {
    fn unless_stopped(&mut self) -> io::Result<&mut File> {
        match self.stop.is_cancelled() {
            true => Err(io::Error::other("nobody waits for it any more")),
            false => Ok(&mut self.file),
        }
    }
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.unless_stopped()?.read(buffer)
    }
}

impl Write for Stoppable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_stopped()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes what is in the folders `keep` of `top`.
pub(crate) fn pack(top: &Path, keep: &[String], to: Stoppable) -> Result<(), BadArchive> {
    let mut packing = Packing { top, to: BufWriter::new(to), entries: 0, bytes: 0 };
    packing.to.write_all(MAGIC)?;
    for folder in outermost(keep) {
        let is = top.join(folder).symlink_metadata();
        if !is.is_ok_and(|is| is.is_dir()) {
            return Err(BadArchive::Absent(folder.to_owned()));
        }
        for (end, _) in folder.match_indices('/') {
            packing.entry(&folder.as_bytes()[..end])?;
        }
        packing.tree(folder.as_bytes())?;
    }
    packing.to.write_all(&[END])?;
    Ok(packing.to.flush()?)
}

/// Those that are in no other one.
fn outermost(keep: &[String]) -> Vec<&str> {
    let mut folders: Vec<&str> = keep.iter().map(String::as_str).collect();
    folders.sort_unstable();
    folders.dedup_by(|next, before| is_within(next.as_bytes(), before.as_bytes()));
    folders
}

fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

struct Packing<'a> {
    top: &'a Path,
    to: BufWriter<Stoppable>,
    entries: u64,
    bytes: u64,
}

impl Packing<'_> {
    fn tree(&mut self, folder: &[u8]) -> Result<(), BadArchive> {
        let mut folders = vec![folder.to_vec()];
        while let Some(folder) = folders.pop() {
            self.entry(&folder)?;
            let mut names: Vec<_> = fs::read_dir(self.top.join(std::ffi::OsStr::from_bytes(&folder)))?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<Result<_, _>>()?;
            names.sort_unstable();
            for name in names {
                let path = [&folder, b"/".as_slice(), name.as_bytes()].concat();
                let is = self.top.join(std::ffi::OsStr::from_bytes(&path)).symlink_metadata()?;
                match is.is_dir() {
                    true => folders.push(path),
                    false => self.entry(&path)?,
                }
            }
        }
        Ok(())
    }

    /// Sockets and their like are left out.
    fn entry(&mut self, path: &[u8]) -> Result<(), BadArchive> {
        let at = self.top.join(std::ffi::OsStr::from_bytes(path));
        let is = at.symlink_metadata()?;
        self.entries += 1;
        if self.entries > ENTRIES_MAX || path.len() > PATH_BYTES_MAX {
            return Err(BadArchive::Large);
        }
        if is.is_dir() {
            self.head(FOLDER, &is, path)
        } else if is.is_symlink() {
            self.head(LINK, &is, path)?;
            let leads = fs::read_link(&at)?;
            let leads = leads.as_os_str().as_bytes();
            self.to.write_all(&(leads.len() as u64).to_le_bytes())?;
            Ok(self.to.write_all(leads)?)
        } else if is.is_file() {
            self.file(&at, &is, path)
        } else {
            Ok(())
        }
    }

    fn file(&mut self, at: &Path, is: &Metadata, path: &[u8]) -> Result<(), BadArchive> {
        let length = is.len();
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > BYTES_MAX {
            return Err(BadArchive::Large);
        }
        self.head(FILE, is, path)?;
        self.to.write_all(&length.to_le_bytes())?;
        let copied = io::copy(&mut File::open(at)?.take(length), &mut self.to)?;
        // One that changes is of no use.
        if copied == length { Ok(()) } else { Err(BadArchive::Unreadable) }
    }

    fn head(&mut self, kind: u8, is: &Metadata, path: &[u8]) -> Result<(), BadArchive> {
        let mode = u16::try_from(is.mode() & 0o777).expect("nine bits");
        let length = u16::try_from(path.len()).map_err(|_| BadArchive::Large)?;
        self.to.write_all(&[kind])?;
        self.to.write_all(&mode.to_le_bytes())?;
        self.to.write_all(&is.mtime().to_le_bytes())?;
        self.to.write_all(&length.to_le_bytes())?;
        Ok(self.to.write_all(path)?)
    }
}

/// Writes what an archive holds into the folders `keep` of `top`, which are not there yet.
pub(crate) fn unpack(from: Stoppable, top: &Path, keep: &[String]) -> Result<(), BadArchive> {
    let folder = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat2(CWD, top, folder, Mode::empty(), ResolveFlags::empty())?;
    let mut from = BufReader::new(from);
    let mut magic = [0; MAGIC.len()];
    exact(&mut from, &mut magic)?;
    if magic != MAGIC {
        return Err(BadArchive::Unreadable);
    }
    let mut unpacking = Unpacking { from, top, keep: outermost(keep), entries: 0, bytes: 0 };
    while unpacking.entry()? {}
    match unpacking.from.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(BadArchive::Unreadable),
    }
}

struct Unpacking<'a> {
    from: BufReader<Stoppable>,
    top: OwnedFd,
    keep: Vec<&'a str>,
    entries: u64,
    bytes: u64,
}

impl Unpacking<'_> {
    /// Reads one. `false`: it was the end.
    fn entry(&mut self) -> Result<bool, BadArchive> {
        let kind = u8::from_le_bytes(self.number()?);
        if kind == END {
            return Ok(false);
        }
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(BadArchive::Large);
        }
        let mode = Mode::from_raw_mode(u32::from(u16::from_le_bytes(self.number()?)) & 0o777);
        let time = i64::from_le_bytes(self.number()?);
        let mut path = vec![0; usize::from(u16::from_le_bytes(self.number()?))];
        exact(&mut self.from, &mut path)?;
        let refused = || BadArchive::Entry(String::from_utf8_lossy(&path).escape_debug().to_string());
        if !is_plain(&path) {
            return Err(refused());
        }
        let within = self.keep.iter().any(|keep| is_within(&path, keep.as_bytes()));
        let above = self.keep.iter().any(|keep| is_within(keep.as_bytes(), &path));
        let in_place = within || above && kind == FOLDER;
        if !in_place {
            return Err(refused());
        }
        let (parent, name) = self.parent(&path)?;
        match kind {
            FOLDER => match mkdirat(&parent, name, mode | Mode::RWXU) {
                // One above what is kept may be there.
                Err(Errno::EXIST) if above && !within => {}
                done => done?,
            },
            FILE => self.file(parent.as_fd(), name, mode, time)?,
            LINK => {
                let length = u64::from_le_bytes(self.number()?);
                let length =
                    usize::try_from(length).ok().filter(|length| (1..=PATH_BYTES_MAX).contains(length));
                let mut leads = vec![0; length.ok_or_else(refused)?];
                exact(&mut self.from, &mut leads)?;
                symlinkat(&leads[..], &parent, name)?;
            }
            _ => return Err(BadArchive::Unreadable),
        }
        Ok(true)
    }

    /// The folder that an entry is in, and its name there.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), BadArchive> {
        let at = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = at.map_or((&b"."[..], path), |at| (&path[..at], &path[at + 1..]));
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((openat2(&self.top, parent, flags, Mode::empty(), beneath)?, name))
    }

    fn file(&mut self, parent: impl AsFd, name: &[u8], mode: Mode, time: i64) -> Result<(), BadArchive> {
        let length = u64::from_le_bytes(self.number()?);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > BYTES_MAX {
            return Err(BadArchive::Large);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat2(parent, name, flags, Mode::RUSR | Mode::WUSR, ResolveFlags::BENEATH)?;
        let mut file = File::from(opened);
        if io::copy(&mut self.from.by_ref().take(length), &mut file)? != length {
            return Err(BadArchive::Unreadable);
        }
        file.set_permissions(fs::Permissions::from_mode(mode.as_raw_mode()))?;
        let time = u64::try_from(time)
            .ok()
            .and_then(|time| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time)));
        // A time before all times is of no importance.
        Ok(time.map_or(Ok(()), |time| file.set_modified(time))?)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], BadArchive> {
        let mut bytes = [0; N];
        exact(&mut self.from, &mut bytes)?;
        Ok(bytes)
    }
}

/// A cut is no trouble of the system's.
fn exact(from: &mut impl Read, to: &mut [u8]) -> Result<(), BadArchive> {
    from.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BadArchive::Unreadable,
        _ => BadArchive::System(error),
    })
}

fn is_plain(path: &[u8]) -> bool {
    let plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    path.len() <= PATH_BYTES_MAX
        && path.split(|&byte| byte == b'/').all(plain)
        && path.split(|&byte| byte == b'/').count() <= DEPTH_MAX
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn keep() -> Vec<String> {
        ["deps", "sub/deps"].map(str::to_owned).to_vec()
    }

    fn going(file: File) -> Stoppable {
        Stoppable { file, stop: CancellationToken::new() }
    }

    fn archive(bytes: &[u8]) -> Stoppable {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        going(file)
    }

    fn entry(kind: u8, path: &[u8], rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(path.len()).unwrap().to_le_bytes();
        let has_rest = kind == FILE || kind == LINK;
        let size = if has_rest { (rest.len() as u64).to_le_bytes().to_vec() } else { Vec::new() };
        [&[kind][..], &0o755_u16.to_le_bytes(), &1_i64.to_le_bytes(), &length, path, &size, rest].concat()
    }

    fn crafted(entries: &[Vec<u8>]) -> Vec<u8> {
        [MAGIC, &entries.concat(), &[END]].concat()
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<(), BadArchive>) {
        let top = tempfile::tempdir().unwrap();
        let done = unpack(archive(bytes), top.path(), &keep());
        (top, done)
    }

    /// Each path with its mode, its time and what is in it.
    fn listing(top: &Path) -> BTreeMap<Vec<u8>, (u32, i64, Vec<u8>)> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![top.to_owned()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let is = path.symlink_metadata().unwrap();
                let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
                let (time, content) = match () {
                    () if is.is_dir() => (0, b"folder".to_vec()),
                    () if is.is_symlink() => {
                        (0, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
                    }
                    () => (is.mtime(), fs::read(&path).unwrap()),
                };
                found.insert(name, (is.mode(), time, content));
                if is.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }

    #[test]
    fn what_was_made_comes_out_as_it_was() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("deps/.bin/empty")).unwrap();
        fs::create_dir_all(top.path().join("sub/deps")).unwrap();
        fs::write(top.path().join("sub/beside"), "not kept").unwrap();
        fs::write(top.path().join("deps/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(top.path().join("deps/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(top.path().join("deps").join(OsStr::from_bytes(b"od\xff\nd \x1b[0m")), b"\0\xff").unwrap();
        symlink("../run", top.path().join("deps/.bin/run")).unwrap();
        symlink("/etc", top.path().join("sub/deps/out")).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        pack(top.path(), &keep(), going(file.reopen().unwrap())).unwrap();
        let (new, done) = unpacked(&fs::read(file.path()).unwrap());
        done.unwrap();
        fs::remove_file(top.path().join("sub/beside")).unwrap();
        assert_eq!(listing(new.path()), listing(top.path()));
        let absent =
            pack(top.path(), &["none".to_owned()], going(tempfile::tempfile().unwrap())).unwrap_err();
        assert!(absent.to_string().contains("`none`"), "{absent}");
    }

    #[test]
    fn what_nobody_waits_for_any_more_goes_no_further() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("deps")).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let stopped = || {
            let to = going(file.reopen().unwrap());
            to.stop.cancel();
            to
        };
        let packed = pack(top.path(), &["deps".to_owned()], stopped());
        assert!(matches!(packed, Err(BadArchive::System(_))), "{packed:?}");
        assert_eq!(file.as_file().metadata().unwrap().len(), 0);
        fs::write(file.path(), crafted(&[entry(FOLDER, b"deps", b"")])).unwrap();
        let new = tempfile::tempdir().unwrap();
        let done = unpack(stopped(), new.path(), &keep());
        assert!(matches!(done, Err(BadArchive::System(_))), "{done:?}");
        assert_eq!(fs::read_dir(new.path()).unwrap().count(), 0);
    }

    /// S46: nothing is written but what was asked for, and nothing through a link.
    #[test]
    fn nothing_is_written_beside_what_is_kept() {
        let names: [&[u8]; 10] = [
            b"../x",
            b"/x",
            b"deps/../x",
            b"deps/./x",
            b"deps//x",
            b"",
            b"other",
            b"deps\0x",
            b"depsx",
            b"sub/x",
        ];
        for name in names {
            let (top, done) = unpacked(&crafted(&[entry(FOLDER, b"deps", b""), entry(FILE, name, b"x")]));
            assert!(matches!(done, Err(BadArchive::Entry(_))), "{name:?}: {done:?}");
            assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
        }
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().as_os_str().as_bytes();
        let through =
            [entry(FOLDER, b"deps", b""), entry(LINK, b"deps/l", path), entry(FILE, b"deps/l/x", b"x")];
        let (_top, done) = unpacked(&crafted(&through));
        assert!(matches!(done, Err(BadArchive::System(_))), "{done:?}");
        let onto = [entry(FOLDER, b"deps", b""), entry(LINK, b"deps/l", b"m"), entry(FILE, b"deps/l", b"x")];
        assert!(unpacked(&crafted(&onto)).1.is_err(), "a name came twice");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let deep = [b"deps", "/d".repeat(DEPTH_MAX).as_bytes()].concat();
        assert!(matches!(unpacked(&crafted(&[entry(FOLDER, &deep, b"")])).1, Err(BadArchive::Entry(_))));
    }

    /// S46: a length that is only claimed takes no room.
    #[test]
    fn a_length_that_is_only_claimed_is_not_believed() {
        let mut huge = entry(FILE, b"deps/x", b"");
        let at = huge.len() - 8;
        huge[at..].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        let large = unpacked(&crafted(&[entry(FOLDER, b"deps", b""), huge.clone()])).1;
        assert!(matches!(large, Err(BadArchive::Large)), "{large:?}");
        huge[at..].copy_from_slice(&1000_u64.to_le_bytes());
        let cut = unpacked(&crafted(&[entry(FOLDER, b"deps", b""), huge])).1;
        assert!(matches!(cut, Err(BadArchive::Unreadable)), "{cut:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            let bytes = if magic { [MAGIC, &bytes[..]].concat() } else { bytes };
            let _ = unpacked(&bytes);
        }
    }
}
