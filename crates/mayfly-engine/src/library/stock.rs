//! What tasks run with, kept by its content beside the library: archives of resources, and trees that servers run.
//!
//! It is looked at when a task is accepted, and handed out as it is from then on. When something was last asked for is its
//! own time, by which [`prune`](crate::prune) goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use mayfly_core::causes;
use mayfly_library::tool::{self, Tool};
use mayfly_library::{Problem, Resource, ResourceId, pack};

use super::LibraryConfig;
use crate::prune::Kept;
use crate::submit::SubmitError;

/// Where it is kept, and the time at which it is asked for.
pub(super) struct Stock {
    pub(super) config: LibraryConfig,
    pub(super) kept: Kept,
    pub(super) now: Timestamp,
}

/// Where the archive of this SHA-256 is kept.
pub(crate) fn archive_at(archives: &Path, sha256: &str) -> PathBuf {
    archives.join(format!("{sha256}.tar"))
}

impl Stock {
    /// Keeps a resource's archive, unless it is there as it was: only then is it packed.
    pub(super) fn keep(&self, resource: &Resource) -> io::Result<()> {
        if self.has(&resource.sha256) {
            return Ok(());
        }
        self.put(&resource.sha256, &resource.archive())
    }

    /// Whether an archive is there as it was; it is asked for now.
    pub(super) fn has(&self, sha256: &str) -> bool {
        let path = archive_at(&self.config.archives, sha256);
        self.kept.ask_for(&path, self.now) && fs::read(path).is_ok_and(|there| pack::sha256(&there) == sha256)
    }

    /// Keeps an archive.
    pub(super) fn put(&self, sha256: &str, archive: &[u8]) -> io::Result<()> {
        let archives = &self.config.archives;
        fs::create_dir_all(archives)?;
        let mut beside = tempfile::NamedTempFile::new_in(archives)?;
        io::Write::write_all(&mut beside, archive)?;
        beside.as_file().set_modified(SystemTime::from(self.now))?;
        beside.as_file().sync_all()?;
        beside.persist(archive_at(archives, sha256)).map_err(|error| error.error)?;
        sync(archives)
    }

    /// Keeps what a server runs, once it is what its owner has locked, unless it is there.
    pub(super) fn keep_tool(&self, id: &ResourceId, tool: &Tool) -> Result<(), SubmitError> {
        let tools = &self.config.tools;
        let kept = tools.join(&tool.sha256);
        if self.kept.ask_for(&kept, self.now) {
            return Ok(());
        }
        let wrong = |words: String| {
            let words = format!("{}: {words}: `mayfly library lock` fetches it again", tool.resolved);
            SubmitError::Library(Problem::new(format!("{id}/{}", tool::FILE), words).into())
        };
        let tree = self.config.folder.join(tool::FOLDER).join(&tool.sha256);
        let is_locked = |tree: &Path| match tool::sha256(tree) {
            Ok(found) if found == tool.sha256 => Ok(()),
            Ok(_) => Err(wrong("what is kept of it is not what was locked".to_owned())),
            Err(error) => Err(wrong(causes(&error))),
        };
        is_locked(&tree)?;
        fs::create_dir_all(tools).map_err(SubmitError::Archives)?;
        let beside = tempfile::tempdir_in(tools).map_err(SubmitError::Archives)?;
        let copy = beside.path().join("tree");
        tool::copy(&tree, &copy).map_err(|error| wrong(causes(&error)))?;
        // What is kept is never looked at again: it is all of it, and on the disk, before it has its name.
        is_locked(&copy)?;
        tool::sync(&copy).map_err(SubmitError::Archives)?;
        self.kept.ask_for(&copy, self.now);
        // Another task may have been faster.
        match fs::rename(&copy, &kept) {
            Err(error) if !kept.is_dir() => Err(SubmitError::Archives(error)),
            _ => sync(tools).map_err(SubmitError::Archives),
        }
    }
}

fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
