//! Finds what git would silently leave out: repositories inside the workspace, and what it cannot read.
//!
//! The machine is about to die, so the workspace may be changed here: an inner repository's `.git` is removed
//! so that its files can be saved with the rest (its history is lost, and that is told), and a folder or file
//! that its own user may not read is made readable.
//!
//! Bound: [`ENTRIES_MAX`]; beyond it git sees the tree as it is.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The most entries that are looked at.
const ENTRIES_MAX: usize = 2_000_000;

/// Prepares the tree, and tells what could not be kept of it.
pub(crate) fn open_up(workspace: &Path, is_gitlink: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut walk = Walk { workspace, left: ENTRIES_MAX, lost: Vec::new() };
    let mut folders = vec![workspace.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match walk.entries(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                walk.lose(&folder, &format!("its folder cannot be read: {error}"));
                continue;
            }
        };
        for entry in entries {
            folders.extend(walk.visit(&folder, &entry, &is_gitlink));
        }
        if walk.left == 0 {
            walk.lost.push(format!("inner repositories: the workspace has more than {ENTRIES_MAX} entries"));
            break;
        }
    }
    walk.lost
}

struct Walk<'a> {
    workspace: &'a Path,
    left: usize,
    lost: Vec<String>,
}

impl Walk<'_> {
    fn entries(&mut self, folder: &Path) -> io::Result<Vec<DirEntry>> {
        let listed = fs::read_dir(folder).or_else(|_| {
            allow(folder, 0o700)?;
            fs::read_dir(folder)
        })?;
        let entries: Vec<_> = listed.take(self.left).flatten().collect();
        self.left -= entries.len();
        Ok(entries)
    }

    /// Looks at one entry, and gives it back if it is a folder to look into.
    fn visit(
        &mut self,
        folder: &Path,
        entry: &DirEntry,
        is_gitlink: &impl Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        let (path, metadata) = (entry.path(), entry.metadata().ok()?);
        if entry.file_name() == ".git" {
            if folder != self.workspace {
                self.inner(folder, &path, &metadata, is_gitlink);
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

    fn inner(&mut self, folder: &Path, git: &Path, metadata: &Metadata, is_gitlink: &impl Fn(&Path) -> bool) {
        if is_gitlink(folder.strip_prefix(self.workspace).unwrap_or(folder)) {
            return self.lose(folder, "what was changed in this submodule");
        }
        let removed = if metadata.is_dir() { fs::remove_dir_all(git) } else { fs::remove_file(git) };
        match removed {
            Ok(()) => {
                self.lose(folder, "the history of this repository inside the workspace; its files are saved");
            }
            Err(error) => self.lose(folder, &format!("this repository inside the workspace: {error}")),
        }
    }

    fn lose(&mut self, path: &Path, what: &str) {
        let shown = path.strip_prefix(self.workspace).unwrap_or(path);
        self.lost.push(format!("{}: {what}", shown.display().to_string().escape_debug()));
    }
}

fn allow(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
}
