//! Repositories elsewhere, with the real `claude`: fetched by the user's machine, and back as a clone or a branch.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::world::{World, git};

fn bash(command: &str) -> String {
    format!("[script: steps list={}]", json!([{"tools": [{"name": "Bash", "input": {"command": command}}]}]))
}

/// The folders that mayfly made in `at`.
fn clones(at: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("mayfly-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_works_on_a_repository_elsewhere_and_its_work_is_a_clone_or_a_branch() {
    let Some(world) = World::start(|_| {}).await else { return };
    let home = world.dir.path();
    world.git(&["branch", "topic"]);
    world.git(&["commit", "-q", "-am", "second"]);
    let url = format!("file://{}", world.repo().display());
    let outside = home.join("outside");
    fs::create_dir(&outside).unwrap();
    let prompt = bash("git log --oneline | wc -l; cat a.txt; ls new.txt; echo more >>a.txt");
    let mut command = world.command(&["--repo", &format!("{url}#topic"), &prompt]);
    command.current_dir(&outside);
    let ended = super::world::Run::start(command).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = ended.tool_results().concat();
    assert!(said.contains("1\none\n") && said.contains("No such file"), "{said}");

    let [clone] = &clones(&outside)[..] else { panic!("{}", ended.stderr) };
    let ours = |args: &[&str]| git(home, clone, args);
    assert_eq!(ours(&["show", "HEAD:a.txt"]), "one\nmore");
    assert_eq!(ours(&["remote", "get-url", "origin"]), url);
    assert_eq!(ours(&["rev-parse", "HEAD~1"]), ours(&["rev-parse", "origin/topic"]));
    assert!(ours(&["symbolic-ref", "--short", "HEAD"]).starts_with("mayfly/"));
    assert_eq!(fs::read_dir(home.join("data/mirrors")).unwrap().count(), 3, "one mirror and its locks");

    // In a clone of it, the work is a branch there, now and later.
    let theirs = home.join("theirs");
    git(home, home, &["clone", "-q", &url, "theirs"]);
    let mut command = world.command(&["--repo", &url, &bash("cat a.txt; echo more >>a.txt")]);
    command.current_dir(&theirs);
    let ended = super::world::Run::start(command).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.tool_results().concat().contains("two"));
    assert_eq!(clones(&theirs).len(), 0);
    let branches = git(home, &theirs, &["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    assert_eq!(branches.lines().count(), 1, "{branches}");
    assert_eq!(git(home, &theirs, &["show", &format!("{branches}:a.txt")]), "two\nmore");
    let task = ended.events[0]["task"].as_str().unwrap().to_owned();
    let mut command = world.plain_command(&["result", &task, "--branch", "later"]);
    let said = command.current_dir(&theirs).output().await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(git(home, &theirs, &["show", "later:a.txt"]), "two\nmore");

    // One that is not there is named, and no task is submitted.
    let away = format!("file://{}", home.join("away").display());
    let wrong = world.outcome_of(&["--repo", &away, "do nothing"]).await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(
        wrong.stderr.contains(&format!("cannot fetch `{away}`")) && wrong.events.is_empty(),
        "{}",
        wrong.stderr
    );
    let wrong = world.outcome_of(&["--repo", &format!("{url}#none"), "do nothing"]).await;
    assert!(wrong.stderr.contains("has no branch, tag or commit `none`"), "{}", wrong.stderr);
    world.end().await;
}

/// The bundles that the orchestrator has, by their length.
fn bundles(world: &World) -> Vec<u64> {
    let entries = fs::read_dir(world.dir.path().join("data/workspaces")).unwrap().map(|entry| entry.unwrap());
    let mut bytes: Vec<_> = entries.map(|entry| entry.metadata().unwrap().len()).collect();
    bytes.sort_unstable();
    bytes
}

/// The history is sent once, and each task's changes on top of it; all of it is there in the machine, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_task_sends_only_what_is_new() {
    let Some(world) = World::start(|_| {}).await else { return };
    let large: Vec<u8> = (0..1_000_000).map(|_| fastrand::u8(..)).collect();
    fs::write(world.repo().join("large.bin"), large).unwrap();
    world.git(&["add", "large.bin"]);
    world.git(&["commit", "-q", "-m", "large", "large.bin"]);
    let prompt =
        bash("git status --porcelain; git log --oneline | wc -l; cat a.txt new.txt; echo more >>new.txt");
    let ended = world.outcome_of(&[&prompt]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.tool_results().concat(), "3\ntwo\nnew");
    let sent = bundles(&world);
    assert!(sent.len() == 2 && sent[0] < 5000 && sent[1] > 1_000_000, "{sent:?}");

    world.git(&["commit", "-q", "-am", "a commit"]);
    fs::write(world.repo().join("new.txt"), "newer\n").unwrap();
    let ended = world.outcome_of(&[&prompt]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.tool_results().concat(), "4\ntwo\nnewer");
    let sent = bundles(&world);
    assert!(sent.len() == 3 && sent[1] < 5000 && sent[2] > 1_000_000, "{sent:?}");
    let shown = |branch: &String| world.git(&["show", &format!("{branch}:new.txt")]);
    let mut made: Vec<_> = world.branches().iter().map(shown).collect();
    made.sort();
    assert_eq!(made, ["new\nmore", "newer\nmore"]);
    // What it began with is put together again for whoever has only the orchestrator.
    let task = ended.events[0]["task"].as_str().unwrap().to_owned();
    let patch = world.mayfly(&["result", &task, "--patch"]).await.text();
    assert!(patch.contains("+more") && !patch.contains("large.bin"), "{patch}");
    world.end().await;
}
