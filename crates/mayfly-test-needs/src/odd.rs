//! Repositories with anything in them that git can hold: odd names, modes, links, ends of lines, pointers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// Paths with what is there, and how far git knows of it.
pub type Tree = Vec<(PathBuf, Thing, Known)>;

/// The submodule, of which there is the pointer alone.
pub const SUBMODULE: &str = "pointed";

/// What there is at a path.
#[derive(Debug, Clone)]
pub enum Thing {
    /// A file.
    File {
        /// What is in it.
        bytes: Vec<u8>,
        /// Whether it can be run.
        executable: bool,
    },
    /// A link, and where it leads.
    Link(Vec<u8>),
}

/// How far git knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// As it is.
    Committed,
    /// Another content was committed.
    Changed,
    /// It was committed, and is not there any more.
    Gone,
    /// It was added since.
    Staged,
    /// Nothing.
    Untracked,
}

fn odd_name() -> impl Strategy<Value = Vec<u8>> {
    let names: [&[u8]; 22] = [
        b"new\nline",
        b"-rf",
        b"--",
        b"\x1b]0;x\x07",
        b"\xff\xfe",
        "\u{202e}bidi".as_bytes(),
        &[b'n'; 255],
        b"Case",
        b"case",
        b"CASE",
        b" space ",
        b"tab\t",
        b"quo\"te'",
        b"#hash",
        b":(top)x",
        b"a*?[b]",
        b"$(x)`y`",
        b"back\\slash",
        "u\u{308}".as_bytes(),
        "\u{fc}".as_bytes(),
        b"crlf\r",
        b"~",
    ];
    let random = prop::collection::vec(any::<u8>(), 1..24).prop_filter("a name that can be", |name| {
        let lower = name.to_ascii_lowercase();
        !name.contains(&0)
            && !name.contains(&b'/')
            && !matches!(&lower[..], b"." | b".." | b".git" | b"git~1")
    });
    prop_oneof![3 => prop::sample::select(names.map(<[u8]>::to_vec).to_vec()), 1 => random]
}

fn thing() -> impl Strategy<Value = Thing> {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec();
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        Just(b"a\r\nb\r\n".to_vec()),
        Just(b"no end".to_vec()),
        Just(pointer),
    ];
    let file = (bytes, any::<bool>()).prop_map(|(bytes, executable)| Thing::File { bytes, executable });
    let leads = prop_oneof![Just(b"/etc/passwd".to_vec()), Just(b"../..".to_vec()), odd_name()];
    prop_oneof![4 => file, 1 => leads.prop_map(Thing::Link)]
}

/// What a repository may hold: paths with what is there, and how far git knows of it.
pub fn tree() -> impl Strategy<Value = Tree> {
    let known = [Known::Committed, Known::Changed, Known::Gone, Known::Staged, Known::Untracked];
    let path = prop::collection::vec(odd_name(), 1..4)
        .prop_map(|parts| PathBuf::from(OsStr::from_bytes(&parts.join(&b'/'))));
    prop::collection::vec((path, thing(), prop::sample::select(known.to_vec())), 0..12)
}

impl Thing {
    /// Puts it there, unless something else is in its way.
    fn put(&self, at: &Path) -> bool {
        let folder = fs::create_dir_all(at.parent().expect("it is in the repository"));
        if folder.is_err() || at.is_dir() && !at.is_symlink() {
            return false;
        }
        let _ = fs::remove_file(at);
        match self {
            Self::File { bytes, executable } => {
                fs::write(at, bytes).expect("a file");
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(at, fs::Permissions::from_mode(mode)).expect("ours");
            }
            Self::Link(leads) => symlink(OsStr::from_bytes(leads), at).expect("a link"),
        }
        true
    }
}

/// What is below a folder but `.git`: of a file or link its mode and what is in it.
pub type Listing = BTreeMap<PathBuf, Option<(bool, bool, Vec<u8>)>>;

/// Lists what is there.
pub fn listing(top: &Path) -> Listing {
    let (mut found, mut folders) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let (is, name) =
                (path.symlink_metadata().expect("there"), path.strip_prefix(top).expect("below").to_owned());
            if name == Path::new(".git") {
                continue;
            }
            if is.is_dir() {
                found.insert(name, None);
                folders.push(path);
                continue;
            }
            let content = match is.is_symlink() {
                true => fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes(),
                false => fs::read(&path).expect("a file"),
            };
            let executable = !is.is_symlink() && is.permissions().mode() & 0o111 != 0;
            found.insert(name, Some((is.is_symlink(), executable, content)));
        }
    }
    found
}

/// What git keeps of it: no folder without a file, but that of a submodule.
pub fn as_git_keeps_it(mut listing: Listing) -> Listing {
    let files = listing.iter().filter(|(_, thing)| thing.is_some());
    let kept: Vec<PathBuf> = files.flat_map(|(path, _)| path.ancestors()).map(Path::to_owned).collect();
    listing.retain(|path, _| kept.contains(path) || path == Path::new(SUBMODULE));
    listing
}

/// Makes these in an empty repository, with a submodule's pointer and an empty folder. `git` runs there.
pub fn fill(repo: &Path, git: impl Fn(&[&str]) -> String, tree: &[(PathBuf, Thing, Known)]) {
    let of = |wanted: &'static [Known]| tree.iter().filter(move |(_, _, known)| wanted.contains(known));
    for (path, thing, known) in of(&[Known::Committed, Known::Changed, Known::Gone]) {
        match known {
            Known::Committed => thing.put(&repo.join(path)),
            _ => Thing::File { bytes: b"before".to_vec(), executable: false }.put(&repo.join(path)),
        };
    }
    fs::create_dir_all(repo.join(SUBMODULE)).expect("a folder");
    fs::create_dir_all(repo.join("empty/too")).expect("a folder");
    git(&["add", "--all"]);
    let pointer = format!("160000,{},{SUBMODULE}", "0123456789".repeat(4));
    git(&["update-index", "--add", "--cacheinfo", &pointer]);
    git(&["commit", "-q", "-m", "odd"]);
    for (path, thing, _) in of(&[Known::Changed, Known::Staged]) {
        thing.put(&repo.join(path));
    }
    for (path, ..) in of(&[Known::Gone]) {
        let _ = fs::remove_file(repo.join(path));
    }
    git(&["add", "--all"]);
    for (path, thing, _) in of(&[Known::Untracked]) {
        thing.put(&repo.join(path));
    }
}
