//! What the set-up commands made: theirs alone, and not the agent's work, for as long as nobody has touched it since.
//!
//! A file is known by its inode and the time at which that last changed, which no program sets; a repository inside, of which
//! git names the folder alone, by all of its files.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What they made in a workspace.
#[derive(Debug, Default)]
pub(crate) struct Made {
    workspace: PathBuf,
    /// What they made, changed or removed.
    files: BTreeMap<PathBuf, Option<Seen>>,
    /// The folders that are kept for later tasks.
    keep: Vec<PathBuf>,
}

/// A file at a moment.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    changed: (i64, i64),
}

impl From<Metadata> for Seen {
    fn from(is: Metadata) -> Self {
        Self { inode: is.ino(), changed: (is.ctime(), is.ctime_nsec()) }
    }
}

impl Made {
    /// `before` and `after` are the files of `workspace` that differ from its commit. What differed before is more than
    /// theirs.
    pub(crate) fn between(
        workspace: &Path,
        before: &HashSet<PathBuf>,
        after: HashSet<PathBuf>,
        keep: &[String],
    ) -> Self {
        let keep = keep.iter().map(PathBuf::from).collect();
        let files = after.into_iter().filter(|path| !before.contains(path));
        let files =
            files.flat_map(|path| if is_folder(&path) { below(workspace, &path) } else { vec![path] });
        let files = files.map(|path| {
            let seen = seen(workspace, &path);
            (path, seen)
        });
        Self { workspace: workspace.to_owned(), files: files.collect(), keep }
    }

    /// Whether a file, or a repository inside, is not the agent's work.
    pub(crate) fn has(&self, path: &Path) -> bool {
        match is_folder(path) {
            true => below(&self.workspace, path).iter().all(|path| self.is_as_it_was(path)),
            false => self.is_as_it_was(path),
        }
    }

    /// Whether it is in a folder that is kept for later tasks: what git does not know there is no work.
    pub(crate) fn is_kept(&self, path: &Path) -> bool {
        self.keep.iter().any(|folder| path.starts_with(folder))
    }

    fn is_as_it_was(&self, path: &Path) -> bool {
        self.files.get(path).is_some_and(|was| *was == seen(&self.workspace, path))
    }

    /// The files that nobody has touched since, without those of folders that are kept.
    pub(crate) fn untouched(&self) -> Vec<&Path> {
        self.files.keys().map(|path| &**path).filter(|path| !self.is_kept(path) && self.has(path)).collect()
    }
}

fn seen(workspace: &Path, path: &Path) -> Option<Seen> {
    workspace.join(path).symlink_metadata().ok().map(Seen::from)
}

fn is_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// The files below a folder, but what git keeps there. One that cannot be read is there itself, as a file that nobody made.
fn below(workspace: &Path, folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(workspace.join(&folder)) else {
            files.push(folder);
            continue;
        };
        for entry in entries.flatten().filter(|entry| entry.file_name() != ".git") {
            let path = folder.join(entry.file_name());
            match entry.file_type() {
                Ok(is) if is.is_dir() => folders.push(path),
                _ => files.push(path),
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_since_is_not_theirs_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let names = ["new", "changed", "mine", "deps/x", "written", "replaced", "removed"];
        fs::create_dir(path("deps")).unwrap();
        for name in names {
            fs::write(path(name), "set up").unwrap();
        }
        let after = names.into_iter().chain(["gone"]).map(PathBuf::from).collect();
        let before = HashSet::from([PathBuf::from("mine")]);
        let made = Made::between(dir.path(), &before, after, &["deps".to_owned()]);
        assert_eq!(made.untouched().len(), 6);
        // Its time has a step, which a test is faster than.
        let begun = fs::metadata(path("written")).unwrap().ctime_nsec();
        while fs::metadata(path("written")).unwrap().ctime_nsec() == begun {
            fs::write(path("written"), "worked").unwrap();
        }
        fs::write(path("other"), "worked").unwrap();
        fs::rename(path("other"), path("replaced")).unwrap();
        fs::remove_file(path("removed")).unwrap();
        fs::write(path("deps/y"), "worked").unwrap();
        let has = ["new", "changed", "gone", "deps/x"].map(Path::new);
        assert!(has.iter().all(|path| made.has(path)));
        assert!(made.is_kept(Path::new("deps/y")) && !made.has(Path::new("deps/y")));
        let has_not = ["mine", "written", "replaced", "removed", "dep", "elsewhere"].map(Path::new);
        assert!(!has_not.iter().any(|path| made.has(path)));
        assert_eq!(made.untouched(), ["changed", "gone", "new"].map(Path::new));
    }

    #[test]
    fn a_repository_inside_is_theirs_until_a_file_of_it_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("vendor/x/src")).unwrap();
        fs::create_dir(dir.path().join("vendor/x/.git")).unwrap();
        fs::write(dir.path().join("vendor/x/src/a"), "set up").unwrap();
        let repository = Path::new("vendor/x/");
        let after = HashSet::from([repository.to_owned()]);
        let made = Made::between(dir.path(), &HashSet::new(), after, &[]);
        fs::write(dir.path().join("vendor/x/.git/index"), "git's own").unwrap();
        assert!(made.has(repository) && made.has(Path::new("vendor/x/src/a")));
        assert_eq!(made.untouched(), [Path::new("vendor/x/src/a")]);
        fs::write(dir.path().join("vendor/x/src/b"), "worked").unwrap();
        assert!(!made.has(repository) && !made.has(Path::new("vendor/x/src/b")));
    }
}
