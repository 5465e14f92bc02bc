//! The folder of one kind and namespace, and how a resource comes to its place in it and leaves: whole, or not at all.
//!
//! ```text
//! .mayfly-…/new  written ─► on the disk ─► changes places with the old one ─► .mayfly-… goes, with the old one in it
//! ```
//!
//! Who changes something here has the folder's lock. So what stands beside under such a name is of somebody who ended
//! too early, and goes; what was to be put back by it is put back.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::tree::{self, File};

/// What the names begin with of what stands beside the resources for as long as something is changed.
const BESIDE: &str = ".mayfly-";
/// In one of these: what is to come to its place.
const NEW: &str = "new";
/// In one of these: what is taken from its place, under its name.
const OLD: &str = "old";

/// Such a folder, which nobody else changes meanwhile.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    _lock: fs::File,
}

impl Shelf {
    /// Waits for the lock of a folder.
    pub(crate) fn lock(folder: &Path) -> io::Result<Self> {
        let lock = fs::File::open(folder)?;
        lock.lock()?;
        let shelf = Self { folder: folder.to_owned(), _lock: lock };
        shelf.tidy()?;
        Ok(shelf)
    }

    /// Puts a folder of these files there, before which another of its name gives way.
    pub(crate) fn replace(&self, name: &str, files: &[File]) -> io::Result<()> {
        let (mut beside, place) = (self.beside()?, self.folder.join(name));
        let new = beside.path().join(NEW);
        write(&new, files)?;
        match exchange(&new, &place) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(&new, &place)?,
            Err(error) if is_unknown(&error) => replace_in_two_steps(&mut beside, &place)?,
            Err(error) => return Err(error),
        }
        self.settle(beside)
    }

    /// Puts it there where nothing of its name is; else the error is [`io::ErrorKind::AlreadyExists`].
    pub(crate) fn add(&self, name: &str, files: &[File]) -> io::Result<()> {
        let (beside, place) = (self.beside()?, self.folder.join(name));
        let new = beside.path().join(NEW);
        write(&new, files)?;
        match rename_to_free(&new, &place) {
            Err(error) if is_unknown(&error) && place.symlink_metadata().is_err() => fs::rename(&new, &place),
            Err(error) if is_unknown(&error) => Err(io::ErrorKind::AlreadyExists.into()),
            renamed => renamed,
        }?;
        self.settle(beside)
    }

    /// Writes one file into a folder that is there, and leaves alone what else is in it.
    pub(crate) fn write(&self, name: &str, file: &File) -> io::Result<()> {
        let (beside, place) = (self.beside()?, self.folder.join(name));
        let new = beside.path().join(NEW);
        write_file(&new, file)?;
        fs::rename(&new, place.join(&file.path))?;
        sync(&place)?;
        beside.close()
    }

    /// Takes what is called so away, so that nobody sees it half removed. False: it was not there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        let beside = self.beside()?;
        match fs::rename(self.folder.join(name), beside.path().join(NEW)) {
            Ok(()) => self.settle(beside).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn beside(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix(BESIDE).tempdir_in(&self.folder)
    }

    /// Lets what was replaced go, once the disk has what there is instead.
    fn settle(&self, beside: TempDir) -> io::Result<()> {
        sync(&self.folder)?;
        beside.close()
    }

    /// Takes away what others left who ended too early.
    fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_left = entry.file_name().as_encoded_bytes().starts_with(BESIDE.as_bytes());
            if is_left && entry.file_type()?.is_dir() {
                self.put_back(&entry.path().join(OLD))?;
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Puts back what was taken from its place and has none after it.
    fn put_back(&self, old: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let place = self.folder.join(entry.file_name());
            if place.symlink_metadata().is_err() {
                fs::rename(entry.path(), place)?;
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(target_os = "linux")]
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn rename_to_free(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a system, or a file system, does not know what it was asked for.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// The same as an exchange where two folders cannot change places: for a moment there is none.
fn replace_in_two_steps(beside: &mut TempDir, place: &Path) -> io::Result<()> {
    let old = beside.path().join(OLD);
    fs::create_dir(&old)?;
    let old = old.join(place.file_name().unwrap_or_default());
    // Until there is another in its place, the old one stays, whatever goes wrong.
    beside.disable_cleanup(true);
    match fs::rename(place, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::rename(beside.path().join(NEW), place) {
        Ok(()) => {}
        Err(error) => {
            fs::rename(&old, place)?;
            beside.disable_cleanup(false);
            return Err(error);
        }
    }
    beside.disable_cleanup(false);
    Ok(())
}

/// Writes files below a folder that is not there yet, and sees them on the disk.
fn write(folder: &Path, files: &[File]) -> io::Result<()> {
    fs::create_dir(folder)?;
    for file in files {
        let path = folder.join(&file.path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        write_file(&path, file)?;
    }
    sync_folders(folder)
}

fn write_file(path: &Path, file: &File) -> io::Result<()> {
    let mut written = fs::File::create_new(path)?;
    written.write_all(&file.bytes)?;
    tree::set_mode(path, if file.executable { 0o755 } else { 0o644 })?;
    written.sync_all()
}

fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file that says so.
    fn files(says: &str) -> [File; 1] {
        [File { path: "file".to_owned(), executable: false, bytes: says.as_bytes().to_vec() }]
    }

    fn says(place: &Path) -> String {
        fs::read_to_string(place.join("file")).expect("a file")
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn a_folder_takes_the_place_of_another_in_each_way() {
        let in_two_steps = |shelf: &Shelf, name: &str, files: &[File]| {
            let mut beside = shelf.beside()?;
            write(&beside.path().join(NEW), files)?;
            replace_in_two_steps(&mut beside, &shelf.folder.join(name))?;
            shelf.settle(beside)
        };
        for replace in [Shelf::replace, in_two_steps] {
            let top = tempfile::tempdir().expect("a folder");
            let shelf = Shelf::lock(top.path()).expect("the lock");
            for text in ["first", "second"] {
                replace(&shelf, "place", &files(text)).expect("taken");
                assert_eq!(says(&top.path().join("place")), text);
                assert_eq!(count(top.path()), 1, "nothing else is left");
            }
        }
    }

    #[test]
    fn a_plain_file_gives_way_and_goes() {
        let top = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::lock(top.path()).expect("the lock");
        fs::write(top.path().join("place"), "plain").expect("a file");
        shelf.replace("place", &files("new")).expect("replaced");
        assert_eq!((says(&top.path().join("place")).as_str(), count(top.path())), ("new", 1));
        fs::write(top.path().join("other"), "plain").expect("a file");
        assert!(shelf.remove("other").expect("removed") && !shelf.remove("other").expect("nothing"));
    }

    #[test]
    fn what_ended_too_early_is_in_nobodys_way_and_loses_nothing() {
        let top = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            (".mayfly-1/new", "half"),
            (".mayfly-2/new", "whole"),
            (".mayfly-2/old/taken", "before"),
            (".mayfly-3/old/place", "older"),
            ("place", "now"),
            (".old-notes", "somebody's own"),
        ] {
            fs::create_dir_all(top.path().join(path)).expect("folders");
            fs::write(top.path().join(path).join("file"), text).expect("a file");
        }
        let shelf = Shelf::lock(top.path()).expect("the lock");
        assert_eq!(says(&top.path().join("taken")), "before", "it is put back");
        assert_eq!((says(&top.path().join("place")).as_str(), count(top.path())), ("now", 3));
        assert!(shelf.remove("taken").expect("removed") && shelf.remove("place").expect("removed"));
        assert_eq!(count(top.path()), 1);
    }

    #[test]
    fn whoever_looks_finds_a_resource_while_it_is_replaced() {
        let top = tempfile::tempdir().expect("a folder");
        let (shelf, place) = (Shelf::lock(top.path()).expect("the lock"), top.path().join("place"));
        shelf.replace("place", &files("0")).expect("put");
        let looked = std::thread::scope(|scope| {
            let (done, ended) = std::sync::mpsc::channel::<()>();
            let looks = scope.spawn(move || {
                let mut looks = 0_u32;
                while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    assert!(place.is_dir(), "there was a moment without one");
                    looks += 1;
                }
                looks
            });
            for text in 1..30 {
                shelf.replace("place", &files(&text.to_string())).expect("taken");
            }
            drop(done);
            looks.join().expect("it saw one each time")
        });
        assert!(looked > 0);
    }
}
