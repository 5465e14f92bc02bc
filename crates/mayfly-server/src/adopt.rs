//! Whether a folder may be the data folder, found out before anything in it is touched.
//!
//! ```text
//! not there, or empty ──────────────► made ours: closed to others, with our mark in it
//! our mark, or a database of ours ──► ours
//! anything else ────────────────────► refused: somebody's files are in it
//! ```
//!
//! The mark comes before all else, so that a folder of ours is known by it whatever ended us.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use mayfly_store::{Store, StoreError};
use rustix::fs::{Access, access};

use crate::data::{DataError, NO_LINK, STORE, io_error};

/// The name of the file by which a folder is known to be ours.
const MARK: &str = "mayfly-data";
/// What is in it, for whoever looks.
const MARK_WORDS: &[u8] = b"This folder is mayfly's: its queue, its logs and its results.\n";
/// The bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// Makes a data folder if it is not there, or an empty one ours, and closes it to others.
///
/// # Errors
/// If it is another's, or has files in it that are not ours: nothing is changed then.
pub fn make_data_folder(path: &Path) -> Result<(), DataError> {
    // What is there and is no folder is named below, in better words.
    if !path.exists() {
        make(path)?;
    }
    look(path)?;
    close(path)?;
    mark(path).map_err(io_error("write", &path.join(MARK)))
}

/// Whether a folder may be the data folder. Nothing is made or changed; one that is not there is to be made.
pub(crate) fn look(path: &Path) -> Result<(), DataError> {
    if !path.exists() {
        return can_be_made(path);
    }
    check_owner(path)?;
    match is_empty(path)? || is_marked(path) || has_our_database(path) {
        true => Ok(()),
        false => Err(DataError::Others { path: path.to_owned() }),
    }
}

/// Makes a folder for us alone in one of ours, or closes the one that is there.
pub(crate) fn private(path: &Path) -> Result<(), DataError> {
    if !path.exists() {
        make(path)?;
    }
    check_owner(path)?;
    close(path)
}

fn make(path: &Path) -> Result<(), DataError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| no_way(path, source))
}

/// Why a folder cannot be made.
fn no_way(path: &Path, source: io::Error) -> DataError {
    match path.ancestors().find(|above| above.exists()) {
        Some(above) if !above.is_dir() => DataError::NoFolder { path: above.to_owned() },
        Some(above) if source.kind() == io::ErrorKind::PermissionDenied => {
            DataError::Closed { path: path.to_owned(), above: above.to_owned() }
        }
        _ => io_error("make the folder", path)(source),
    }
}

fn can_be_made(path: &Path) -> Result<(), DataError> {
    match path.ancestors().find(|above| above.exists()) {
        Some(above) if above.is_dir() => access(above, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|errno| no_way(path, io::Error::from(errno))),
        Some(above) => Err(DataError::NoFolder { path: above.to_owned() }),
        None => Ok(()),
    }
}

fn check_owner(path: &Path) -> Result<(), DataError> {
    let is = fs::metadata(path).map_err(io_error("look at", path))?;
    let user = rustix::process::geteuid().as_raw();
    if !is.is_dir() {
        return Err(DataError::NoFolder { path: path.to_owned() });
    }
    if is.uid() != user {
        return Err(DataError::Foreign { path: path.to_owned(), owner: is.uid(), user });
    }
    if is.mode() & OTHERS_WRITE != 0 {
        return Err(DataError::Shared { path: path.to_owned(), mode: is.mode() & 0o7777 });
    }
    Ok(())
}

fn is_empty(path: &Path) -> Result<bool, DataError> {
    let mut entries = fs::read_dir(path).map_err(io_error("look into", path))?;
    Ok(entries.next().is_none())
}

fn is_marked(path: &Path) -> bool {
    fs::symlink_metadata(path.join(MARK)).is_ok_and(|mark| mark.is_file())
}

/// A folder from before there was a mark.
fn has_our_database(path: &Path) -> bool {
    let database = path.join(STORE);
    let there = fs::symlink_metadata(&database).is_ok_and(|file| file.is_file() && file.len() > 0);
    there && matches!(Store::look(&database), Ok(_) | Err(StoreError::Newer { .. } | StoreError::Damaged(_)))
}

fn close(path: &Path) -> Result<(), DataError> {
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io_error("set the mode of", path))
}

fn mark(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).custom_flags(NO_LINK).open(path.join(MARK));
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made?.write_all(MARK_WORDS),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::data::{DataFolder, check_data_folder};

    fn parent() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_with_files_of_somebody_is_refused_and_left_as_it_is() {
        for name in ["mayfly.db", "lock", "key", "notes.txt", "results"] {
            let parent = parent();
            let folder = parent.path().join("folder");
            fs::create_dir_all(folder.join("incoming")).expect("made");
            fs::write(folder.join("incoming/precious"), "x").expect("written");
            fs::write(folder.join(name), "no").expect("written");
            set_mode(&folder, 0o755);
            let before = names(&folder);
            for refused in
                [DataFolder::open(&folder).map(drop), make_data_folder(&folder), check_data_folder(&folder)]
            {
                let error = refused.expect_err("not ours");
                assert!(matches!(&error, DataError::Others { path } if *path == folder), "{error}");
            }
            assert_eq!(fs::read_to_string(folder.join("incoming/precious")).expect("there"), "x");
            assert_eq!((mode(&folder), names(&folder)), (0o755, before), "{name}");
        }
    }

    #[test]
    fn a_folder_is_ours_from_its_first_moment_on() {
        let parent = parent();
        let new = parent.path().join("a/new");
        make_data_folder(&new).expect("made");
        assert_eq!((names(&new), mode(&new)), (vec![MARK.to_owned()], 0o700));
        // What comes before the first database, and a mark of which only the name was written.
        fs::write(new.join("start.lock"), "").expect("written");
        fs::write(new.join("tunnel.json"), "{}").expect("written");
        fs::write(new.join(MARK), "").expect("written");
        DataFolder::open(&new).expect("ours");
        let empty = parent.path().join("empty");
        fs::create_dir(&empty).expect("made");
        DataFolder::open(&empty).expect("it is nobody's");
    }

    /// Before there was a mark, the database told.
    #[test]
    fn a_folder_with_a_database_of_ours_is_ours_without_a_mark() {
        let parent = parent();
        drop(Store::open(&parent.path().join(STORE)).expect("made"));
        DataFolder::open(parent.path()).expect("ours");
        assert!(parent.path().join(MARK).is_file());
    }

    #[test]
    fn a_mark_is_a_file_and_no_link() {
        let parent = parent();
        symlink("/etc/passwd", parent.path().join(MARK)).expect("made");
        assert!(matches!(make_data_folder(parent.path()), Err(DataError::Others { .. })));
    }

    #[test]
    fn what_is_only_looked_at_is_not_made() {
        let parent = parent();
        let new = parent.path().join("a/b");
        check_data_folder(&new).expect("it can be made");
        set_mode(parent.path(), 0o755);
        check_data_folder(parent.path()).expect("it can be ours");
        assert_eq!((mode(parent.path()), names(parent.path()).len()), (0o755, 0));
    }
}
