//! Programs that a server's `npx` or `uvx` would download: fetched once by its owner, and shown to machines read-only.
//!
//! ```text
//! mcp/{namespace}/{name}/tools.json       which tree each server runs, by its SHA-256: part of the resource, and so of locks
//! .tools/{sha256}/                        the trees, beside the kinds
//! /opt/mayfly/tools/{sha256}/             the same in a machine
//! ```
//!
//! A tree's SHA-256 is that of the list of its files by path, each with its run bit and its own SHA-256. There is no link
//! in one. Bounds: [`FILES_MAX`] files of [`BYTES_MAX`] bytes together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mayfly_core::sha256_of;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::tree::{is_executable, set_mode};

/// The file of a resource that names the trees of its servers.
pub const FILE: &str = "tools.json";
/// The folder of the trees in a library.
pub const FOLDER: &str = ".tools";
/// Where a machine sees them.
const INSIDE: &str = "/opt/mayfly/tools";
/// What runs programs for Python in a machine.
pub const PYTHON: &str = "/usr/bin/python3";
/// What downloads and runs, and by what that runs where nothing is downloaded.
const RUNNERS: [(&str, &str); 2] = [("npx", "node"), (UVX, PYTHON)];
/// The one that can be told of a package and of a program in it.
const UVX: &str = "uvx";
/// Their flags that take no value.
const PLAIN_FLAGS: [&str; 4] = ["-y", "--yes", "-q", "--quiet"];
/// The flag of [`UVX`] for the package, where the program is called otherwise.
const FROM: &str = "--from";
/// The most files of one tree.
pub const FILES_MAX: usize = 200_000;
/// The most bytes of them.
pub const BYTES_MAX: u64 = 1 << 30;

/// What a server runs instead of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// What the server asked for, as its `mcp.json` has it.
    pub package: String,
    /// The program of it that the server asked for, where it is called otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// What was found, such as `tiny@1.0.2`.
    pub resolved: String,
    /// The tree.
    pub sha256: String,
    /// What runs it: `node`, or [`PYTHON`].
    pub program: String,
    /// What it runs, in the tree.
    pub path: String,
}

impl Tool {
    /// Where a machine has the file that is run.
    pub fn inside(&self) -> String {
        format!("{}/{}", place(&self.sha256), self.path)
    }

    /// The variable that leads its program to what else is in the tree, if one does.
    pub fn variable(&self) -> Option<(&'static str, String)> {
        (self.program == PYTHON).then(|| ("PYTHONPATH", place(&self.sha256)))
    }

    /// Whether it is what would be downloaded.
    pub fn is_of(&self, download: &Download<'_>) -> bool {
        self.package == download.package
            && self.named.as_deref() == download.named
            && self.program == download.program
    }
}

/// Where a machine sees the tree of this SHA-256.
pub fn place(sha256: &str) -> String {
    format!("{INSIDE}/{sha256}")
}

/// What is downloaded and run by a server's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download<'a> {
    /// `npx` or `uvx`.
    pub runner: &'static str,
    /// What it is to fetch.
    pub package: &'a str,
    /// The program of it, where it is called otherwise.
    pub named: Option<&'a str>,
    /// What runs such programs in a machine.
    pub program: &'static str,
    /// The arguments for what was fetched.
    pub arguments: &'a [String],
}

impl<'a> Download<'a> {
    /// The first flag before what is fetched that could be one with a value, which would make another word the package.
    pub fn unread(command: &str, arguments: &'a [String]) -> Option<&'a str> {
        let (runner, _) = runner(command)?;
        Head::read(runner, arguments).unread
    }

    /// Reads a command. `None`: it downloads nothing.
    pub fn of(command: &str, arguments: &'a [String]) -> Option<Self> {
        let (runner, program) = runner(command)?;
        let Head { from, rest, .. } = Head::read(runner, arguments);
        let (first, arguments) = rest.split_first()?;
        let named = from.is_some().then_some(first.as_str());
        Some(Self { runner, package: from.unwrap_or(first), named, program, arguments })
    }
}

/// The flags before what is fetched.
struct Head<'a> {
    /// The package, if a flag says it.
    from: Option<&'a str>,
    /// The first flag that is not known.
    unread: Option<&'a str>,
    /// What follows them.
    rest: &'a [String],
}

impl<'a> Head<'a> {
    fn read(runner: &str, arguments: &'a [String]) -> Self {
        let mut head = Self { from: None, unread: None, rest: arguments };
        while let Some((flag, rest)) = head.rest.split_first().filter(|(flag, _)| flag.starts_with('-')) {
            head.rest = rest;
            let joined = flag.strip_prefix(FROM).and_then(|value| value.strip_prefix('='));
            match flag.as_str() {
                flag if PLAIN_FLAGS.contains(&flag) => {}
                FROM if runner == UVX && !rest.is_empty() => {
                    (head.from, head.rest) = (Some(rest[0].as_str()), &rest[1..]);
                }
                _ if runner == UVX && joined.is_some() => head.from = joined,
                flag => head.unread = head.unread.or(Some(flag)),
            }
        }
        head
    }
}

/// What a command downloads by, and what runs that, if it is one of those that do.
fn runner(command: &str) -> Option<(&'static str, &'static str)> {
    let name = command.rsplit('/').next()?;
    RUNNERS.into_iter().find(|(runner, _)| *runner == name)
}

/// A tree that is none.
#[derive(Debug, thiserror::Error)]
pub enum BadTree {
    /// Something in it is neither a plain file nor a folder.
    #[error("{} is no plain file", .0.display())]
    Odd(PathBuf),
    /// There is too much.
    #[error("it has more than {FILES_MAX} files or {BYTES_MAX} bytes")]
    Large,
    /// It cannot be read or copied.
    #[error("cannot read {}", path.display())]
    Io {
        /// What of it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The SHA-256 of the tree in `folder`.
pub fn sha256(folder: &Path) -> Result<String, BadTree> {
    let mut list = Sha256::new();
    for (path, file) in files(folder)? {
        let io = |source| BadTree::Io { path: file.clone(), source };
        let run = if is_executable(&fs::metadata(&file).map_err(io)?) { "x" } else { "-" };
        let is = fs::File::open(&file).and_then(sha256_of).map_err(io)?;
        list.update(format!("{run} {is} {path}\0"));
    }
    Ok(hex::encode(list.finalize()))
}

/// Copies the tree in `from` to the new folder `to`, open to everybody who comes there and closed for writing.
pub fn copy(from: &Path, to: &Path) -> Result<(), BadTree> {
    let files = files(from)?;
    let above = |path: &String| -> Vec<PathBuf> {
        let copy = to.join(path);
        copy.ancestors().skip(1).take_while(|folder| folder.starts_with(to)).map(Path::to_owned).collect()
    };
    // Each once, from the top.
    let folders: BTreeSet<PathBuf> = files.keys().flat_map(above).chain([to.to_owned()]).collect();
    for folder in folders {
        let made = fs::create_dir_all(&folder).and_then(|()| set_mode(&folder, 0o755));
        made.map_err(|source| BadTree::Io { path: folder, source })?;
    }
    for (path, file) in files {
        let copy = to.join(path);
        copy_one(&file, &copy).map_err(|source| BadTree::Io { path: file, source })?;
    }
    Ok(())
}

fn copy_one(file: &Path, copy: &Path) -> io::Result<()> {
    fs::copy(file, copy)?;
    set_mode(copy, if is_executable(&fs::metadata(file)?) { 0o555 } else { 0o444 })
}

/// Has all of the tree in `folder` on the disk.
pub fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
        if kind?.is_dir() { sync(&path)? } else { fs::File::open(path)?.sync_all()? }
    }
    fs::File::open(folder)?.sync_all()
}

/// The files of a tree, by path.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, BadTree> {
    let (mut found, mut bytes, mut todo) = (BTreeMap::new(), 0, vec![(String::new(), folder.to_owned())]);
    while let Some((below, folder)) = todo.pop() {
        let io = |source| BadTree::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let (at, kind) = (entry.path(), entry.metadata().map_err(io)?);
            let name = entry.file_name().into_string().map_err(|_| BadTree::Odd(at.clone()))?;
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if kind.is_dir() {
                todo.push((path, at));
            } else if kind.is_file() {
                bytes += kind.len();
                found.insert(path, at);
            } else {
                return Err(BadTree::Odd(at));
            }
            if found.len() > FILES_MAX || bytes > BYTES_MAX {
                return Err(BadTree::Large);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(place.path().join("a/b")).expect("folders");
        fs::write(place.path().join("a/b/run"), "1").expect("a file");
        fs::write(place.path().join("text"), "2").expect("a file");
        place
    }

    #[test]
    fn a_tree_is_known_by_its_files_and_a_copy_is_the_same() {
        let (tree, other) = (tree(), tree());
        let hash = sha256(tree.path()).expect("a hash");
        assert_eq!(sha256(other.path()).expect("a hash"), hash);
        let to = other.path().join("copy");
        copy(tree.path(), &to).expect("a copy");
        assert_eq!(sha256(&to).expect("a hash"), hash);
        fs::set_permissions(tree.path().join("text"), fs::Permissions::from_mode(0o755)).expect("a mode");
        let run = sha256(tree.path()).expect("a hash");
        fs::write(tree.path().join("a/b/run"), "3").expect("a file");
        let content = sha256(tree.path()).expect("a hash");
        assert!(run != hash && content != run);
    }

    /// Covers S46 for trees: what a package brings that leads elsewhere is in none.
    #[test]
    fn a_tree_has_no_links() {
        let tree = tree();
        symlink("/etc/passwd", tree.path().join("a/link")).expect("a link");
        assert!(matches!(sha256(tree.path()), Err(BadTree::Odd(path)) if path.ends_with("a/link")));
    }

    #[test]
    fn a_download_is_told_from_other_commands() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let args = words("-y --quiet @x/server@1.2 --root /workspace");
        let download = Download::of("/usr/bin/npx", &args).expect("a download");
        assert_eq!(
            (download.package, download.arguments),
            ("@x/server@1.2", &words("--root /workspace")[..])
        );
        assert_eq!(Download::unread("npx", &args), None);
        let odd = words("-y -p @x/server cmd");
        assert_eq!(
            (Download::unread("/usr/bin/npx", &odd), Download::unread("node", &odd)),
            (Some("-p"), None)
        );
        assert_eq!(Download::of("node", &args), None);
        assert_eq!(Download::of("npx", &words("-y")), None);
    }

    #[test]
    fn a_program_of_another_name_than_its_package_is_told_from_it() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for head in ["-q --from tiny==1.2", "--from=tiny==1.2"] {
            let args = words(&format!("{head} serve --root /x"));
            let download = Download::of("uvx", &args).expect("a download");
            assert_eq!((download.package, download.named), ("tiny==1.2", Some("serve")));
            assert_eq!((download.program, download.arguments), (PYTHON, &words("--root /x")[..]));
            assert_eq!(Download::unread("uvx", &args), None);
            assert!(Download::unread("npx", &args).is_some(), "npx has no such flag");
            let locked = |named: Option<&str>, program: &str| Tool {
                package: "tiny==1.2".to_owned(),
                named: named.map(str::to_owned),
                resolved: "tiny==1.2".to_owned(),
                sha256: "0".repeat(64),
                program: program.to_owned(),
                path: "bin/serve".to_owned(),
            };
            assert!(locked(Some("serve"), PYTHON).is_of(&download));
            assert!(
                !locked(None, PYTHON).is_of(&download) && !locked(Some("serve"), "node").is_of(&download)
            );
        }
        assert_eq!(Download::unread("uvx", &words("--from")), Some("--from"));
    }
}
