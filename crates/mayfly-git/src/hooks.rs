//! Which of a user's files are the hooks of their own repository: by `core.hooksPath`, or by links among the hooks.
//!
//! Bound: [`LINKS_MAX`] entries of the folder of hooks are looked at.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::command::GitError;
use crate::repo::Repo;

/// The most entries of a folder of hooks that are looked at.
const LINKS_MAX: usize = 1000;

/// Where git looks for hooks among the files of a repository; all paths are below its top folder, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    folders: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
}

impl Repo {
    /// The files that the user's git runs as hooks here.
    pub async fn hooks(&self) -> Result<Hooks, GitError> {
        let found = self.git.settings(&self.git_dir, r"^core\.hookspath$").await?;
        let folder = match found.last() {
            Some((_, path)) => self.top.join(self.git.in_home(path)),
            None => self.common_dir.join("hooks"),
        };
        Ok(Hooks::of(&self.top, &folder))
    }
}

impl Hooks {
    fn of(top: &Path, folder: &Path) -> Self {
        let folders = below(top, folder);
        let entries = fs::read_dir(folder).into_iter().flatten().take(LINKS_MAX).flatten();
        let target = |entry: fs::DirEntry| Some(folder.join(fs::read_link(entry.path()).ok()?));
        let files = entries.filter_map(target).flat_map(|target| below(top, &target)).collect();
        Self { folders, files }
    }

    /// Whether git would run it. Of a folder it runs what is directly in it, under names without a dot.
    pub(crate) fn hold(&self, path: &[u8]) -> bool {
        let path = path.to_ascii_lowercase();
        let is_on_the_way =
            |to: &Vec<u8>| to.strip_prefix(&*path).is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
        let is_in = |folder: &Vec<u8>| {
            let name = match folder.is_empty() {
                true => Some(&*path),
                false => path.strip_prefix(&**folder).and_then(|rest| rest.strip_prefix(b"/")),
            };
            name.is_some_and(|name| !name.iter().any(|byte| b"/.".contains(byte)))
        };
        self.folders.iter().any(|folder| is_in(folder) || is_on_the_way(folder))
            || self.files.iter().any(is_on_the_way)
    }
}

/// The path below `top`, as it is written and as it is, where it is there at all.
fn below(top: &Path, path: &Path) -> Vec<Vec<u8>> {
    let both = [Some(plain(path)), path.canonicalize().ok()];
    let inside = |path: PathBuf| {
        let path = path.strip_prefix(top).ok()?.as_os_str().as_encoded_bytes().to_ascii_lowercase();
        let is_of_git = path == b".git" || path.starts_with(b".git/");
        (!is_of_git).then_some(path)
    };
    let mut paths: Vec<_> = both.into_iter().flatten().filter_map(inside).collect();
    paths.dedup();
    paths
}

/// Without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
        plain
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Whether each of the paths is one.
    fn held<const N: usize>(hooks: &Hooks, paths: [&str; N]) -> [bool; N] {
        paths.map(|path| hooks.hold(path.as_bytes()))
    }

    #[test]
    fn hooks_are_directly_in_their_folder_under_names_without_a_dot() {
        let hooks = Hooks::of(Path::new("/x"), Path::new("/x/./a/../Tools/hooks/"));
        let paths = ["tools/hooks/pre-commit", "TOOLS/hooks/pre-push", "tools/hooks", "tools"];
        assert_eq!(held(&hooks, paths), [true; 4]);
        let paths =
            ["tools/hooks/lib.sh", "tools/hooks/a/b", "tools/other", "pre-commit", "tool", "x/tools/hooks/a"];
        assert_eq!(held(&hooks, paths), [false; 6]);
        let hooks = Hooks::of(Path::new("/x"), Path::new("/x"));
        assert_eq!(held(&hooks, ["pre-commit", "a/pre-commit", "a.sh"]), [true, false, false]);
        for elsewhere in ["/dev/null", "/x/.git/hooks", "/x/../y", "/xy"] {
            assert_eq!(Hooks::of(Path::new("/x"), Path::new(elsewhere)), Hooks::default(), "{elsewhere}");
        }
    }

    #[test]
    fn a_link_among_the_hooks_leads_to_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().canonicalize().expect("there");
        let hooks = top.join(".git/hooks");
        fs::create_dir_all(&hooks).expect("made");
        fs::create_dir_all(top.join("real/deep")).expect("made");
        fs::write(top.join("real/deep/check.sh"), "").expect("written");
        symlink("real", top.join("scripts")).expect("linked");
        symlink("../../scripts/deep/check.sh", hooks.join("pre-commit")).expect("linked");
        symlink("../../not-yet", hooks.join("pre-push")).expect("linked");
        symlink("/dev/null", hooks.join("post-merge")).expect("linked");
        let found = Hooks::of(&top, &hooks);
        let paths = ["scripts/deep/check.sh", "real/deep/check.sh", "scripts", "real/deep", "not-yet"];
        assert_eq!(held(&found, paths), [true; 5]);
        assert_eq!(held(&found, ["real/deep/other", "check.sh", "script"]), [false; 3]);
    }
}
