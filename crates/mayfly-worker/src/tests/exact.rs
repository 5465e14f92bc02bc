//! What goes in and is not changed comes out as it was, byte for byte, whatever it is called: from the user's repository
//! through a machine's checkout and what its worker collects to a branch.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_git::{Base, Git, Quarantine, Repo, Snapshot, whole};
use mayfly_wire::api::Collected;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::Instant;

use super::the_work::{git, written};
use crate::checkout::Bundle;
use crate::collect::work::Work;
use crate::reaper::{Realm, Reaper};

/// The submodule, of which there is the pointer alone.
const SUBMODULE: &str = "pointed";

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

/// What the repository's own `.gitattributes` say of the ends of lines.
fn rules() -> impl Strategy<Value = &'static str> {
    let rules = [
        "* text=auto\n",
        "* text\n",
        "* -text\n",
        "* text eol=lf\n",
        "* text eol=crlf\n",
        "* text=auto eol=crlf\n",
        "* text=auto\r\n*e text eol=crlf\n[a-m]* -text\n",
        "* text=auto ident\n",
    ];
    prop::sample::select(rules.to_vec())
}

/// What is below a folder but `.git`: of a file or link its mode and what is in it.
type Listing = BTreeMap<PathBuf, Option<(bool, bool, Vec<u8>)>>;

fn listing(top: &Path) -> Listing {
    let (mut found, mut folders) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let (is, name) = (path.symlink_metadata().unwrap(), path.strip_prefix(top).unwrap().to_owned());
            if name == Path::new(".git") {
                continue;
            }
            if is.is_dir() {
                found.insert(name, None);
                folders.push(path);
                continue;
            }
            let content = match is.is_symlink() {
                true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                false => fs::read(&path).unwrap(),
            };
            let executable = !is.is_symlink() && is.permissions().mode() & 0o111 != 0;
            found.insert(name, Some((is.is_symlink(), executable, content)));
        }
    }
    found
}

/// What git keeps of it: no folder without a file, but that of a submodule.
fn as_git_keeps_it(mut listing: Listing) -> Listing {
    let files = listing.iter().filter(|(_, thing)| thing.is_some());
    let kept: Vec<PathBuf> = files.flat_map(|(path, _)| path.ancestors()).map(Path::to_owned).collect();
    listing.retain(|path, _| kept.contains(path) || path == Path::new(SUBMODULE));
    listing
}

/// The user's repository, and a machine.
struct Way {
    dir: TempDir,
}

impl Way {
    fn new(tree: &[(PathBuf, Thing, Known)], rules: Option<&str>) -> Self {
        let way = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(way.at("repo")).unwrap();
        way.git(&["init", "-q", "-b", "main"]);
        if let Some(rules) = rules {
            fs::write(way.at("repo/.gitattributes"), rules).unwrap();
        }
        way.fill(tree);
        way
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// In the user's repository.
    fn git(&self, args: &[&str]) -> String {
        git(&self.at("repo"), args)
    }

    /// All that must not change there: refs, `HEAD`, index and what is not committed.
    fn state(&self) -> String {
        self.git(&["for-each-ref"]) + &self.git(&["status", "--porcelain=v2", "--branch"])
    }

    /// Makes these, a submodule's pointer and an empty folder.
    fn fill(&self, tree: &[(PathBuf, Thing, Known)]) {
        let repo = self.at("repo");
        let of = |wanted: &'static [Known]| tree.iter().filter(move |(_, _, known)| wanted.contains(known));
        for (path, thing, known) in of(&[Known::Committed, Known::Changed, Known::Gone]) {
            match known {
                Known::Committed => thing.put(&repo.join(path)),
                _ => Thing::File { bytes: b"before".to_vec(), executable: false }.put(&repo.join(path)),
            };
        }
        fs::create_dir_all(repo.join(SUBMODULE)).unwrap();
        fs::create_dir_all(repo.join("empty/too")).unwrap();
        self.git(&["add", "--all"]);
        let pointer = format!("160000,{},{SUBMODULE}", "0123456789".repeat(4));
        self.git(&["update-index", "--add", "--cacheinfo", &pointer]);
        self.git(&["commit", "-q", "-m", "odd"]);
        for (path, thing, _) in of(&[Known::Changed, Known::Staged]) {
            thing.put(&repo.join(path));
        }
        for (path, ..) in of(&[Known::Gone]) {
            let _ = fs::remove_file(repo.join(path));
        }
        self.git(&["add", "--all"]);
        for (path, thing, _) in of(&[Known::Untracked]) {
            thing.put(&repo.join(path));
        }
    }

    /// The bundle that a machine fetches, made of what was handed over.
    async fn handed_over(&self, ours: &Git, quarantine: &Quarantine, snapshot: &Snapshot) -> PathBuf {
        let [history, more, all] = ["history.bundle", "more.bundle", "all.bundle"].map(|name| self.at(name));
        let head = self.git(&["rev-parse", "HEAD"]);
        quarantine.bundle(&head, None, &history).await.unwrap();
        if !snapshot.dirty {
            return history;
        }
        quarantine.bundle(&snapshot.base, Some(&head), &more).await.unwrap();
        let base = Base { bundle: &more, commit: &snapshot.base, on: Some(&history) };
        let scratch = tempfile::tempdir().unwrap();
        whole(ours, scratch.path(), base, &all).await.unwrap();
        all
    }

    async fn checkout(&self, reaper: &Reaper, file: &Path, base: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        for (at, bytes_max) in [(self.at("base"), None), (self.at("machine"), Some(1 << 30))] {
            fs::create_dir(&at).unwrap();
            Bundle { file, base }.unpack(reaper, &at, bytes_max, deadline).await.unwrap();
        }
    }

    /// What the worker brings out: a bundle and its commit.
    async fn collect(&self, reaper: &Reaper, base: &str) -> (PathBuf, String) {
        let scratch = self.at("scratch");
        fs::create_dir(&scratch).unwrap();
        let (workspace, base_objects) = (self.at("machine"), self.at("base/.git/objects"));
        let (workspace, base_objects) = (&*workspace, &*base_objects);
        let work = Work { reaper, workspace, base: Some(base), base_objects, scratch: &scratch };
        let mut collected = Collected::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        let bundle = work.bundle(deadline, &mut collected).await.unwrap().unwrap();
        assert_eq!((collected.unsaved, collected.notes), (vec![], vec![]));
        (written(&bundle, self.dir.path()), bundle.head)
    }

    /// What the user's git makes of that commit, by its rules.
    fn as_users_git_has_it(&self, bundle: &Path, base: &str) -> Listing {
        let at = self.at("theirs");
        git(self.dir.path(), &["init", "-q", "theirs"]);
        git(&at, &["bundle", "unbundle", bundle.to_str().unwrap()]);
        git(&at, &["checkout", "-q", "--detach", base]);
        listing(&at)
    }

    async fn goes_in_and_out(&self, rules: Option<&str>) {
        let ours = Git::new(std::env::var_os("PATH").unwrap(), Some(self.dir.path().to_owned()), None);
        let repo = Repo::discover(&ours, &self.at("repo")).await.unwrap();
        let (scratch, reaper) = (tempfile::tempdir().unwrap(), Reaper::start(Realm::Children).unwrap());
        let (files, state, machine) = (listing(&self.at("repo")), self.state(), self.at("machine"));
        let (quarantine, snapshot) = repo.snapshot(scratch.path()).await.unwrap();
        let bundle = self.handed_over(&ours, &quarantine, &snapshot).await;
        self.checkout(&reaper, &bundle, &snapshot.base).await;
        let expected = match rules {
            None => as_git_keeps_it(files.clone()),
            Some(_) => self.as_users_git_has_it(&bundle, &snapshot.base),
        };
        assert_eq!(listing(&machine), expected, "what is in the machine");
        assert_eq!(git(&machine, &["status", "--porcelain"]), "", "nothing was changed in the machine");

        fs::write(machine.join("committed by the agent"), "x").unwrap();
        git(&machine, &["add", "--all"]);
        git(&machine, &["commit", "-q", "-m", "work"]);
        fs::write(machine.join("left by the agent"), "x").unwrap();
        let (bundle, head) = self.collect(&reaper, &snapshot.base).await;
        quarantine.land(&bundle, &head, "landed").await.unwrap();
        let tree = |commit: &str| self.git(&["ls-tree", "-r", "-z", "--full-tree", commit]);
        let landed = tree("landed");
        let mut without: Vec<_> = landed.split('\0').collect();
        without.retain(|entry| !entry.ends_with(" by the agent"));
        assert_eq!(without.len() + 2, landed.split('\0').count(), "what the agent made");
        assert_eq!(without.join("\0"), tree("landed~2"), "what came out");
        assert_eq!(self.git(&["rev-parse", "landed~2"]), snapshot.base);
        assert_eq!(listing(&self.at("repo")), files, "the user's files");
        self.git(&["branch", "-q", "-D", "landed"]);
        assert_eq!(self.state(), state, "the user's index and refs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// S10
    #[test]
    fn what_is_not_changed_comes_out_as_it_went_in(tree in tree()) {
        let way = Way::new(&tree, None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(way.goes_in_and_out(None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines end in the machine as the rules have them, and what is not changed is no change for that.
    #[test]
    fn what_is_not_changed_is_none_by_the_rules_of_the_repository(tree in tree(), rules in rules()) {
        let way = Way::new(&tree, Some(rules));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(way.goes_in_and_out(Some(rules)));
    }
}
