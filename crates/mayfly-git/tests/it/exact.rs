//! What goes in and is not changed comes out as it was, byte for byte, whatever it is called.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use mayfly_git::Repo;
use proptest::prelude::*;

use super::Place;

/// What there is at a path.
#[derive(Debug, Clone)]
enum Thing {
    File { bytes: Vec<u8>, executable: bool },
    Link(Vec<u8>),
}

/// How far git knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Committed,
    /// Another content was.
    Changed,
    Gone,
    Staged,
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

fn tree() -> impl Strategy<Value = Vec<(PathBuf, Thing, Known)>> {
    let known = [Known::Committed, Known::Changed, Known::Gone, Known::Staged, Known::Untracked];
    let path = prop::collection::vec(odd_name(), 1..4)
        .prop_map(|parts| PathBuf::from(OsStr::from_bytes(&parts.join(&b'/'))));
    prop::collection::vec((path, thing(), prop::sample::select(known.to_vec())), 0..12)
}

impl Thing {
    /// Puts it there, unless something else is in its way.
    fn put(&self, at: &Path) -> bool {
        let folder = fs::create_dir_all(at.parent().unwrap());
        if folder.is_err() || at.is_dir() && !at.is_symlink() {
            return false;
        }
        let _ = fs::remove_file(at);
        match self {
            Self::File { bytes, executable } => {
                fs::write(at, bytes).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
            }
            Self::Link(leads) => symlink(OsStr::from_bytes(leads), at).unwrap(),
        }
        true
    }
}

/// Each file and link below `top`: its mode and what is in it.
fn listing(top: &Path) -> BTreeMap<PathBuf, (bool, bool, Vec<u8>)> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let is = path.symlink_metadata().unwrap();
            if is.is_dir() {
                if folder != top || path.file_name() != Some(OsStr::new(".git")) {
                    folders.push(path);
                }
                continue;
            }
            let content = match is.is_symlink() {
                true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                false => fs::read(&path).unwrap(),
            };
            let executable = !is.is_symlink() && is.permissions().mode() & 0o111 != 0;
            found.insert(path.strip_prefix(top).unwrap().to_owned(), (is.is_symlink(), executable, content));
        }
    }
    found
}

impl Place {
    /// The user's repository, with a submodule's pointer, an empty folder and these.
    fn fill(&self, tree: &[(PathBuf, Thing, Known)]) {
        let repo = self.repo();
        let of = |wanted: &'static [Known]| tree.iter().filter(move |(_, _, known)| wanted.contains(known));
        for (path, thing, known) in of(&[Known::Committed, Known::Changed, Known::Gone]) {
            match known {
                Known::Committed => thing.put(&repo.join(path)),
                _ => Thing::File { bytes: b"before".to_vec(), executable: false }.put(&repo.join(path)),
            };
        }
        fs::create_dir_all(repo.join("pointed")).unwrap();
        fs::create_dir_all(repo.join("empty/too")).unwrap();
        self.git(&repo, &["add", "--all"]);
        let pointer = format!("160000,{},pointed", "0123456789".repeat(4));
        self.git(&repo, &["update-index", "--add", "--cacheinfo", &pointer]);
        self.git(&repo, &["commit", "-q", "--allow-empty", "-m", "odd"]);
        for (path, thing, _) in of(&[Known::Changed, Known::Staged]) {
            thing.put(&repo.join(path));
        }
        for (path, ..) in of(&[Known::Gone]) {
            let _ = fs::remove_file(repo.join(path));
        }
        self.git(&repo, &["add", "--all"]);
        for (path, thing, _) in of(&[Known::Untracked]) {
            thing.put(&repo.join(path));
        }
    }

    /// A machine's checkout: the history first, and what is on top of it.
    fn checkout(&self, bundles: &[PathBuf], base: &str) -> PathBuf {
        let machine = self.dir.path().join("machine");
        fs::create_dir(&machine).unwrap();
        self.git(&machine, &["init", "-q", "-b", "main"]);
        for bundle in bundles {
            let fetch = [
                "fetch",
                "-q",
                "--update-head-ok",
                bundle.to_str().unwrap(),
                "+refs/heads/base:refs/heads/main",
            ];
            self.git(&machine, &fetch);
        }
        assert_eq!(self.git(&machine, &["rev-parse", "main"]), base);
        self.git(&machine, &["reset", "-q", "--hard"]);
        machine
    }

    async fn goes_in_and_out(&self) {
        let repo = Repo::discover(&self.ours(), &self.repo()).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let (files, state) = (listing(&self.repo()), self.state());
        let (quarantine, snapshot) = repo.snapshot(scratch.path()).await.unwrap();
        let mut bundles = vec![self.dir.path().join("whole.bundle")];
        quarantine.bundle(&repo.head, None, &bundles[0]).await.unwrap();
        if snapshot.dirty {
            bundles.push(self.dir.path().join("more.bundle"));
            quarantine.bundle(&snapshot.base, Some(&repo.head), &bundles[1]).await.unwrap();
        }
        let machine = self.checkout(&bundles, &snapshot.base);
        assert_eq!(listing(&machine), files, "what is in the machine");
        assert_eq!(self.git(&machine, &["status", "--porcelain"]), "", "nothing was changed in the machine");

        fs::write(machine.join("made by the agent"), "x").unwrap();
        self.git(&machine, &["add", "--all"]);
        self.git(&machine, &["commit", "-q", "-m", "work"]);
        let (bundle, head) = self.bundle(&machine, &snapshot);
        quarantine.land(&bundle, &head, "landed").await.unwrap();
        let tree = |commit: &str| self.git(&self.repo(), &["ls-tree", "-r", "-z", "--full-tree", commit]);
        self.git(&self.repo(), &["update-ref", "refs/mayfly/before", &head]);
        let landed = tree("landed");
        let without: Vec<_> =
            landed.split('\0').filter(|entry| !entry.ends_with("\tmade by the agent")).collect();
        let before = self.git(&self.repo(), &["rev-parse", "landed~1^{tree}"]);
        assert_eq!(without.join("\0"), tree(&before), "what came out");
        assert_eq!(listing(&self.repo()), files, "the user's files");
        self.git(&self.repo(), &["update-ref", "-d", "refs/mayfly/before"]);
        self.git(&self.repo(), &["branch", "-q", "-D", "landed"]);
        assert_eq!(self.state(), state, "the user's index and refs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// S10
    #[test]
    fn what_is_not_changed_comes_out_as_it_went_in(tree in tree()) {
        let place = Place::with_repository();
        place.fill(&tree);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(place.goes_in_and_out());
    }
}
