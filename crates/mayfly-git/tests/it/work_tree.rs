//! What of the user's files goes in: changes, and only what the user's git would call one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mayfly_git::{GitError, Repo};

use super::Place;

/// When the files of a test were written: a whole second, long ago.
const THEN: Duration = Duration::from_secs(1_700_000_000);
/// Within the same second.
const THEN_LATER: Duration = Duration::from_millis(1_700_000_000_500);

fn set_time(path: &Path, since_1970: Duration) {
    let time = SystemTime::UNIX_EPOCH + since_1970;
    fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A file of the repository, written [`THEN`].
fn write(place: &Place, name: &str, content: &str) -> PathBuf {
    let path = place.repo().join(name);
    fs::write(&path, content).unwrap();
    set_time(&path, THEN);
    path
}

fn names(place: &Place, commit: &str) -> String {
    place.git(&place.repo(), &["-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", commit])
}

/// `HEAD`, where the user's git calls everything unchanged.
fn clean_head(place: &Place) -> String {
    assert_eq!(place.git(&place.repo(), &["--no-optional-locks", "status", "--porcelain"]), "");
    place.git(&place.repo(), &["rev-parse", "HEAD"])
}

#[tokio::test]
async fn untracked_repositories_inside_are_left_out_and_named() {
    let place = Place::with_repository();
    let repo = place.repo();
    for inner in ["inner", "odd *[a]", "dir/without a commit"] {
        fs::create_dir_all(repo.join(inner)).unwrap();
        place.git(&repo.join(inner), &["init", "-q"]);
        fs::write(repo.join(inner).join("x.txt"), "x\n").unwrap();
    }
    for inner in ["inner", "odd *[a]"] {
        place.git(&repo.join(inner), &["add", "-A"]);
        place.git(&repo.join(inner), &["commit", "-q", "-m", "theirs"]);
    }
    fs::write(repo.join("dir/beside.txt"), "mine\n").unwrap();
    fs::write(repo.join("odd xa"), "mine\n").unwrap();
    let (_quarantine, snapshot) = place.snapshot().await;
    assert_eq!(snapshot.left_out, ["dir/without a commit", "inner", "odd *[a]"]);
    assert!(snapshot.submodules.is_empty(), "{:?}", snapshot.submodules);
    let machine = place.machine(&snapshot);
    assert_eq!(names(&place, "HEAD"), "a.txt");
    assert_eq!(place.git(&machine, &["ls-files"]), "a.txt\ndir/beside.txt\nodd xa");
}

/// Takes from this thread, and from what it starts, the right to read everything.
#[cfg(target_os = "linux")]
fn be_ordinary() {
    use rustix::thread::{
        CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
    };

    let rights = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    let mut sets = capabilities(None).unwrap();
    for right in rights.iter() {
        // Who has no such right need not give it up.
        let _ = remove_capability_from_bounding_set(right);
    }
    sets.effective -= rights;
    sets.permitted -= rights;
    sets.inheritable -= rights;
    set_capabilities(None, sets).unwrap();
}

/// Elsewhere the tests are an ordinary user's.
#[cfg(not(target_os = "linux"))]
fn be_ordinary() {}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_with_what_to_do() {
    be_ordinary();
    for (name, advice) in [("a.txt", "tracked"), ("new.txt", ".gitignore")] {
        let place = Place::with_repository();
        let path = place.repo().join(name);
        fs::write(&path, "cannot be read\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let repo = Repo::discover(&place.ours(), &place.repo()).await.unwrap();
        let error = repo.snapshot(scratch.path()).await.unwrap_err();
        assert!(matches!(&error, GitError::Unreadable { path, .. } if path == Path::new(name)), "{error}");
        assert!(error.to_string().contains(advice), "{error}");
    }
}

/// A change within the second in which the index was written, and of the same length.
#[tokio::test]
async fn a_change_that_the_times_do_not_show_is_found() {
    let place = Place::with_repository();
    for setting in [["core.trustCtime", "false"], ["core.checkStat", "minimal"]] {
        place.git(&place.repo(), &["config", setting[0], setting[1]]);
    }
    write(&place, "a.txt", "one\n");
    place.git(&place.repo(), &["update-index", "--refresh"]);
    write(&place, "a.txt", "two\n");
    set_time(&place.repo().join(".git/index"), THEN_LATER);
    let (_quarantine, snapshot) = place.snapshot().await;
    assert_eq!(place.git(&place.machine(&snapshot), &["show", "HEAD:a.txt"]), "two");
}

#[tokio::test]
async fn line_ends_that_the_users_git_converts_are_no_change() {
    for (setting, attributes) in [("true", ""), ("false", "*.txt text eol=crlf\n"), ("input", "")] {
        let place = Place::with_repository();
        // In the user's own configuration, and not in the repository's.
        fs::write(place.dir.path().join(".gitconfig"), format!("[core]\n\tautocrlf = {setting}\n")).unwrap();
        fs::write(place.repo().join(".git/info/attributes"), attributes).unwrap();
        write(&place, "a.txt", "one\r\ntwo\r\n");
        place.commit("second");
        assert_eq!(place.git(&place.repo(), &["cat-file", "-s", "HEAD:a.txt"]), "8");
        // What the index knows of it says nothing any more.
        set_time(&place.repo().join("a.txt"), THEN_LATER + Duration::from_secs(5));
        let head = clean_head(&place);
        let (_quarantine, snapshot) = place.snapshot().await;
        assert_eq!(snapshot.base, head, "{setting}");
    }
}

/// A repository with a filter that stores a pointer, as LFS does, and a file that was stored by it.
fn with_filter() -> Place {
    let place = Place::with_repository();
    let clean = r#"sh -c "echo run >>../filter-runs; echo pointer to $(wc -c)""#;
    place.git(&place.repo(), &["config", "filter.store.clean", clean]);
    place.git(&place.repo(), &["config", "core.trustCtime", "false"]);
    fs::write(place.repo().join(".gitattributes"), "*.bin filter=store\n*.dat filter=nobody\n").unwrap();
    write(&place, "big.bin", "a lot of content");
    write(&place, "plain.dat", "its filter is not installed");
    place.commit("second");
    assert_eq!(place.git(&place.repo(), &["show", "HEAD:big.bin"]), "pointer to 16");
    place
}

fn runs(place: &Place) -> String {
    fs::read_to_string(place.dir.path().join("filter-runs")).unwrap_or_default()
}

#[tokio::test]
async fn a_file_with_a_filter_that_is_as_the_index_says_is_no_change() {
    for split in ["--no-split-index", "--split-index"] {
        let place = with_filter();
        place.git(&place.repo(), &["update-index", split]);
        let head = clean_head(&place);
        // As after a clone: the index is of the same second as the file.
        set_time(&place.repo().join(".git/index"), THEN_LATER);
        let before = runs(&place);
        let (_quarantine, snapshot) = place.snapshot().await;
        assert_eq!((snapshot.base, snapshot.unfiltered), (head, Vec::<String>::new()), "{split}");
        assert_eq!(runs(&place), before, "the filter is a program of the repository's");
    }
}

#[tokio::test]
async fn a_changed_file_with_a_filter_goes_in_as_it_is_and_is_named() {
    let place = with_filter();
    write(&place, "staged.bin", "stored already");
    place.git(&place.repo(), &["add", "staged.bin"]);
    set_time(&place.repo().join(".git/index"), THEN_LATER);
    for (name, content) in
        [("big.bin", "changed"), ("new.bin", "new"), ("plain.dat", "changed"), ("a.txt", "b")]
    {
        fs::write(place.repo().join(name), content).unwrap();
    }
    let before = runs(&place);
    let (_quarantine, snapshot) = place.snapshot().await;
    assert_eq!(snapshot.unfiltered, ["big.bin", "new.bin"]);
    assert_eq!(runs(&place), before);
    let machine = place.machine(&snapshot);
    let content = |name: &str| place.git(&machine, &["show", &format!("HEAD:{name}")]);
    let contents = ["big.bin", "new.bin", "staged.bin", "plain.dat", "a.txt"].map(content);
    assert_eq!(contents, ["changed", "new", "pointer to 14", "changed", "b"]);
}
