//! What one worker brought out of a workspace is put into another by the next: nothing is told apart by git there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_wire::api::{Collected, Ref, Repository};
use proptest::prelude::*;
use tokio::time::Instant;

use super::the_work::{Place, git, told, written};
use crate::collect::bundle::Bundle;
use crate::reaper::{Realm, Reaper};
use crate::resume::work::Left;

/// A file's path, mode, and content or target.
type Seen = (PathBuf, u32, Vec<u8>);

/// All files below a folder but `.git`.
fn seen(top: &Path) -> Vec<Seen> {
    let (mut seen, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            let content = match () {
                () if path == top.join(".git") => continue,
                () if metadata.is_dir() => {
                    folders.push(path);
                    continue;
                }
                () if metadata.is_symlink() => {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                }
                () => fs::read(&path).unwrap(),
            };
            // Of modes git keeps one bit.
            seen.push((path.strip_prefix(top).unwrap().to_owned(), metadata.mode() & 0o170_100, content));
        }
    }
    seen.sort();
    seen
}

/// What git says of a repository.
fn said(top: &Path) -> Vec<String> {
    let commands: [&[&str]; 4] = [
        &["status", "--porcelain", "--branch", "-z", "--untracked-files=all"],
        &["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"],
        &["log", "--format=%H %s", "HEAD"],
        &["stash", "list", "--format=%H %s"],
    ];
    commands.map(|command| git(top, command)).to_vec()
}

/// Brings the work of `dir` out, and puts it into a new clone of the base there, called `next`.
async fn next(dir: &Path, base: Option<&str>) -> (Vec<String>, Collected) {
    let next = dir.join("next");
    match base {
        Some(_) => drop(git(dir, &["clone", "--quiet", "--no-hardlinks", "base", "next"])),
        None => fs::create_dir(&next).unwrap(),
    }
    let (bundle, collected) = told(dir, base).await;
    let lost =
        put_back(dir, base, &bundle.expect("something to bring out"), collected.repository.as_ref()).await;
    (lost, collected)
}

async fn put_back(
    dir: &Path,
    base: Option<&str>,
    bundle: &Bundle,
    repository: Option<&Repository>,
) -> Vec<String> {
    let reaper = Reaper::start(Realm::Children).unwrap();
    let scratch = dir.join("next-scratch");
    fs::create_dir(&scratch).unwrap();
    let left = Left {
        reaper: &reaper,
        workspace: &dir.join("next"),
        base,
        head: &bundle.head,
        repository,
        bundle: &written(bundle, dir),
        scratch: &scratch,
        deadline: Instant::now() + Duration::from_secs(60),
    };
    left.put_back().await.unwrap()
}

impl Place {
    async fn next(&self) -> (Vec<String>, PathBuf) {
        (next(self.dir.path(), Some(&self.base)).await.0, self.dir.path().join("next"))
    }
}

#[tokio::test]
async fn commits_branches_stashes_and_what_was_not_committed_are_as_they_were() {
    let place = Place::new();
    place.git(&["checkout", "-q", "-b", "feature/x"]);
    place.commit("committed");
    place.git(&["tag", "v1"]);
    place.git(&["checkout", "-q", "-b", "aside", "main"]);
    place.commit("aside");
    place.git(&["checkout", "-q", "feature/x"]);
    for text in ["first", "second"] {
        place.write("kept", text);
        place.git(&["stash", "push", "-q", "-m", text]);
    }
    place.write("kept", "two\n");
    place.write("new/deep", "n\n");
    fs::remove_file(place.work().join("gone")).unwrap();
    let (lost, next) = place.next().await;
    assert_eq!((lost, said(&next), seen(&next)), (vec![], said(&place.work()), seen(&place.work())));
    git(&next, &["fsck", "--strict"]);
}

/// What was staged is so again: what is new, gone, or was changed once more since, also where its branch has no commit.
#[tokio::test]
async fn what_was_staged_is_staged_again() {
    let place = Place::new();
    place.write("kept", "staged\n");
    place.write("new", "staged\n");
    place.write("only", "in the index\n");
    place.git(&["rm", "-q", "gone"]);
    place.git(&["add", "-A"]);
    place.write("kept", "changed since\n");
    place.write("untracked", "u\n");
    fs::remove_file(place.work().join("only")).unwrap();
    let (lost, next) = place.next().await;
    assert_eq!((lost, said(&next), seen(&next)), (vec![], said(&place.work()), seen(&place.work())));
    assert!(said(&next)[0].contains("MM kept\0"), "{:?}", said(&next));
    assert_eq!(git(&next, &["show", ":only"]), "in the index");

    let place = Place::new();
    place.git(&["checkout", "-q", "--orphan", "fresh"]);
    place.write("kept", "changed since\n");
    let (lost, next) = place.next().await;
    let status = ["status", "--porcelain", "--branch", "-z"];
    assert_eq!((lost, git(&next, &status)), (vec![], git(&place.work(), &status)));
}

/// What is in the index alone comes out too, and it is said where it does not land.
#[tokio::test]
async fn what_is_staged_and_in_no_file_comes_out() {
    for (with_other_work, note) in
        [(false, "this is what was staged"), (true, "staged, but in no file: `mayfly resume` finds it")]
    {
        let place = Place::new();
        place.write("only", "in the index\n");
        place.git(&["add", "only"]);
        fs::remove_file(place.work().join("only")).unwrap();
        if with_other_work {
            place.write("other", "o\n");
            place.write("both", "b\n");
            place.git(&["add", "both"]);
        }
        let (lost, collected) = next(place.dir.path(), Some(&place.base)).await;
        let next = place.dir.path().join("next");
        assert_eq!((lost, said(&next), seen(&next)), (vec![], said(&place.work()), seen(&place.work())));
        assert_eq!(git(&next, &["show", ":only"]), "in the index");
        assert!(collected.notes.iter().any(|line| line.contains(note)), "{:?}", collected.notes);
        assert_eq!(collected.notes[0].ends_with(": only"), with_other_work, "{:?}", collected.notes);
    }
}

/// Without an index that can be kept, all else comes out.
#[tokio::test]
async fn an_index_that_cannot_be_kept_costs_nothing_else() {
    let place = Place::new();
    place.commit("ours");
    place.git(&["checkout", "-q", "-b", "theirs", "main~1"]);
    place.write("ours", "theirs\n");
    place.git(&["add", "ours"]);
    place.git(&["commit", "-q", "-m", "theirs"]);
    let merge =
        std::process::Command::new("git").args(["merge", "-q", "main"]).current_dir(place.work()).output();
    assert!(!merge.unwrap().status.success(), "a conflict");
    let (bundle, collected) = told(place.dir.path(), Some(&place.base)).await;
    assert_eq!((bundle.is_some(), collected.unsaved), (true, vec![]));
    assert!(collected.notes.iter().any(|note| note.contains("staged")), "{:?}", collected.notes);
    fs::remove_file(place.work().join(".git/index")).unwrap();
    symlink("/dev/zero", place.work().join(".git/index")).unwrap();
    fs::remove_dir_all(place.dir.path().join("scratch")).unwrap();
    let (bundle, collected) = told(place.dir.path(), Some(&place.base)).await;
    assert_eq!((bundle.is_some(), collected.unsaved), (true, vec![]));
}

#[tokio::test]
async fn a_head_of_no_branch_and_one_behind_the_base_are_as_they_were() {
    let place = Place::new();
    place.commit("x");
    place.git(&["checkout", "-q", "--detach"]);
    place.commit("detached");
    place.git(&["branch", "-q", "-D", "main"]);
    let (lost, next) = place.next().await;
    assert_eq!((lost, said(&next), seen(&next)), (vec![], said(&place.work()), seen(&place.work())));

    let place = Place::new();
    place.write("kept", "changed\n");
    place.git(&["checkout", "-q", "--orphan", "fresh"]);
    let (lost, next) = place.next().await;
    assert_eq!(lost, [""; 0]);
    assert_eq!(seen(&next), seen(&place.work()));
    assert_eq!(git(&next, &["symbolic-ref", "HEAD"]), "refs/heads/fresh");
}

/// Whatever a machine has said of its repository, the files are there, and no other file of the machine is touched.
#[tokio::test]
async fn names_and_commits_that_are_none_are_told_and_cost_nothing_else() {
    let place = Place::new();
    place.write("new", "n\n");
    git(place.dir.path(), &["clone", "--quiet", "--no-hardlinks", "base", "next"]);
    let (bundle, _) = told(place.dir.path(), Some(&place.base)).await;
    let named = |name: &str, commit: &str| Ref { name: name.to_owned(), commit: commit.to_owned() };
    let base = place.base.as_str();
    let repository = Repository {
        commit: Some("--output=/x".to_owned()),
        branch: Some("../../../x".to_owned()),
        refs: vec![
            named("heads/good", base),
            named("heads/../../config", base),
            named("heads/--upload-pack=x", base),
            named("heads/a b", base),
            named("heads/none", &"0".repeat(39)),
            named("heads/blob", "main:kept"),
        ],
        stash: vec!["--all".to_owned(), base.to_owned()],
        index: Some("--empty".to_owned()),
    };
    let lost = put_back(place.dir.path(), Some(base), &bundle.unwrap(), Some(&repository)).await;
    let next = place.dir.path().join("next");
    assert_eq!(lost.len(), 9, "{lost:#?}");
    assert_eq!(git(&next, &["rev-parse", "HEAD", "good"]), format!("{base}\n{base}"));
    assert_eq!(git(&next, &["status", "--porcelain"]), "?? new");
    assert!(!place.dir.path().join("x").exists());
}

/// Without code to begin with, there is a repository afterwards if the agent had made one.
#[tokio::test]
async fn a_folder_is_as_it_was_with_or_without_a_repository() {
    for commands in [
        &[][..],
        &[&["init", "-q", "-b", "trunk"][..]],
        &[&["init", "-q", "-b", "trunk"], &["add", "a"], &["commit", "-q", "-m", "a"]],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::write(work.join("a"), "a\n").unwrap();
        for command in commands {
            git(&work, command);
        }
        fs::write(work.join("b"), "b\n").unwrap();
        let (lost, _) = next(dir.path(), None).await;
        let next = dir.path().join("next");
        assert_eq!((lost, seen(&next)), (vec![], seen(&work)));
        assert_eq!(next.join(".git").exists(), !commands.is_empty());
        if !commands.is_empty() {
            let status = ["status", "--porcelain", "--branch"];
            assert_eq!(git(&next, &status), git(&work, &status));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// S10: files of any name, mode and content, links and folders.
    #[test]
    fn files_of_any_name_and_content_come_out_and_in_as_they_were(
        files in prop::collection::btree_map(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 1..3),
            (any::<Vec<u8>>(), 0..4_u8),
            1..12,
        )
    ) {
        let place = Place::new();
        for (parts, (content, kind)) in &files {
            let parts: Vec<&OsStr> = parts.iter().map(|part| OsStr::from_bytes(part)).collect();
            let bad = |part: &&OsStr| {
                let bytes = part.as_bytes();
                bytes.contains(&b'/') || bytes.contains(&0) || [&b"."[..], b".."].contains(&bytes)
                    || bytes.to_ascii_lowercase().starts_with(b".git") || bytes.ends_with(b".log")
            };
            if parts.iter().any(bad) {
                continue;
            }
            let path = place.work().join(parts.iter().collect::<PathBuf>());
            // One may be a folder of another, or a file in its way.
            let _ = path.parent().map(fs::create_dir_all);
            match kind {
                0 => drop(symlink(OsStr::from_bytes(b"any\xffwhere/.."), &path)),
                1 => drop(fs::write(&path, content).and_then(|()| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)))),
                2 => drop(fs::write(&path, b"line\r\nline\n")),
                _ => drop(fs::write(&path, content)),
            }
        }
        place.write("always", "a\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (lost, next) = runtime.block_on(place.next());
        prop_assert_eq!(lost, vec![""; 0]);
        prop_assert_eq!(seen(&next), seen(&place.work()));
        prop_assert_eq!(said(&next), said(&place.work()));
    }
}
