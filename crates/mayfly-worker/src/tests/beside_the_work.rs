//! What the agent committed where its `HEAD` does not reach: it comes out under refs of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use mayfly_wire::api::Collected;
use mayfly_wire::worker::OTHERS_MAX;

use super::the_work::{Place, git, told, written};
use crate::collect::bundle::Bundle;

/// A bundle, the subject of the commit of each of its other refs, and what else is told.
async fn out(place: &Place) -> (Bundle, BTreeMap<String, String>, Collected) {
    let (made, collected) = told(place.dir.path(), Some(&place.base)).await;
    let made = made.unwrap();
    let taken = place.taken(&made);
    let file = written(&made, place.dir.path());
    git(&taken, &["fetch", "--quiet", file.to_str().unwrap(), "refs/heads/other/*:refs/other/*"]);
    git(&taken, &["fsck", "--strict"]);
    let refs = git(&taken, &["for-each-ref", "--format=%(refname:lstrip=2) %(subject)", "refs/other"]);
    let pair = |line: &str| line.split_once(' ').map(|(name, subject)| (name.to_owned(), subject.to_owned()));
    let others: BTreeMap<_, _> = refs.lines().filter_map(pair).collect();
    assert_eq!(others.len(), made.others.len(), "{others:?} {made:?}");
    (made, others, collected)
}

fn others<const N: usize>(expected: [(&str, &str); N]) -> BTreeMap<String, String> {
    expected.map(|(name, subject)| (name.to_owned(), subject.to_owned())).into()
}

#[tokio::test]
async fn a_branch_that_was_left_is_the_work_if_there_is_no_other() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "-b", "feature/x"]);
    let head = place.commit("of the feature");
    place.git(&["checkout", "--quiet", "main"]);
    let (made, found, collected) = out(&place).await;
    assert_eq!((made.head, found), (head, others([])));
    assert_eq!(collected.notes, ["HEAD had no changes: this is what `feature-x` had"]);
    assert!(collected.unsaved.is_empty(), "{collected:?}");
}

#[tokio::test]
async fn branches_come_out_beside_the_work() {
    let place = Place::new();
    for (branch, name) in [("feature/x", "slash"), ("feature-x", "dash"), ("\u{4fee}\u{590d}", "unnamed")] {
        place.git(&["checkout", "--quiet", "-b", branch, &place.base]);
        place.commit(name);
    }
    place.git(&["pack-refs", "--all"]);
    place.git(&["checkout", "--quiet", "main"]);
    place.write("kept", "two\n");
    let (made, found, collected) = out(&place).await;
    let expected = [("feature-x", "dash"), ("feature-x-2", "slash"), ("unnamed", "unnamed")];
    assert_eq!(found, others(expected));
    assert_eq!(place.git(&["rev-parse", "main"]), place.base);
    assert_ne!(made.head, place.base);
    assert!(collected.unsaved.is_empty() && collected.notes.is_empty(), "{collected:?}");
}

#[tokio::test]
async fn every_stash_comes_out() {
    let place = Place::new();
    for text in ["first\n", "second\n"] {
        place.write("kept", text);
        place.git(&["stash", "push", "--quiet", "--message", text.trim()]);
    }
    place.write("untracked", "in a stash too\n");
    place.git(&["stash", "push", "--quiet", "--include-untracked", "--message", "third"]);
    place.commit("new");
    let (_, found, collected) = out(&place).await;
    let expected =
        [("stash", "On main: third"), ("stash-2", "On main: second"), ("stash-3", "On main: first")];
    assert_eq!(found, others(expected));
    assert!(collected.unsaved.is_empty(), "{collected:?}");
}

#[tokio::test]
async fn what_is_ahead_of_a_detached_head_comes_out() {
    let place = Place::new();
    let first = place.commit("first");
    place.commit("second");
    place.git(&["checkout", "--quiet", "--detach", "HEAD~1"]);
    let (made, found, _) = out(&place).await;
    assert_eq!((made.head, found), (first, others([("main", "second")])));
}

#[tokio::test]
async fn what_was_detached_and_left_comes_out_by_its_id() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "--detach"]);
    place.commit("older");
    let left = place.commit("left");
    place.git(&["checkout", "--quiet", "main"]);
    place.commit("new");
    let (_, found, _) = out(&place).await;
    assert_eq!(found, others([(&left[..8], "left")]));
}

#[tokio::test]
async fn what_was_left_behind_more_than_once_is_joined() {
    let place = Place::new();
    for name in ["one", "two", "three"] {
        place.commit(name);
        place.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    }
    let last = place.commit("last");
    let (made, found, _) = out(&place).await;
    assert_eq!(made.head, last);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["rest"]);
    let taken = place.dir.path().join("taken");
    let subjects = git(&taken, &["log", "--no-walk=unsorted", "--format=%s", "refs/other/rest^@"]);
    assert_eq!(subjects, "three\ntwo\none");
}

#[tokio::test]
async fn a_log_is_looked_at_up_to_its_bound_and_that_is_told() {
    let place = Place::new();
    let old = place.commit("old");
    place.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    let new = place.commit("new");
    fs::remove_file(place.work().join(".git/ORIG_HEAD")).unwrap();
    let log = place.work().join(".git/logs/HEAD");
    let line = |commit: &str| format!("{new} {commit} a <a@example.invalid> 0 +0000\tx\n");
    fs::write(log, line(&old) + &line(&new).repeat(500)).unwrap();
    let (_, found, collected) = out(&place).await;
    assert_eq!(found, others([]));
    assert_eq!(
        collected.notes,
        ["the log of `HEAD` has more than 500 entries: older ones are not looked at"]
    );
}

#[tokio::test]
async fn a_rebase_that_stopped_half_way_loses_nothing() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "-b", "feature"]);
    place.write("kept", "feature\n");
    place.git(&["commit", "--quiet", "--all", "--message", "of the feature"]);
    place.git(&["checkout", "--quiet", "main"]);
    place.write("kept", "main\n");
    place.git(&["commit", "--quiet", "--all", "--message", "of main"]);
    place.git(&["checkout", "--quiet", "feature"]);
    place.write("gone", "not committed\n");
    let rebase = ["-c", "rebase.autoStash=true", "rebase", "--quiet", "main"];
    let mut command = std::process::Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").current_dir(place.work());
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "a").env(format!("GIT_{role}_EMAIL"), "a@example.invalid");
    }
    assert!(!command.args(rebase).output().unwrap().status.success(), "it stops at the conflict");
    let (_, found, _) = out(&place).await;
    assert_eq!(found["feature"], "of the feature");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.values().any(|subject| subject.starts_with("On ")), "the autostash: {found:?}");
}

#[tokio::test]
async fn work_trees_come_out_detached_or_not() {
    let place = Place::new();
    place.git(&["worktree", "add", "--quiet", "--detach", "../detached"]);
    place.git(&["worktree", "add", "--quiet", "-b", "side", "../side"]);
    for tree in ["detached", "side"] {
        let tree_dir = place.dir.path().join(tree);
        git(&tree_dir, &["commit", "--quiet", "--allow-empty", "--message", tree]);
    }
    place.commit("new");
    let (_, found, _) = out(&place).await;
    assert_eq!(found, others([("side", "side"), ("worktree-detached", "detached")]));
}

#[tokio::test]
async fn tags_of_either_kind_come_out() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "--detach"]);
    place.commit("tagged");
    place.git(&["tag", "--annotate", "--message", "t", "v1.0"]);
    place.git(&["checkout", "--quiet", "main"]);
    place.commit("new");
    assert_eq!(out(&place).await.1, others([("tags-v1-0", "tagged")]));
}

#[tokio::test]
async fn more_branches_than_there_may_be_are_joined() {
    let place = Place::new();
    for number in 0..OTHERS_MAX + 5 {
        place.git(&["checkout", "--quiet", "-b", &format!("b{number:02}"), &place.base]);
        place.git(&["commit", "--quiet", "--allow-empty", "--message", &format!("m{number:02}")]);
    }
    place.git(&["checkout", "--quiet", "main"]);
    place.commit("new");
    let (_, found, collected) = out(&place).await;
    assert_eq!((found.len(), collected.unsaved), (OTHERS_MAX, vec![]));
    let taken = place.dir.path().join("taken");
    let subjects = git(&taken, &["log", "--no-walk=unsorted", "--format=%s", "refs/other/rest^@"]);
    assert_eq!(subjects, "m19\nm20\nm21\nm22\nm23\nm24");
}

/// Covers S07 for refs: what an agent writes where git has its own is no way out of the machine, and costs
/// nothing else.
#[tokio::test]
async fn refs_that_are_not_what_they_seem_cost_nothing_else() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "-b", "good"]);
    place.commit("good");
    place.git(&["checkout", "--quiet", "main"]);
    let new = place.commit("new");
    let refs = place.work().join(".git/refs");
    symlink("/etc/passwd", refs.join("heads/link")).unwrap();
    symlink("/", refs.join("heads/root")).unwrap();
    fs::write(refs.join("heads/missing"), "1".repeat(40)).unwrap();
    fs::write(refs.join("heads/tree"), place.git(&["rev-parse", "HEAD^{tree}"])).unwrap();
    fs::write(refs.join("heads/words"), "--upload-pack=x").unwrap();
    fs::write(refs.join("heads/--output=x"), place.git(&["rev-parse", "good"])).unwrap();
    fs::write(place.work().join(".git/packed-refs"), format!("{new} refs/heads/../../x\nnoise\n\u{1}"))
        .unwrap();
    let (made, found, collected) = out(&place).await;
    assert_eq!(made.head, new);
    assert_eq!(found, others([("output-x", "good")]));
    for name in ["heads/link", "heads/root", "heads/missing", "heads/tree"] {
        assert!(collected.unsaved.iter().any(|line| line.contains(name)), "{name}: {collected:?}");
    }
    assert_eq!(collected.unsaved.len(), 4, "{collected:?}");
}

#[tokio::test]
async fn a_branch_that_is_damaged_costs_nothing_of_the_work() {
    let place = Place::new();
    place.git(&["checkout", "--quiet", "-b", "damaged"]);
    place.commit("bad");
    let blob = place.git(&["rev-parse", "HEAD:bad"]);
    place.git(&["checkout", "--quiet", "main"]);
    let head = place.commit("good");
    let object = place.work().join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]));
    fs::remove_file(&object).unwrap();
    fs::write(&object, "noise").unwrap();
    let (made, found, collected) = out(&place).await;
    assert_eq!((made.head, found), (head, others([])));
    let told = |line: &String| line.starts_with("the agent's other commits: ");
    assert!(collected.unsaved.len() == 1 && collected.unsaved.iter().all(told), "{collected:?}");
}

/// Whoever amends or rebases means the new commits.
#[tokio::test]
async fn what_the_agent_replaced_by_something_better_does_not_come_out() {
    let place = Place::new();
    place.commit("a first try");
    place.write("kept", "better\n");
    place.git(&["commit", "--quiet", "--all", "--amend", "--message", "better"]);
    place.git(&["checkout", "--quiet", "-b", "trunk", &place.base]);
    place.commit("of the trunk");
    place.git(&["checkout", "--quiet", "main"]);
    place.git(&["rebase", "--quiet", "trunk"]);
    let (made, found, collected) = out(&place).await;
    assert_eq!((made.head, found), (place.git(&["rev-parse", "main"]), others([])));
    assert!(collected.unsaved.is_empty() && collected.notes.is_empty(), "{collected:?}");
}
