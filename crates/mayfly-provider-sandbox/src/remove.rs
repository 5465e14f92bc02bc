//! Removes a tree that an agent wrote.
//!
//! Everything is named beneath one open folder and no link is followed, so nothing outside can be touched. A
//! folder inside another is first moved up to the top and emptied there: a tree 100 000 levels deep costs
//! neither stack nor descriptors, and names of any length are fine. Modes are reset on the way (overlayfs
//! itself leaves a folder with mode 000).
//!
//! Bound: one open folder at a time. The processes that wrote the tree must be gone.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes the folder at `path` and everything in it; one that is not there is a success.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_folder(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => File::from(opened?),
    };
    let mut pending = Pending { top, next: 0, folders: Vec::new() };
    pending.empty(".")?;
    while let Some(folder) = pending.folders.pop() {
        pending.empty(&folder)?;
        unlinkat(&pending.top, &folder, AtFlags::REMOVEDIR)?;
    }
    std::fs::remove_dir(path)
}

/// The folders that were moved up and are still to be emptied.
struct Pending {
    top: File,
    next: u64,
    folders: Vec<String>,
}

impl Pending {
    /// Removes the files of one folder of the top, and moves its folders up.
    fn empty(&mut self, folder: &str) -> Result<(), Errno> {
        let open = open_folder(&self.top, folder)?;
        for entry in Dir::read_from(&open)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"."
                || name == c".."
                || self.folders.iter().any(|ours| folder == "." && ours.as_bytes() == name.to_bytes())
            {
                continue;
            }
            match unlinkat(&open, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => self.move_up(&open, name)?,
                done => done?,
            }
        }
        Ok(())
    }

    fn move_up(&mut self, folder: impl std::os::fd::AsFd, name: &std::ffi::CStr) -> Result<(), Errno> {
        // To move a folder its own mode must allow writing, since its `..` changes.
        chmodat(&folder, name, Mode::RWXU, AtFlags::empty())?;
        let ours = self.free_name()?;
        renameat(&folder, name, &self.top, &ours)?;
        self.folders.push(ours);
        Ok(())
    }

    /// A name that is not in the top yet: what an earlier, interrupted removal moved up is still there.
    fn free_name(&mut self) -> Result<String, Errno> {
        loop {
            let name = format!(".gone-{}", self.next);
            self.next += 1;
            match rustix::fs::statat(&self.top, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(name),
                there => drop(there?),
            }
        }
    }
}

fn open_folder(
    at: impl std::os::fd::AsFd,
    path: impl rustix::path::Arg,
) -> Result<std::os::fd::OwnedFd, Errno> {
    openat(at, path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_with_odd_modes_goes_and_what_its_links_name_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let (tree, kept) = (dir.path().join("tree"), dir.path().join("kept"));
        fs::create_dir_all(tree.join("a/b/c")).expect("made");
        fs::create_dir(&kept).expect("made");
        fs::write(kept.join("file"), "x").expect("written");
        symlink(&kept, tree.join("a/link")).expect("linked");
        fs::write(tree.join("a/b/.gone-0"), "x").expect("written");
        fs::create_dir(tree.join(".gone-0")).expect("made");
        fs::set_permissions(tree.join("a/b/c"), PermissionsExt::from_mode(0o000)).expect("set");
        fs::set_permissions(tree.join("a/b"), PermissionsExt::from_mode(0o500)).expect("set");
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists());
        assert!(kept.join("file").exists());
        remove_tree(&tree).expect("already gone");
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).expect("made");
        let mut at = open_folder(CWD, &tree).expect("there");
        for _ in 0..5000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("made");
            at = open_folder(&at, "d").expect("there");
        }
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists());
    }
}
