//! What comes out of a workspace, whatever the agent has done to it: real git on both sides.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mayfly_wire::api::Collected;
use mayfly_wire::worker::OrderedWorkspace;
use tempfile::TempDir;
use tokio::time::Instant;

use super::host::Host;
use crate::collect::bundle::Bundle;
use crate::collect::work::Work;
use crate::reaper::{Realm, Reaper};
use crate::setup::made::Made;

/// Runs git as a user would, with no configuration but its own.
pub(super) fn git(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(dir);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "a").env(format!("GIT_{role}_EMAIL"), "a@example.invalid");
    }
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A base, and a workspace cloned from it.
pub(super) struct Place {
    pub(super) dir: TempDir,
    pub(super) base: String,
}

impl Place {
    pub(super) fn new() -> Self {
        Self::with_names_by("sha1")
    }

    /// In repositories that name objects by this hash.
    pub(super) fn with_names_by(hash: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir(&base).unwrap();
        git(&base, &["init", "--quiet", "--initial-branch=main", &format!("--object-format={hash}")]);
        fs::write(base.join("kept"), "one\n").unwrap();
        fs::write(base.join("gone"), "x\n").unwrap();
        fs::write(base.join("forced.log"), "x\n").unwrap();
        fs::write(base.join(".gitignore"), "*.log\n").unwrap();
        git(&base, &["add", "--all"]);
        git(&base, &["add", "--force", "forced.log"]);
        git(&base, &["commit", "--quiet", "--message", "base"]);
        git(dir.path(), &["clone", "--quiet", "--no-hardlinks", "base", "work"]);
        let base = git(&base, &["rev-parse", "HEAD"]);
        Self { dir, base }
    }

    pub(super) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.work().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        git(&self.work(), arguments)
    }

    pub(super) fn commit(&self, name: &str) -> String {
        self.write(name, name);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", name]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(super) async fn bundle(&self) -> (Option<Bundle>, Vec<String>) {
        bundle(self.dir.path(), Some(&self.base)).await
    }

    /// A clone of the base that has taken the bundle, checked out.
    pub(super) fn taken(&self, bundle: &Bundle) -> PathBuf {
        self.taken_from(&written(bundle, self.dir.path()), &bundle.head)
    }

    /// The same of one that has arrived.
    fn taken_from(&self, file: &Path, head: &str) -> PathBuf {
        let taken = self.dir.path().join("taken");
        git(self.dir.path(), &["clone", "--quiet", "base", "taken"]);
        git(&taken, &["fetch", "--quiet", file.to_str().unwrap(), "refs/heads/work"]);
        git(&taken, &["checkout", "--quiet", "FETCH_HEAD"]);
        assert_eq!(git(&taken, &["rev-parse", "HEAD"]), head);
        git(&taken, &["fsck", "--strict"]);
        taken
    }
}

/// The bundle as it arrives, as long as it is said to be.
pub(super) fn written(bundle: &Bundle, dir: &Path) -> PathBuf {
    let to = dir.join("bundle");
    bundle.body.write(fs::File::create(&to).unwrap()).unwrap();
    assert_eq!(fs::metadata(&to).unwrap().len(), bundle.body.bytes());
    to
}

/// The bundle, and what could not be saved; there is nothing else to tell.
async fn bundle(dir: &Path, base: Option<&str>) -> (Option<Bundle>, Vec<String>) {
    let (made, Collected { unsaved, notes, .. }) = told(dir, base).await;
    assert_eq!(notes, [""; 0]);
    (made, unsaved)
}

pub(super) async fn told(dir: &Path, base: Option<&str>) -> (Option<Bundle>, Collected) {
    let reaper = Reaper::start(Realm::Children).unwrap();
    let scratch = dir.join("scratch");
    fs::create_dir(&scratch).unwrap();
    let (workspace, base_objects) = (dir.join("work"), dir.join("base/.git/objects"));
    let work = Work {
        reaper: &reaper,
        workspace: &workspace,
        base,
        base_objects: &base_objects,
        scratch: &scratch,
        made: &Made::default(),
    };
    let mut collected = Collected::default();
    let made = work.bundle(Instant::now() + Duration::from_secs(60), &mut collected).await.unwrap();
    (made, collected)
}

pub(super) fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[tokio::test]
async fn an_untouched_workspace_has_no_bundle() {
    let (made, unsaved) = Place::new().bundle().await;
    assert!(made.is_none() && unsaved.is_empty(), "{unsaved:?}");
}

#[tokio::test]
async fn commits_come_out_as_they_are() {
    let place = Place::new();
    let head = place.commit("new");
    let (made, unsaved) = place.bundle().await;
    let made = made.unwrap();
    assert_eq!((made.head.as_str(), unsaved), (head.as_str(), vec![]));
    assert_eq!(read(&place.taken(&made), "new"), "new");
}

#[tokio::test]
async fn what_is_not_committed_comes_out_as_one_commit_more() {
    let place = Place::new();
    let head = place.commit("committed");
    place.write("kept", "two\n");
    place.write("dir/untracked", "new\n");
    place.write("noise.log", "ignored\n");
    place.write("forced.log", "tracked, so not ignored\n");
    fs::remove_file(place.work().join("gone")).unwrap();
    let (made, Collected { unsaved, notes, .. }) = told(place.dir.path(), Some(&place.base)).await;
    let made = made.unwrap();
    assert_eq!(unsaved, Vec::<String>::new());
    assert_eq!(notes, ["ignored by the code's own rules, and left behind: noise.log"]);
    let taken = place.taken(&made);
    assert_eq!(
        git(&taken, &["log", "-1", "--format=%P %an %s"]),
        format!("{head} mayfly agent Uncommitted work")
    );
    assert_eq!(read(&taken, "kept"), "two\n");
    assert_eq!(read(&taken, "dir/untracked"), "new\n");
    assert_eq!(read(&taken, "forced.log"), "tracked, so not ignored\n");
    assert!(!taken.join("gone").exists() && !taken.join("noise.log").exists());
}

#[tokio::test]
async fn a_detached_head_is_followed() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "--detach"]);
    let head = place.commit("new");
    assert_eq!(place.bundle().await.0.unwrap().head, head);
}

#[tokio::test]
async fn refs_that_are_packed_and_branches_of_the_agent_are_followed() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "-b", "feature/x"]);
    let head = place.commit("new");
    place.git(&["pack-refs", "--all"]);
    place.git(&["gc", "--quiet"]);
    assert_eq!(place.bundle().await.0.unwrap().head, head);
}

#[tokio::test]
async fn going_back_behind_the_base_is_a_change_like_any_other() {
    let place = Place::new();
    let first = git(&place.dir.path().join("base"), &["rev-parse", "HEAD"]);
    assert_eq!(first, place.base);
    // The base of this task is a later commit; the agent goes back to the first.
    fs::write(place.dir.path().join("base/kept"), "later\n").unwrap();
    git(&place.dir.path().join("base"), &["commit", "--quiet", "--all", "--message", "later"]);
    let later = git(&place.dir.path().join("base"), &["rev-parse", "HEAD"]);
    let (made, _) = bundle(place.dir.path(), Some(&later)).await;
    let made = made.unwrap();
    let taken = place.taken(&made);
    assert_eq!(git(&taken, &["rev-parse", "HEAD^"]), later);
    assert_eq!(read(&taken, "kept"), "one\n");
}

#[tokio::test]
async fn a_wrecked_repository_still_gives_all_files() {
    let wrecks: [fn(&Path); 5] = [
        |git| fs::remove_dir_all(git).unwrap(),
        |git| fs::remove_dir_all(git.join("objects")).unwrap(),
        |git| fs::write(git.join("HEAD"), [0xff; 3000]).unwrap(),
        |git| fs::write(git.join("HEAD"), "ref: refs/../../../etc/passwd\n").unwrap(),
        |git| {
            fs::remove_dir_all(git).unwrap();
            fs::write(git, "gitdir: /nowhere\n").unwrap();
        },
    ];
    for wreck in wrecks {
        let place = Place::new();
        place.commit("new");
        place.write("kept", "two\n");
        wreck(&place.work().join(".git"));
        let (made, unsaved) = place.bundle().await;
        assert!(unsaved.iter().any(|line| line.contains("commits")), "{unsaved:?}");
        let taken = place.taken(&made.unwrap());
        assert_eq!(git(&taken, &["rev-parse", "HEAD^"]), place.base);
        assert_eq!((read(&taken, "kept"), read(&taken, "new")), ("two\n".to_owned(), "new".to_owned()));
    }
}

/// Covers S07, S09 and I8 for the worker: nothing that the agent configured runs.
#[tokio::test]
async fn nothing_of_the_agents_configuration_runs() {
    let place = Place::new();
    let canary = place.dir.path().join("canary");
    let touch = format!("touch {}; cat", canary.display());
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "diff.external",
        "credential.helper",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "gpg.program",
    ] {
        place.git(&["config", key, &touch]);
    }
    place.git(&["config", "core.hooksPath", ".git/evil"]);
    place.git(&["config", "commit.gpgSign", "true"]);
    for hook in ["pre-commit", "post-commit", "post-index-change", "reference-transaction"] {
        for folder in ["evil", "hooks"] {
            place
                .write(&format!(".git/{folder}/{hook}"), &format!("#!/bin/sh\ntouch {}\n", canary.display()));
            let path = place.work().join(format!(".git/{folder}/{hook}"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    place.write(".gitattributes", "* filter=evil diff=evil\n");
    place.write("kept", "two\n");
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, Vec::<String>::new());
    assert!(!canary.exists(), "something of the agent's ran");
    assert_eq!(read(&place.taken(&made.unwrap()), "kept"), "two\n");
}

/// S09: a bare repository that is hidden in the tree is files like any other, and its configuration has no say.
#[tokio::test]
async fn a_bare_repository_in_the_tree_is_files() {
    let place = Place::new();
    let canary = place.dir.path().join("canary");
    git(&place.work(), &["init", "--quiet", "--bare", "hidden"]);
    let config = format!("[core]\n\tbare = true\n\tfsmonitor = touch {}\n", canary.display());
    place.write("hidden/config", &config);
    place.write("kept", "two\n");
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, Vec::<String>::new());
    assert!(!canary.exists(), "something of the agent's ran");
    let taken = place.taken(&made.unwrap());
    assert_eq!((read(&taken, "hidden/config"), read(&taken, "kept")), (config, "two\n".to_owned()));
    assert_eq!(read(&taken, "hidden/HEAD"), read(&place.work(), "hidden/HEAD"));
}

#[tokio::test]
async fn a_repository_inside_keeps_its_files_and_is_told() {
    let place = Place::new();
    for inner in ["inner", "deep/empty"] {
        place.write(&format!("{inner}/file"), "inside\n");
        git(&place.work().join(inner), &["init", "--quiet"]);
    }
    git(&place.work().join("inner"), &["add", "file"]);
    git(&place.work().join("inner"), &["commit", "--quiet", "--message", "inner"]);
    let (made, Collected { unsaved, mut notes, .. }) = told(place.dir.path(), Some(&place.base)).await;
    notes.sort();
    assert_eq!((unsaved.len(), notes.len()), (0, 2), "{unsaved:?} {notes:?}");
    assert!(notes[0].starts_with("deep/empty: ") && notes[1].starts_with("inner: "), "{notes:?}");
    let taken = place.taken(&made.unwrap());
    assert_eq!(
        (read(&taken, "inner/file"), read(&taken, "deep/empty/file")),
        ("inside\n".into(), "inside\n".into())
    );
}

/// A work that started with a submodule, `sub`.
fn with_submodule() -> Place {
    let mut place = Place::new();
    let sub = place.work().join("sub");
    place.write("sub/file", "inside\n");
    git(&sub, &["init", "--quiet"]);
    git(&sub, &["add", "file"]);
    git(&sub, &["commit", "--quiet", "--message", "inner"]);
    place.base = place.commit("with a submodule");
    git(&place.dir.path().join("base"), &["pull", "--quiet", "../work", "HEAD"]);
    place
}

/// Covers S08 for the way out: a submodule stays what it is.
#[tokio::test]
async fn a_submodule_stays_one_and_what_was_changed_in_it_is_told() {
    let place = with_submodule();
    place.write("sub/file", "changed\n");
    place.write("kept", "two\n");
    let (made, unsaved) = place.bundle().await;
    assert!(unsaved.len() == 1 && unsaved[0].starts_with("sub: "), "{unsaved:?}");
    let taken = place.taken(&made.unwrap());
    assert!(git(&taken, &["ls-files", "--stage", "sub"]).starts_with("160000 "));
    assert_eq!(read(&taken, "kept"), "two\n");
}

/// As `git submodule update --init` leaves it. Whatever is made in it is told, its commits too.
#[tokio::test]
async fn a_submodule_that_was_fetched_and_left_as_it_is_is_no_loss() {
    let mut place = Place::new();
    let from = place.dir.path().join("from");
    git(place.dir.path(), &["init", "--quiet", "--initial-branch=main", "from"]);
    fs::write(from.join("file"), "inside\n").unwrap();
    git(&from, &["add", "."]);
    git(&from, &["commit", "--quiet", "--message", "inner"]);
    let add =
        ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", from.to_str().unwrap(), "sub"];
    git(&place.work(), &add);
    place.base = place.commit("with a submodule");
    git(&place.dir.path().join("base"), &["pull", "--quiet", "../work", "HEAD"]);
    let sub = place.work().join("sub");
    let ended = async || {
        let (made, unsaved) = place.bundle().await;
        assert!(made.is_none(), "{made:?}");
        fs::remove_dir_all(place.dir.path().join("scratch")).unwrap();
        unsaved
    };
    assert_eq!(ended().await, Vec::<String>::new());
    assert!(sub.join(".git").is_file(), "it stays what it is");
    let changed = ["sub: what was changed in this submodule"];
    place.write("sub/new", "x\n");
    assert_eq!(ended().await, changed);
    fs::remove_file(sub.join("new")).unwrap();
    assert_eq!(ended().await, Vec::<String>::new());
    git(&sub, &["checkout", "--quiet", "-b", "mine"]);
    git(&sub, &["commit", "--quiet", "--allow-empty", "--message", "mine"]);
    git(&sub, &["checkout", "--quiet", "--detach", "main"]);
    assert_eq!(ended().await, changed);
}

/// What the pointer leads to is a commit that nobody else has.
#[tokio::test]
async fn a_submodule_whose_new_commit_the_work_names_is_told() {
    let place = with_submodule();
    let sub = place.work().join("sub");
    git(&sub, &["commit", "--quiet", "--allow-empty", "--message", "more"]);
    place.commit("with more of it");
    let (made, unsaved) = place.bundle().await;
    assert!(made.is_some());
    assert_eq!(unsaved, ["sub: what was changed in this submodule"]);
}

/// Covers S10.
#[tokio::test]
async fn names_of_any_bytes_come_out_byte_for_byte() {
    let place = Place::new();
    let long = "n".repeat(255);
    let names: [&[u8]; 7] = [
        b"new\nline",
        b"--upload-pack=x",
        b"-",
        b"esc\x1b[2J",
        b"\xff\xfe",
        "bidi\u{202e}x".as_bytes(),
        long.as_bytes(),
    ];
    for name in names {
        fs::write(place.work().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, Vec::<String>::new());
    let taken = place.taken(&made.unwrap());
    for name in names {
        assert_eq!(fs::read(taken.join(OsStr::from_bytes(name))).unwrap(), name);
    }
}

#[tokio::test]
async fn what_its_own_user_may_not_read_comes_out_too() {
    let place = Place::new();
    place.write("shut/secret", "s\n");
    for (name, mode) in [("shut/secret", 0o000), ("shut", 0o000)] {
        fs::set_permissions(place.work().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, Vec::<String>::new());
    assert_eq!(read(&place.taken(&made.unwrap()), "shut/secret"), "s\n");
}

#[tokio::test]
async fn an_empty_folder_to_begin_with_gives_what_was_made_in_it() {
    let nothing = tempfile::tempdir().unwrap();
    fs::create_dir(nothing.path().join("work")).unwrap();
    let (made, unsaved) = bundle(nothing.path(), None).await;
    assert!(made.is_none() && unsaved.is_empty(), "{unsaved:?}");

    let something = tempfile::tempdir().unwrap();
    fs::create_dir(something.path().join("work")).unwrap();
    fs::write(something.path().join("work/new"), "n\n").unwrap();
    let (made, unsaved) = bundle(something.path(), None).await;
    assert_eq!(unsaved, Vec::<String>::new());
    let file = written(&made.unwrap(), something.path());
    git(something.path(), &["clone", "--quiet", "--branch=work", file.to_str().unwrap(), "taken"]);
    assert_eq!(read(&something.path().join("taken"), "new"), "n\n");
}

#[tokio::test]
async fn a_folder_that_became_a_link_comes_out_as_one() {
    let place = Place::new();
    place.write("a/deep/x", "x\n");
    place.commit("folder");
    fs::remove_dir_all(place.work().join("a")).unwrap();
    fs::create_dir(place.work().join("b")).unwrap();
    fs::write(place.work().join("b/y"), "y\n").unwrap();
    std::os::unix::fs::symlink("b", place.work().join("a")).unwrap();
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, Vec::<String>::new());
    let taken = place.taken(&made.unwrap());
    assert_eq!(fs::read_link(taken.join("a")).unwrap(), Path::new("b"));
    assert_eq!(read(&taken, "b/y"), "y\n");
}

#[tokio::test]
async fn a_repository_made_in_an_empty_folder_comes_out_with_its_commits() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "--quiet"]);
    fs::write(work.join("a"), "a\n").unwrap();
    git(&work, &["add", "a"]);
    git(&work, &["commit", "--quiet", "--message", "a"]);
    let head = git(&work, &["rev-parse", "HEAD"]);
    assert_eq!(bundle(dir.path(), None).await.0.unwrap().head, head);
}

/// Thousands of files become one pack, a long one that cannot be made shorter is stored as it is, and all come out.
#[tokio::test]
async fn many_files_and_long_ones_come_out_as_they_are() {
    let place = Place::new();
    let many: Vec<_> = (0..300).map(|number| (format!("many/{number}"), format!("{number}\n"))).collect();
    for (name, text) in &many {
        place.write(name, text);
    }
    let mut state = 88_172_645_463_325_252_u64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let long: Vec<u8> = random.take(5 << 20).flatten().collect();
    fs::write(place.work().join("long"), &long).unwrap();
    let (made, unsaved) = place.bundle().await;
    assert_eq!(unsaved, Vec::<String>::new());
    let taken = place.taken(&made.unwrap());
    assert!(many.iter().all(|(name, text)| read(&taken, name) == *text));
    assert!(fs::read(taken.join("long")).unwrap() == long);
}

/// Covers G11 for the whole way: a task with a repository, its work and the record of it.
#[tokio::test]
async fn the_work_of_a_run_is_handed_over_with_its_token() {
    let place = Place::new();
    let base = place.base.clone();
    let mut host = Host::with("", |desk| {
        desk.order.workspace = Some(OrderedWorkspace { name: "repo".to_owned(), base });
    });
    git(host.dir.path(), &["clone", "--quiet", place.dir.path().join("base").to_str().unwrap(), "base"]);
    git(host.dir.path(), &["clone", "--quiet", "base", "workspace/repo"]);
    host.graces = super::host::SHORT;
    let session = host.desk.order.session_id.clone();
    let script = format!(
        "echo two > kept; mkdir -p $CLAUDE_CONFIG_DIR/projects/-x; echo '{{}}' > $CLAUDE_CONFIG_DIR/projects/-x/{session}.jsonl; exit 3"
    );
    fs::write(host.boot().claude, format!("#!/bin/sh\n{script}\n")).unwrap();
    host.live().await.unwrap();
    let collected = host.collected();
    assert!(collected.bundle && collected.transcript && collected.unsaved.is_empty(), "{collected:?}");
    assert_eq!(host.result("transcript").unwrap(), "{}\n");
    let file = host.dir.path().join("bundle");
    fs::write(&file, host.result("bundle").unwrap()).unwrap();
    let taken = place.taken_from(&file, &collected.head.unwrap());
    assert_eq!(read(&taken, "kept"), "two\n");
}

/// Covers G11 where it cannot be kept: what is not saved is told.
#[tokio::test]
async fn what_the_orchestrator_refuses_is_told() {
    let host = Host::with("echo x > new; exit 3", |desk| desk.takes_results = false);
    host.live().await.unwrap();
    let collected = host.collected();
    assert!(!collected.bundle && collected.head.is_some());
    assert!(collected.unsaved.iter().any(|line| line.contains("401")), "{collected:?}");
}

/// Covers G11 in time: an orchestrator that takes nothing does not keep the machine.
#[tokio::test]
async fn collecting_ends_in_its_time_and_says_what_is_missing() {
    let host = Host::with("echo x > new; exit 3", |desk| {
        desk.order.collect_ms_max = 2000;
        desk.result_path = "/nowhere/";
    });
    host.live().await.unwrap();
    let collected = host.collected();
    assert!(!collected.bundle && collected.head.is_some());
    assert!(collected.unsaved.iter().any(|line| line.contains("ran out")), "{collected:?}");
}
