//! Finds what git would silently leave out: repositories inside the workspace, and what it cannot read.
//!
//! The machine is about to die, so the workspace may be changed here: an inner repository's `.git` is removed
//! so that its files can be saved with the rest (its history is lost, and that is told), and a folder or file
//! that its own user may not read is made readable.
//!
//! Bounds: [`ENTRIES_MAX`], beyond it git sees the tree as it is; [`INNER_MAX`] inner repositories.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mayfly_wire::api::Collected;

/// The most entries that are looked at.
const ENTRIES_MAX: usize = 2_000_000;
/// The most inner repositories that are dealt with.
const INNER_MAX: usize = 500;

/// What was found in a workspace. All paths are relative to it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The folders of inner repositories.
    pub(crate) inner: Vec<PathBuf>,
    /// What could not be looked at, a line each.
    pub(crate) lost: Vec<String>,
}

/// Looks through the tree, and makes readable what is not.
pub(crate) fn look_through(workspace: &Path) -> Found {
    let (mut found, mut left) = (Found::default(), ENTRIES_MAX);
    let mut folders = vec![workspace.to_owned()];
    while let Some(folder) = folders.pop() {
        match entries(&folder, left) {
            Ok(entries) => {
                left -= entries.len();
                folders.extend(entries.iter().filter_map(|entry| found.visit(workspace, &folder, entry)));
            }
            Err(error) => found.lose(workspace, &folder, &format!("its folder cannot be read: {error}")),
        }
        if left == 0 {
            found.lost.push(format!("inner repositories: the workspace has more than {ENTRIES_MAX} entries"));
            break;
        }
    }
    found
}

/// Makes plain folders of the inner repositories that are not submodules, and tells what is lost with that.
pub(crate) fn dissolve(
    workspace: &Path,
    inner: &[PathBuf],
    submodules: &HashSet<PathBuf>,
    collected: &mut Collected,
) {
    for path in inner {
        if submodules.contains(path) {
            collected.unsaved.push(tell(path, "what was changed in this submodule"));
            continue;
        }
        let git = workspace.join(path).join(".git");
        match fs::remove_dir_all(&git).or_else(|_| fs::remove_file(&git)) {
            Ok(()) => collected.notes.push(tell(
                path,
                "the history of this repository inside the workspace is not kept; its files are",
            )),
            Err(error) => {
                collected.unsaved.push(tell(path, &format!("this repository inside the workspace: {error}")));
            }
        }
    }
}

/// A line about a path.
pub(crate) fn tell(path: &Path, what: &str) -> String {
    format!("{}: {what}", path.display().to_string().escape_debug())
}

impl Found {
    /// Looks at one entry, and gives it back if it is a folder to look into.
    fn visit(&mut self, workspace: &Path, folder: &Path, entry: &DirEntry) -> Option<PathBuf> {
        let (path, metadata) = (entry.path(), entry.metadata().ok()?);
        if entry.file_name() == ".git" {
            if folder != workspace {
                self.inner(workspace, folder);
            }
            return None;
        }
        let wanted = if metadata.is_dir() { 0o700 } else { 0o400 };
        if !metadata.is_symlink() && metadata.mode() & wanted != wanted {
            // If it does not work, git will say so.
            let _ = allow(&path, metadata.mode() | wanted);
        }
        metadata.is_dir().then_some(path)
    }

    fn inner(&mut self, workspace: &Path, folder: &Path) {
        match self.inner.len() < INNER_MAX {
            true => self.inner.push(folder.strip_prefix(workspace).unwrap_or(folder).to_owned()),
            false => self.lose(workspace, folder, "this repository inside the workspace: there are too many"),
        }
    }

    fn lose(&mut self, workspace: &Path, path: &Path, what: &str) {
        self.lost.push(tell(path.strip_prefix(workspace).unwrap_or(path), what));
    }
}

fn entries(folder: &Path, entries_max: usize) -> io::Result<Vec<DirEntry>> {
    let listed = fs::read_dir(folder).or_else(|_| {
        allow(folder, 0o700)?;
        fs::read_dir(folder)
    })?;
    Ok(listed.take(entries_max).flatten().collect())
}

/// Sets the mode of a file or folder.
pub(crate) fn allow(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
}
