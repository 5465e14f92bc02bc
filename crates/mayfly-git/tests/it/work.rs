//! Work that is looked at, applied, or landed long after its task.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use mayfly_git::{Base, Change, Flagged, GitError, Hooks, Repo, Snapshot, Work};
use tempfile::TempDir;

use super::Place;

/// A task that changed a text, made a binary file and removed nothing; the user had uncommitted work.
struct Done {
    place: Place,
    snapshot: Snapshot,
    bundle: PathBuf,
    head: String,
    scratch: TempDir,
}

impl Done {
    async fn new() -> Self {
        let place = Place::with_repository();
        fs::write(place.repo().join("a.txt"), "one\nmine\n").unwrap();
        let (_quarantine, snapshot) = place.snapshot().await;
        let machine = place.machine(&snapshot);
        fs::write(machine.join("a.txt"), "one\nmine\nmade\n").unwrap();
        fs::write(machine.join("new.bin"), b"\0\x01\xff").unwrap();
        fs::set_permissions(machine.join("new.bin"), fs::Permissions::from_mode(0o755)).unwrap();
        place.git(&machine, &["add", "-A"]);
        place.git(&machine, &["commit", "-q", "-m", "work"]);
        let (bundle, head) = place.bundle(&machine, &snapshot);
        Self { place, snapshot, bundle, head, scratch: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Work {
        let base = Base { bundle: &self.place.base(), commit: &self.snapshot.base, on: None };
        Work::open(&self.place.ours(), self.scratch.path(), Some(base), &self.bundle, &self.head)
            .await
            .unwrap()
    }

    async fn repo(&self) -> Repo {
        Repo::discover(&self.place.ours(), &self.place.repo()).await.unwrap()
    }

    async fn patch(&self, work: &Work) -> PathBuf {
        let patch = self.scratch.path().join("patch");
        work.patch(&patch).await.unwrap();
        patch
    }
}

#[tokio::test]
async fn a_diff_is_against_what_the_task_started_from() {
    let done = Done::new().await;
    let to = done.scratch.path().join("diff");
    done.open().await.diff(&to).await.unwrap();
    let diff = fs::read_to_string(to).unwrap();
    assert!(diff.contains("+made\n") && !diff.contains("+mine"), "{diff}");
    assert!(diff.contains("Binary files /dev/null and b/new.bin differ"), "{diff}");
}

#[tokio::test]
async fn work_that_started_from_nothing_is_all_new() {
    let done = Done::new().await;
    let place = &done.place;
    place.git(&place.repo(), &["update-ref", "refs/heads/work", "HEAD"]);
    let bundle = place.dir.path().join("whole.bundle");
    place.git(&place.repo(), &["bundle", "create", "-q", bundle.to_str().unwrap(), "refs/heads/work"]);
    let head = place.git(&place.repo(), &["rev-parse", "HEAD"]);
    let work = Work::open(&place.ours(), done.scratch.path(), None, &bundle, &head).await.unwrap();
    let to = done.scratch.path().join("diff");
    work.diff(&to).await.unwrap();
    assert!(fs::read_to_string(to).unwrap().contains("--- /dev/null\n+++ b/a.txt\n@@ -0,0 +1 @@\n+one\n"));
}

#[tokio::test]
async fn applied_work_is_in_the_files_and_nowhere_else() {
    let done = Done::new().await;
    let repo = done.place.repo();
    let refs = || done.place.git(&repo, &["for-each-ref"]);
    let before = refs();
    let work = done.open().await;
    work.apply(&done.patch(&work).await, &done.repo().await).await.unwrap();
    assert_eq!(fs::read_to_string(repo.join("a.txt")).unwrap(), "one\nmine\nmade\n");
    assert_eq!(fs::read(repo.join("new.bin")).unwrap(), b"\0\x01\xff");
    assert_eq!(fs::metadata(repo.join("new.bin")).unwrap().permissions().mode() & 0o111, 0o111);
    assert_eq!(refs(), before);
    assert_eq!(done.place.git(&repo, &["diff", "--cached", "--name-only"]), "");
}

/// Files whose lines end otherwise than in the repository, as the user's git has it, are none that the work does not fit.
#[tokio::test]
async fn work_is_applied_with_the_ends_of_lines_that_the_user_s_git_gives() {
    let place = Place::with_repository();
    let repo = place.repo();
    place.git(&repo, &["config", "core.autocrlf", "true"]);
    fs::write(repo.join("a.txt"), "one\r\nmine\r\n").unwrap();
    let (_quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("a.txt"), "one\nmine\nmade\n").unwrap();
    place.git(&machine, &["commit", "-q", "-a", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let (code, scratch) = (place.base(), tempfile::tempdir().unwrap());
    let base = Base { bundle: &code, commit: &snapshot.base, on: None };
    let work = Work::open(&place.ours(), scratch.path(), Some(base), &bundle, &head).await.unwrap();
    let patch = scratch.path().join("patch");
    work.patch(&patch).await.unwrap();
    work.apply(&patch, &Repo::discover(&place.ours(), &repo).await.unwrap()).await.unwrap();
    assert_eq!(fs::read_to_string(repo.join("a.txt")).unwrap(), "one\r\nmine\r\nmade\r\n");
}

#[tokio::test]
async fn work_that_does_not_fit_changes_no_file() {
    let done = Done::new().await;
    let repo = done.place.repo();
    fs::write(repo.join("a.txt"), "something else\n").unwrap();
    let work = done.open().await;
    let patch = done.patch(&work).await;
    let error = work.apply(&patch, &done.repo().await).await.unwrap_err();
    assert!(matches!(&error, GitError::NoFit { said, .. } if said.contains("a.txt")), "{error}");
    assert_eq!(fs::read_to_string(repo.join("a.txt")).unwrap(), "something else\n");
    assert!(!repo.join("new.bin").exists());
}

/// S48: what takes effect by itself is known, however deep it is and however its name is written; the others are counted.
#[tokio::test]
async fn each_changed_file_is_named_with_its_lines_and_whether_it_runs_by_itself() {
    let place = Place::with_repository();
    let (_quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("a.txt"), "two\nmade\n").unwrap();
    fs::write(machine.join("odd \t\n\u{1b}[2J\u{fc}"), b"\0").unwrap();
    for (path, text) in [(".GitHub/workflows/ci.yml", "on: push\n"), ("web/.husky/pre-commit", "x\n")] {
        let path = machine.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    place.git(&machine, &["add", "-A"]);
    place.git(&machine, &["commit", "-q", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let [first, second] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let code = place.base();
    let base = Base { bundle: &code, commit: &snapshot.base, on: None };
    let own = Work::open(&place.ours(), first.path(), Some(base), &bundle, &head).await.unwrap();
    let changes = own.changes(&Hooks::default()).await.unwrap();
    let change = |path: &str, lines| Change { path: path.to_owned(), lines };
    let files = [
        change(".GitHub/workflows/ci.yml", Some((1, 0))),
        change("a.txt", Some((2, 1))),
        change("odd \t\n\u{1b}[2J\u{fc}", None),
        change("web/.husky/pre-commit", Some((1, 0))),
    ];
    assert_eq!((&changes.files[..], changes.count), (&files[..], 4));
    let flagged: Vec<_> = changes.flagged.iter().map(|file| (file.path.as_str(), file.words)).collect();
    assert_eq!(
        flagged,
        [(".GitHub/workflows/ci.yml", "a pipeline"), ("web/.husky/pre-commit", "a hook of git")]
    );
    // The same without the base, where the user has it; and nothing where they have not.
    let repo = Repo::discover(&place.ours(), &place.repo()).await.unwrap();
    let borrowed = Work::open_on(&repo, second.path(), &snapshot.base, &bundle, &head).await.unwrap();
    assert_eq!(borrowed.unwrap().changes(&Hooks::default()).await.unwrap(), changes);
    let third = tempfile::tempdir().unwrap();
    let none = Work::open_on(&repo, third.path(), &"1".repeat(40), &bundle, &head).await;
    assert!(none.unwrap().is_none());
}

/// S48: a hook of the user's own repository is known by its settings and by the links among its hooks, wherever the work is
/// shown or lands.
#[tokio::test]
async fn a_hook_of_the_repository_itself_is_known_wherever_it_is() {
    let place = Place::with_repository();
    let repo = place.repo();
    fs::create_dir_all(repo.join("scripts/lib")).unwrap();
    for name in ["scripts/pre-commit", "scripts/lib/log", "scripts/build.sh", "linked.sh"] {
        fs::write(repo.join(name), "true\n").unwrap();
    }
    place.commit("scripts");
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    for name in ["scripts/pre-commit", "scripts/lib/log", "scripts/build.sh", "linked.sh"] {
        fs::write(machine.join(name), "false\n").unwrap();
    }
    place.git(&machine, &["commit", "-q", "-a", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    quarantine.land(&bundle, &head, "mayfly/1-x").await.unwrap();
    let flagged = async || {
        let repo = Repo::discover(&place.ours(), &repo).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let work =
            Work::open_on(&repo, scratch.path(), &snapshot.base, &bundle, &head).await.unwrap().unwrap();
        let shown = work.changes(&repo.hooks().await.unwrap()).await.unwrap();
        assert_eq!(quarantine.changes(&snapshot.base, &head, &bundle).await.unwrap(), shown);
        assert_eq!(shown.count, 4);
        assert!(shown.flagged.iter().all(|file| file.words == "a hook of git"));
        shown.flagged.into_iter().map(|file| file.path).collect::<Vec<_>>()
    };
    assert_eq!(flagged().await, Vec::<String>::new());
    let hooks = repo.join(".git/hooks");
    std::os::unix::fs::symlink("../../linked.sh", hooks.join("post-merge")).unwrap();
    assert_eq!(flagged().await, ["linked.sh"]);
    // Then git does not look at those any more. The user's home is that of the test.
    for path in ["scripts", "~/repo/scripts/", repo.join("scripts").to_str().unwrap()] {
        place.git(&repo, &["config", "core.hooksPath", path]);
        assert_eq!(flagged().await, ["scripts/pre-commit"], "{path}");
    }
}

/// S48: what the work has as well is told once.
#[tokio::test]
async fn what_runs_by_itself_and_is_the_same_beside_the_work_is_named_once() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join(".envrc"), "both\n").unwrap();
    place.git(&machine, &["add", "-A"]);
    place.git(&machine, &["commit", "-q", "-m", "both"]);
    fs::write(machine.join(".npmrc"), "side\n").unwrap();
    place.git(&machine, &["add", "-A"]);
    place.git(&machine, &["commit", "-q", "-m", "side"]);
    place.git(&machine, &["update-ref", "refs/heads/other/side", "HEAD"]);
    place.git(&machine, &["reset", "-q", "--hard", "HEAD~1"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let base = format!("^{}", snapshot.base);
    let both = ["refs/heads/work", "refs/heads/other/side", &base];
    place.git(&machine, &[&["bundle", "create", "-q", bundle.to_str().unwrap()][..], &both].concat());
    quarantine.land(&bundle, &head, "x").await.unwrap();
    let changes = quarantine.changes(&snapshot.base, &head, &bundle).await.unwrap();
    let told: Vec<_> = changes.flagged.iter().map(|file| (file.beside.as_deref(), &*file.path)).collect();
    assert_eq!(told, [(None, ".envrc"), (Some("side"), ".npmrc")]);
}

/// S11: a difference ends at its bound, however small its bundle is.
#[tokio::test]
async fn a_difference_without_end_is_not_written_to_its_end() {
    let place = Place::with_repository();
    // Ten thousand files of 100 kB.
    let (bundle, head) = place.bundle_of_copies(4, 100_000);
    assert!(fs::metadata(&bundle).unwrap().len() < 2000);
    let scratch = tempfile::tempdir().unwrap();
    let work = Work::open(&place.ours(), scratch.path(), None, &bundle, &head).await.unwrap();
    let to = scratch.path().join("difference");
    for error in [work.diff(&to).await.unwrap_err(), work.patch(&to).await.unwrap_err()] {
        assert!(matches!(error, GitError::TooMuchText), "{error}");
        assert!(error.to_string().starts_with("what was changed is more than 256 MiB as text"), "{error}");
        assert!(fs::metadata(&to).unwrap().len() <= 256 << 20);
    }
}

/// S48: so is what is committed beside the work, wherever that lands or is shown.
#[tokio::test]
async fn what_runs_by_itself_on_another_branch_is_named_with_it() {
    let place = Place::with_repository();
    let (quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join(".envrc"), "x\n").unwrap();
    place.git(&machine, &["add", "-A"]);
    place.git(&machine, &["commit", "-q", "-m", "side"]);
    place.git(&machine, &["update-ref", "refs/heads/other/side", "HEAD"]);
    place.git(&machine, &["reset", "-q", "--hard", &snapshot.base]);
    fs::write(machine.join("a.txt"), "two\n").unwrap();
    place.git(&machine, &["commit", "-q", "-a", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let base = format!("^{}", snapshot.base);
    let both = ["refs/heads/work", "refs/heads/other/side", &base];
    place.git(&machine, &[&["bundle", "create", "-q", bundle.to_str().unwrap()][..], &both].concat());
    let (repo, scratch) = (place.repo(), tempfile::tempdir().unwrap());
    let repo = Repo::discover(&place.ours(), &repo).await.unwrap();
    let work = Work::open_on(&repo, scratch.path(), &snapshot.base, &bundle, &head).await.unwrap().unwrap();
    let shown = work.changes(&Hooks::default()).await.unwrap();
    assert_eq!(quarantine.land(&bundle, &head, "x").await.unwrap(), ["x--side"]);
    let landed = quarantine.changes(&snapshot.base, &head, &bundle).await.unwrap();
    for changes in [shown, landed] {
        let flagged = Flagged {
            beside: Some("side".to_owned()),
            path: ".envrc".to_owned(),
            words: "a setting of a shell",
        };
        assert_eq!((changes.count, changes.flagged), (1, vec![flagged]));
    }
}

/// Git passes over what is in no file: so that is told.
#[tokio::test]
async fn what_no_file_can_hold_is_named() {
    let place = Place::with_repository();
    let pointer = |commit: char, path: &str| format!("160000,{},{path}", commit.to_string().repeat(40));
    for path in ["gone", "sub", "same"] {
        fs::create_dir(place.repo().join(path)).unwrap();
        place.git(&place.repo(), &["update-index", "--add", "--cacheinfo", &pointer('1', path)]);
    }
    place.git(&place.repo(), &["commit", "-q", "-m", "submodules"]);
    let (_quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    fs::write(machine.join("a.txt"), "two\n").unwrap();
    place.git(&machine, &["update-index", "a.txt"]);
    place.git(&machine, &["update-index", "--cacheinfo", &pointer('2', "sub")]);
    place.git(&machine, &["update-index", "--add", "--cacheinfo", &pointer('3', "new")]);
    place.git(&machine, &["update-index", "--force-remove", "gone"]);
    place.git(&machine, &["commit", "-q", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let (code, scratch) = (place.base(), tempfile::tempdir().unwrap());
    let base = Base { bundle: &code, commit: &snapshot.base, on: None };
    let work = Work::open(&place.ours(), scratch.path(), Some(base), &bundle, &head).await.unwrap();
    assert_eq!(work.submodules().await.unwrap(), ["gone", "new", "sub"]);
    assert_eq!((work.changes(&Hooks::default()).await.unwrap().count, work.others().count()), (4, 0));
    let patch = scratch.path().join("patch");
    work.patch(&patch).await.unwrap();
    work.apply(&patch, &Repo::discover(&place.ours(), &place.repo()).await.unwrap()).await.unwrap();
    assert_eq!(fs::read_to_string(place.repo().join("a.txt")).unwrap(), "two\n");
    assert!(place.git(&place.repo(), &["ls-files", "-s", "sub"]).contains(&"1".repeat(40)));
}

/// The configuration and attributes of the user's repository have no say in what is shown of the work.
#[tokio::test]
async fn listing_what_was_changed_starts_no_program_of_the_repository() {
    let done = Done::new().await;
    let (repo, ran) = (done.place.repo(), done.place.dir.path().join("ran"));
    let program = format!("touch {}", ran.display());
    for key in ["diff.external", "diff.x.textconv", "diff.x.command", "core.fsmonitor", "filter.x.clean"] {
        done.place.git(&repo, &["config", key, &program]);
    }
    fs::create_dir_all(repo.join(".git/info")).unwrap();
    fs::write(repo.join(".git/info/attributes"), "* diff=x filter=x\n").unwrap();
    let base = &done.snapshot.base;
    let place = &done.place;
    let code = place.base();
    place.git(&repo, &["-c", "filter.x.clean=cat", "bundle", "unbundle", code.to_str().unwrap()]);
    let work =
        Work::open_on(&done.repo().await, done.scratch.path(), base, &done.bundle, &done.head).await.unwrap();
    assert_eq!(work.unwrap().changes(&Hooks::default()).await.unwrap().count, 2);
    assert!(!ran.exists());
}

/// What holds of a kill in the middle of `--apply`: each file is the old one, the new one as far as it was written, or missing,
/// which git's status tells; nothing else in the repository is touched.
#[tokio::test]
async fn applying_that_is_killed_leaves_each_file_old_new_or_missing() {
    const FILES: usize = 400;
    let place = Place::with_repository();
    let name = |number: usize| format!("many/{number}.txt");
    fs::create_dir(place.repo().join("many")).unwrap();
    let old = "old\n".repeat(50);
    (0..FILES).for_each(|number| fs::write(place.repo().join(name(number)), &old).unwrap());
    place.git(&place.repo(), &["add", "-A"]);
    place.git(&place.repo(), &["commit", "-q", "-m", "many"]);
    let (_quarantine, snapshot) = place.snapshot().await;
    let machine = place.machine(&snapshot);
    let new = "new\n".repeat(60);
    (0..FILES).for_each(|number| fs::write(machine.join(name(number)), &new).unwrap());
    place.git(&machine, &["commit", "-q", "-a", "-m", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);
    let repo = Repo::discover(&place.ours(), &place.repo()).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let work = Work::open_on(&repo, scratch.path(), &snapshot.base, &bundle, &head).await.unwrap().unwrap();
    let patch = scratch.path().join("patch");
    work.patch(&patch).await.unwrap();
    let refs = place.git(&place.repo(), &["for-each-ref"]);
    // Given up as soon as it has written the first file, it kills its git.
    let written = async {
        while fs::read_to_string(repo.top.join(name(0))).is_ok_and(|text| text == old) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = written => {}
        applied = work.apply(&patch, &repo) => applied.unwrap(),
    }
    for number in 0..FILES {
        if let Ok(text) = fs::read_to_string(repo.top.join(name(number))) {
            assert!(text == old || new.starts_with(&text), "{number} is neither");
        }
    }
    assert_eq!(place.git(&place.repo(), &["for-each-ref"]), refs);
    assert_eq!(place.git(&place.repo(), &["diff", "--cached", "--name-only"]), "");
}

/// S48: no path of a patch leads out of the tree or into a `.git`.
#[tokio::test]
async fn a_patch_that_leads_elsewhere_is_refused() {
    let done = Done::new().await;
    let work = done.open().await;
    let repo = done.repo().await;
    std::os::unix::fs::symlink(done.place.dir.path(), done.place.repo().join("link")).unwrap();
    for path in [".git/hooks/post-checkout", "sub/.git/config", "../out", "link/out"] {
        let patch = done.scratch.path().join("patch");
        let text = format!(
            "diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        );
        fs::write(&patch, text).unwrap();
        let error = work.apply(&patch, &repo).await.unwrap_err();
        assert!(matches!(error, GitError::NoFit { .. }), "{path}: {error}");
    }
    assert!(!done.place.dir.path().join("out").exists());
}

/// The repository's own configuration names programs that git starts where it writes files.
#[tokio::test]
async fn applying_starts_no_program_of_the_repository() {
    let done = Done::new().await;
    let repo = done.place.repo();
    let ran = done.place.dir.path().join("ran");
    done.place.git(&repo, &["config", "filter.x.smudge", &format!("touch {}", ran.display())]);
    done.place.git(&repo, &["config", "filter.x.clean", &format!("touch {}; cat", ran.display())]);
    fs::write(repo.join(".gitattributes"), "* filter=x\n").unwrap();
    let work = done.open().await;
    work.apply(&done.patch(&work).await, &done.repo().await).await.unwrap();
    assert!(!ran.exists());
    // It would have: the same patch by the user's own git.
    fs::remove_file(repo.join("new.bin")).unwrap();
    done.place
        .git(&repo, &["apply", "--include=new.bin", done.scratch.path().join("patch").to_str().unwrap()]);
    assert!(ran.exists());
}

#[tokio::test]
async fn work_lands_long_after_the_copy_was_taken() {
    let done = Done::new().await;
    let repo = done.place.repo();
    // The user has gone on since.
    done.place.commit("gone on");
    let quarantine = done.repo().await.quarantine(done.scratch.path()).await.unwrap();
    assert!(
        !quarantine.starts_from(&done.snapshot.base).await.unwrap(),
        "nobody has kept the uncommitted work"
    );
    quarantine.start_from(&done.place.base(), &done.snapshot.base).await.unwrap();
    quarantine.land(&done.bundle, &done.head, "late").await.unwrap();
    assert_eq!(done.place.git(&repo, &["rev-parse", "late"]), done.head);
    done.place.git(&repo, &["fsck", "--strict"]);
    // And once more, now that all of it is there.
    let again = tempfile::tempdir().unwrap();
    let quarantine = done.repo().await.quarantine(again.path()).await.unwrap();
    assert!(quarantine.starts_from(&done.snapshot.base).await.unwrap());
    quarantine.land(&done.bundle, &done.head, "again").await.unwrap();
}

/// As they are in CI: what is not committed goes along, and the work lands at once, later, and once the clone is whole.
#[tokio::test]
async fn a_clone_of_a_part_of_a_history_is_worked_on_as_it_is() {
    let place = Place::with_repository();
    place.git(&place.repo(), &["checkout", "-q", "-b", "side"]);
    fs::write(place.repo().join("b.txt"), "b\n").unwrap();
    place.commit("side");
    place.git(&place.repo(), &["checkout", "-q", "main"]);
    fs::write(place.repo().join("a.txt"), "two\n").unwrap();
    place.commit("second");
    place.git(&place.repo(), &["merge", "-q", "--no-ff", "-m", "merged", "side"]);
    fs::rename(place.repo(), place.dir.path().join("whole")).unwrap();
    let url = format!("file://{}", place.dir.path().join("whole").display());
    place.git(place.dir.path(), &["clone", "-q", "--depth=2", &url, "repo"]);
    fs::write(place.repo().join("a.txt"), "changed\n").unwrap();
    fs::write(place.repo().join("untracked"), "x").unwrap();
    let state = place.state();
    let (quarantine, snapshot) = place.snapshot().await;
    assert!(snapshot.dirty && quarantine.is_cut_off(&snapshot.base).await.unwrap());

    let machine = place.machine_cut_off(&snapshot);
    let log = place.git(&machine, &["log", "--topo-order", "--format=%s"]);
    assert_eq!(log, "Uncommitted work when the task began\nmerged\nside\nsecond");
    place.git(&machine, &["fsck", "--strict"]);
    fs::write(machine.join("a.txt"), "the agent's\n").unwrap();
    place.git(&machine, &["commit", "-q", "-am", "work"]);
    let (bundle, head) = place.bundle(&machine, &snapshot);

    quarantine.land(&bundle, &head, "now").await.unwrap();
    assert_eq!(place.git(&place.repo(), &["rev-list", "--count", "now"]), "5");
    place.git(&place.repo(), &["branch", "-q", "-D", "now"]);
    assert_eq!(place.state(), state);
    for (deepen, commits) in [(false, "5"), (true, "6")] {
        if deepen {
            place.git(&place.repo(), &["fetch", "-q", "--unshallow"]);
        }
        place.git(&place.repo(), &["reflog", "expire", "--expire=now", "--all"]);
        place.git(&place.repo(), &["gc", "-q", "--prune=now"]);
        let repo = Repo::discover(&place.ours(), &place.repo()).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let quarantine = repo.quarantine(scratch.path()).await.unwrap();
        assert!(
            !quarantine.starts_from(&snapshot.base).await.unwrap(),
            "nobody has kept the uncommitted work"
        );
        quarantine.start_from(&place.base(), &snapshot.base).await.unwrap();
        quarantine.land(&bundle, &head, "later").await.unwrap();
        assert_eq!(place.git(&place.repo(), &["rev-list", "--count", "later"]), commits);
        assert_eq!(place.git(&place.repo(), &["show", "later:a.txt"]), "the agent's");
        place.git(&place.repo(), &["fsck", "--strict"]);
        place.git(&place.repo(), &["branch", "-q", "-D", "later"]);
    }
}

#[tokio::test]
async fn the_work_of_another_repository_is_refused() {
    let done = Done::new().await;
    let other = Place::with_repository();
    fs::write(other.repo().join("a.txt"), "other\n").unwrap();
    other.commit("other");
    other.git(&other.repo(), &["checkout", "-q", "--orphan", "alone"]);
    other.commit("alone");
    let repo = Repo::discover(&other.ours(), &other.repo()).await.unwrap();
    let quarantine = repo.quarantine(done.scratch.path()).await.unwrap();
    let error = quarantine.start_from(&done.place.base(), &done.snapshot.base).await.unwrap_err();
    assert!(matches!(error, GitError::Unrelated(_)), "{error}");
}

#[tokio::test]
async fn a_branch_that_cannot_be_made_is_named() {
    let place = Place::with_repository();
    place.git(&place.repo(), &["branch", "taken"]);
    place.git(&place.repo(), &["branch", "deep/er/still"]);
    let repo = Repo::discover(&place.ours(), &place.repo()).await.unwrap();
    repo.check_branch("mayfly/1-x").await.unwrap();
    repo.check_branch("deep/other").await.unwrap();
    for (wanted, expected) in
        [("taken/below", "taken"), ("deep/er", "deep/er/still"), ("deep/er/still/x", "deep/er/still")]
    {
        let error = repo.check_branch(wanted).await.unwrap_err();
        assert!(matches!(&error, GitError::Taken { there, .. } if there == expected), "{wanted}: {error}");
    }
    let error = repo.check_branch("taken").await.unwrap_err();
    assert!(matches!(&error, GitError::Exists(branch) if branch == "taken"), "{error}");
    for bad in ["", "-x", "a..b", "a b", "a/", "x.lock", "a~1", "a\u{1b}b"] {
        let error = repo.check_branch(bad).await.unwrap_err();
        assert!(matches!(error, GitError::BadBranch(_)), "{bad}: {error}");
    }
}
