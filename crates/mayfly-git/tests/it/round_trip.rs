//! Code in, work out.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;

use mayfly_git::{Base, read_through, unbundle};

use super::Place;

#[tokio::test]
async fn a_clean_repository_starts_from_its_head() {
    let place = Place::with_repository();
    let before = place.state();
    let (_quarantine, snapshot) = place.snapshot().await;
    assert_eq!(snapshot.base, place.git(&place.repo(), &["rev-parse", "HEAD"]));
    assert!(!snapshot.dirty);
    assert_eq!(place.state(), before);
}

#[tokio::test]
async fn staged_unstaged_and_untracked_work_goes_in_and_ignored_files_do_not() {
    let place = Place::with_repository();
    let repo = place.repo();
    fs::write(repo.join(".gitignore"), "by-tree\n").unwrap();
    fs::write(repo.join("gone.txt"), "x\n").unwrap();
    place.commit("second");
    fs::write(repo.join(".git/info/exclude"), "by-info\n").unwrap();
    fs::create_dir_all(place.dir.path().join(".config/git")).unwrap();
    fs::write(place.dir.path().join(".config/git/ignore"), "by-home\n").unwrap();
    for ignored in ["by-tree", "by-info", "by-home"] {
        fs::write(repo.join(ignored), "secret\n").unwrap();
    }
    fs::write(repo.join("staged.txt"), "staged\n").unwrap();
    place.git(&repo, &["add", "staged.txt"]);
    fs::write(repo.join("a.txt"), "two\n").unwrap();
    fs::remove_file(repo.join("gone.txt")).unwrap();
    fs::write(repo.join("-odd \u{e9}\nname"), "odd\n").unwrap();
    fs::write(repo.join("run.sh"), "#!/bin/sh\r\n").unwrap();
    fs::set_permissions(repo.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", repo.join("link")).unwrap();
    let before = place.state();

    let (_quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);

    assert!(snapshot.dirty);
    assert_eq!(place.state(), before, "the user's repository is as it was");
    let files = place.git(&machine, &["-c", "core.quotePath=true", "ls-tree", "-r", "HEAD"]);
    let names: Vec<&str> = files.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(names, [r#""-odd \303\251\nname""#, ".gitignore", "a.txt", "link", "run.sh", "staged.txt"]);
    assert_eq!(fs::read(machine.join("a.txt")).unwrap(), b"two\n");
    assert_eq!(fs::read(machine.join("run.sh")).unwrap(), b"#!/bin/sh\r\n");
    assert_eq!(fs::metadata(machine.join("run.sh")).unwrap().permissions().mode() & 0o111, 0o111);
    assert_eq!(fs::read_link(machine.join("link")).unwrap().to_str(), Some("/etc/hostname"));
}

#[tokio::test]
async fn work_lands_as_one_new_branch_and_nothing_else_changes() {
    let place = Place::with_repository();
    fs::write(place.repo().join("a.txt"), "mine\n").unwrap();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("b.txt"), "made\n").unwrap();
    place.git(&machine, &["add", "-A"]);
    place.git(&machine, &["commit", "-q", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let before = place.state();

    quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap();

    assert_eq!(place.git(&place.repo(), &["rev-parse", "mayfly/1-x"]), head);
    assert_eq!(place.git(&place.repo(), &["diff", "--name-only", &snapshot.base, "mayfly/1-x"]), "b.txt");
    place.git(&place.repo(), &["fsck", "--strict"]);
    place.git(&place.repo(), &["branch", "-q", "-D", "mayfly/1-x"]);
    assert_eq!(place.state(), before);
}

#[tokio::test]
async fn a_branch_that_exists_is_not_overwritten() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    place.git(&machine, &["commit", "-q", "--allow-empty", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    place.git(&place.repo(), &["branch", "taken"]);
    let before = place.state();
    quarantine.land(&bundle, &head, "taken").await.unwrap_err();
    assert_eq!(place.state(), before);
}

/// A machine with a commit in each of these refs, and the bundle of all of them.
fn bundle_of(place: &Place, snapshot: &mayfly_git::Snapshot, refs: &[&str]) -> (std::path::PathBuf, String) {
    let machine = place.machine(snapshot);
    for name in refs {
        place.git(&machine, &["checkout", "-q", "--detach", &snapshot.base]);
        place.git(&machine, &["commit", "-q", "--allow-empty", "-m", name]);
        place.git(&machine, &["update-ref", name, "HEAD"]);
    }
    let bundle = place.dir.path().join("work.bundle");
    let base = format!("^{}", snapshot.base);
    let create = ["bundle", "create", "-q", bundle.to_str().unwrap(), &base];
    place.git(&machine, &[&create, refs].concat());
    (bundle, place.git(&machine, &["rev-parse", "refs/heads/work"]))
}

#[tokio::test]
async fn what_is_beside_the_work_lands_beside_it_or_nothing_does() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let (bundle, head) =
        bundle_of(&place, &snapshot, &["refs/heads/work", "refs/heads/other/a-b", "refs/heads/other/stash"]);
    place.git(&place.repo(), &["branch", "mayfly/1-x--stash"]);
    let before = place.state();
    quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap_err();
    assert_eq!(place.state(), before);
    let others = quarantine.land(&bundle, &head, "mayfly/2-x").await.unwrap();
    assert_eq!(others, ["mayfly/2-x--a-b", "mayfly/2-x--stash"]);
    let subject = |branch: &str| place.git(&place.repo(), &["log", "-1", "--format=%s", branch]);
    assert_eq!(subject("mayfly/2-x"), "refs/heads/work");
    assert_eq!(subject("mayfly/2-x--a-b"), "refs/heads/other/a-b");

    let folder = place.dir.path().join("made");
    place.git(&place.repo(), &["update-ref", "refs/heads/work", &head]);
    place.git(&place.repo(), &["update-ref", "refs/heads/other/n", "HEAD"]);
    let refs = ["bundle", "create", "-q", bundle.to_str().unwrap(), "refs/heads/work", "refs/heads/other/n"];
    place.git(&place.repo(), &refs);
    assert_eq!(
        unbundle(&place.ours(), None, &bundle, &head, &folder, "main").await.unwrap().others,
        ["main--n"]
    );
    assert_eq!(
        place.git(&folder, &["for-each-ref", "--format=%(refname)"]),
        "refs/heads/main\nrefs/heads/main--n"
    );
}

/// No worker of ours names them so.
#[tokio::test]
async fn names_beside_the_work_that_are_not_plain_are_refused() {
    for name in ["refs/heads/other/a/b", "refs/heads/other/a.lock-", "refs/heads/other/\u{202e}x"] {
        let place = Place::with_repository();
        let (quarantine, snapshot) = place.snapshot().await;
        let (bundle, head) = bundle_of(&place, &snapshot, &["refs/heads/work", name]);
        let before = place.state();
        let error = quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap_err();
        assert!(matches!(error, mayfly_git::GitError::BadName(_)), "{error}");
        assert_eq!(place.state(), before);
    }
}

#[tokio::test]
async fn a_linked_work_tree_and_a_subfolder_work_like_the_main_one() {
    let place = Place::with_repository();
    let linked = place.dir.path().join("linked");
    place.git(&place.repo(), &["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    fs::create_dir(linked.join("sub")).unwrap();
    fs::write(linked.join("sub/new.txt"), "new\n").unwrap();
    let repo = mayfly_git::Repo::discover(&place.ours(), &linked.join("sub")).await.unwrap();
    assert_eq!(repo.top, linked.canonicalize().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let (quarantine, snapshot) = repo.snapshot(scratch.path()).await.unwrap();
    quarantine.bundle(&snapshot.base, None, &place.base()).await.unwrap();
    let machine = place.machine(&snapshot);
    assert_eq!(place.git(&machine, &["ls-files"]), "a.txt\nsub/new.txt");
}

#[tokio::test]
async fn work_that_started_from_nothing_becomes_a_new_repository() {
    let place = Place::with_repository();
    place.git(&place.repo(), &["update-ref", "refs/heads/work", "HEAD"]);
    let bundle = place.dir.path().join("work.bundle");
    place.git(&place.repo(), &["bundle", "create", "-q", bundle.to_str().unwrap(), "refs/heads/work"]);
    let head = place.git(&place.repo(), &["rev-parse", "HEAD"]);
    let folder = place.dir.path().join("made");
    let made = unbundle(&place.ours(), None, &bundle, &head, &folder, "mayfly/1-x").await.unwrap();
    assert_eq!(made.without_files, None);
    assert_eq!(fs::read_to_string(folder.join("a.txt")).unwrap(), "one\n");
    assert_eq!(place.git(&folder, &["status", "--porcelain", "--branch"]), "## mayfly/1-x");
    unbundle(&place.ours(), None, &bundle, &head, &folder, "again").await.unwrap_err();
    // What fails leaves nothing half made.
    let names = || {
        let entries = fs::read_dir(place.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    let other = place.dir.path().join("other");
    unbundle(&place.ours(), None, &bundle, &"0".repeat(40), &other, "main").await.unwrap_err();
    assert_eq!(names(), before);
}

/// S11: it lands unasked, so its files come only where they are no flood.
#[tokio::test]
async fn work_that_unfolds_to_too_much_becomes_a_repository_without_files() {
    let place = Place::with_repository();
    // A million files of one block each.
    let (bundle, head) = place.bundle_of_copies(6, 2);
    assert!(fs::metadata(&bundle).unwrap().len() < 2000);
    let folder = place.dir.path().join("made");
    let made = unbundle(&place.ours(), None, &bundle, &head, &folder, "main").await.unwrap();
    let words = made.without_files.unwrap().to_string();
    assert_eq!(words, "it unfolds to more than 2 GiB");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "its git folder alone");
    assert_eq!(place.git(&folder, &["rev-parse", "main"]), head);
}

#[tokio::test]
async fn plain_files_become_a_repository_of_one_commit() {
    let place = Place::with_repository();
    let folder = place.dir.path().join("plain");
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("src/a.sh"), "echo\n").unwrap();
    mayfly_git::create(&place.ours(), &folder, "All of it").await.unwrap();
    assert_eq!(place.git(&folder, &["log", "--format=%an %s"]), "mayfly All of it");
    assert_eq!(place.git(&folder, &["ls-files"]), "src/a.sh");
    assert_eq!(place.git(&folder, &["status", "--porcelain", "--branch"]), "## main");
    mayfly_git::Repo::discover(&place.ours(), &folder).await.unwrap();
}

/// All that a task added is read to be searched, whether what it handed over is whole by itself or differences to what was
/// there, which need that too.
#[tokio::test]
async fn what_a_task_added_is_read_whether_or_not_it_leans_on_what_was_there() {
    let place = Place::with_repository();
    let numbers: Vec<String> = (0..5000).map(|number| format!("{number}\n")).collect();
    fs::write(place.repo().join("numbers.txt"), numbers.concat()).unwrap();
    // Its tree names what is not in the bundle, and which git checks wherever it is named.
    fs::write(place.repo().join(".gitattributes"), "* text=auto\n").unwrap();
    place.commit("numbers");
    let (_quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("numbers.txt"), numbers.concat() + "of the task\n").unwrap();
    place.git(&machine, &["commit", "-q", "-a", "-m", "a message"]);
    let (bundle, _) = place.bundle(&machine, &snapshot);
    let leaning = fs::metadata(&bundle).unwrap().len();
    let base = place.base();
    let base = Base { bundle: &base, commit: &snapshot.base, on: None };
    let read = async || {
        let (scratch, mut all) = (tempfile::tempdir().unwrap(), Vec::new());
        let each = |piece: &[u8]| {
            all.extend_from_slice(piece);
            ControlFlow::Continue(())
        };
        assert!(read_through(&place.ours(), scratch.path(), Some(base), &bundle, each).await.unwrap());
        String::from_utf8_lossy(&all).into_owned()
    };
    let holds = |read: &str| {
        let parts = ["4999\nof the task\n", "a message", "numbers.txt", "refs/heads/work"];
        assert!(parts.iter().all(|part| read.contains(part)), "{}", read.len());
    };
    holds(&read().await);
    place.git(&machine, &["config", "pack.window", "0"]);
    place.bundle(&machine, &snapshot);
    assert!(fs::metadata(&bundle).unwrap().len() > 2 * leaning, "now it has no differences");
    holds(&read().await);
}
