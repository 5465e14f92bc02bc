//! Takes the content of plain files in without git, which hashes each byte several times, and slowly: that of what was
//! changed is most of what a bundle holds.
//!
//! ```text
//! a file ──► read, and named by its hash ──► as it was? then that is all
//!              │                              short? an entry of a pack, in the spool ──┐
//!              │                              long? read once more, when it goes out ───┴──► the bundle
//!              └── is nothing for us: git takes it
//! ```
//!
//! It goes out as it is: making it shorter takes longer than bringing it to a disk. What git would change on its way in, what
//! is no plain file, and what is long and would become shorter is left to git.
//!
//! Bounds: [`SPOOLED_BYTES_MAX`] in memory for each of [`THREADS_MAX`]; [`PLAIN_BYTES_MAX`] of what could be shorter.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use simd_adler32::Adler32;
use tokio_util::sync::CancellationToken;

use super::dense::is_dense;
use super::pack::{Naming, entry_bytes, write_entry};

/// The longest content that is in the spool.
const SPOOLED_BYTES_MAX: u64 = 1 << 20;
/// The most bytes that go out as they are though they could be shorter.
const PLAIN_BYTES_MAX: u64 = 256 << 20;
/// The most files that are read at once.
const THREADS_MAX: usize = 4;
/// What is read of a file at once.
const READ_BYTES: usize = 256 * 1024;

/// What was taken in.
#[derive(Debug)]
pub(crate) struct Contents {
    naming: Naming,
    top: OwnedFd,
    kept: Mutex<Spool>,
}

/// What goes out, and where it is until then.
#[derive(Debug)]
struct Spool {
    file: File,
    bytes: u64,
    /// How many bytes could be shorter.
    plain: u64,
    places: HashMap<String, Place>,
}

/// Where a content is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// An entry in the spool.
    Spooled { at: u64, bytes: u64 },
    /// Where it was found.
    File { path: PathBuf, length: u64, check: u32 },
}

/// A file to be taken in, by its path below the workspace.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    /// What the index has.
    pub(crate) known: Option<Named>,
    /// Whether git changes the ends of its lines, if one has a carriage return.
    pub(crate) has_line_ends: bool,
}

/// What a plain file is to an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) executable: bool,
    pub(crate) object: String,
}

impl Contents {
    /// For the files of a workspace, in a repository that holds the commit `base`. `scratch` is a folder on the disk.
    pub(crate) fn new(workspace: &Path, base: &str, scratch: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat2(CWD, workspace, flags, Mode::empty(), ResolveFlags::empty())?;
        let file = tempfile::tempfile_in(scratch)?;
        let kept = Mutex::new(Spool { file, bytes: 0, plain: 0, places: HashMap::new() });
        Ok(Self { naming: Naming::of(base), top, kept })
    }

    /// Takes these in, and gives what each is. `None`: that is for git. What it was given up at is for git as well.
    pub(crate) fn take(&self, files: &[Candidate], given_up: &CancellationToken) -> Vec<Option<Named>> {
        let (next, named) = (AtomicUsize::new(0), Mutex::new(vec![None; files.len()]));
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(file) = files.get(at).filter(|_| !given_up.is_cancelled()) else { return };
                // Whatever is wrong with it, git says so.
                if let Ok(Some(taken)) = self.take_one(file, given_up) {
                    named.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(taken);
                }
            }
        };
        let threads =
            thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(files.len());
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        named.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_one(&self, candidate: &Candidate, given_up: &CancellationToken) -> io::Result<Option<Named>> {
        let Candidate { path, length, known, has_line_ends } = candidate;
        let mut file = self.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != *length {
            return Ok(None);
        }
        let mut whole = Vec::new();
        let (mut hash, mut check) = (self.naming.begin_blob(*length), Adler32::new());
        let mut piece = vec![0; READ_BYTES.min(usize::try_from(*length).unwrap_or(READ_BYTES) + 1)];
        let mut left = *length;
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            let piece = &piece[..read];
            let turns = *has_line_ends && memchr::memchr(b'\r', piece).is_some();
            let Some(less) = left.checked_sub(read as u64).filter(|_| !turns) else { return Ok(None) };
            if given_up.is_cancelled() {
                return Ok(None);
            }
            left = less;
            hash.update(piece);
            match *length > SPOOLED_BYTES_MAX {
                true => check.write(piece),
                false => whole.extend_from_slice(piece),
            }
        }
        if left > 0 {
            return Ok(None);
        }
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let named = Named { executable, object: hex::encode(hash.finish()) };
        let is_known = known.as_ref().is_some_and(|known| known.object == named.object);
        let has_place = is_known
            || match *length > SPOOLED_BYTES_MAX {
                true => self.keep_long(&named.object, path, &file, *length, check.finish()),
                false => self.spool(&named.object, &whole)?,
            };
        Ok(has_place.then_some(named))
    }

    /// Whether it goes out from where it is.
    fn keep_long(&self, object: &str, path: &Path, file: &File, length: u64, check: u32) -> bool {
        let is_dense = is_dense(file, length);
        let mut kept = self.kept();
        let fits = is_dense || kept.has_room(length);
        if fits && !kept.places.contains_key(object) {
            kept.plain += if is_dense { 0 } else { length };
            kept.places.insert(object.to_owned(), Place::File { path: path.to_owned(), length, check });
        }
        fits
    }

    /// Whether it goes out from the spool.
    fn spool(&self, object: &str, content: &[u8]) -> io::Result<bool> {
        let length = content.len() as u64;
        let mut entry = Vec::with_capacity(content.len() + 64);
        write_entry(content, length, &mut entry)?;
        let mut kept = self.kept();
        if kept.places.contains_key(object) {
            return Ok(true);
        }
        if !kept.has_room(length) {
            return Ok(false);
        }
        let (at, bytes) = (kept.bytes, entry.len() as u64);
        kept.file.write_all_at(&entry, at)?;
        (kept.bytes, kept.plain) = (at + bytes, kept.plain + length);
        kept.places.insert(object.to_owned(), Place::Spooled { at, bytes });
        Ok(true)
    }

    /// Of these objects, those that were taken in.
    pub(super) fn choose(&self, objects: &HashSet<&str>) -> Chosen {
        let kept = self.kept();
        let mut places: Vec<_> =
            objects.iter().filter_map(|&object| kept.places.get(object)).cloned().collect();
        places.sort();
        Chosen(places)
    }

    /// Whether it was taken in.
    pub(super) fn has(&self, object: &str) -> bool {
        self.kept().places.contains_key(object)
    }

    /// Writes the entries of these.
    pub(super) fn write(&self, chosen: &Chosen, to: &mut impl Write) -> io::Result<()> {
        let mut spool = self.kept().file.try_clone()?;
        for place in &chosen.0 {
            match place {
                Place::Spooled { at, bytes } => {
                    spool.seek(io::SeekFrom::Start(*at))?;
                    io::copy(&mut (&spool).take(*bytes), to)?;
                }
                Place::File { path, length, check } => {
                    let same = write_entry(self.open(path)?, *length, to)? == *check;
                    if !same {
                        return Err(io::Error::other(format!("`{}` has changed meanwhile", path.display())));
                    }
                }
            }
        }
        Ok(())
    }

    /// Opens a file beneath the workspace, where no link leads on the way.
    fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.top, path, flags, Mode::empty(), beneath)?.into())
    }

    fn kept(&self) -> MutexGuard<'_, Spool> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    fn has_room(&self, plain: u64) -> bool {
        self.plain + plain <= PLAIN_BYTES_MAX
    }
}

/// Contents that go out, in the order in which they are read.
#[derive(Debug)]
pub(super) struct Chosen(Vec<Place>);

impl Chosen {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// How long their entries are.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |place: &Place| match place {
            Place::Spooled { bytes, .. } => *bytes,
            Place::File { length, .. } => entry_bytes(*length),
        };
        self.0.iter().map(bytes).sum()
    }
}
