//! Repositories elsewhere, with the real `claude`: fetched by the user's machine, and back as a clone or a branch.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::world::{Said, World, git};

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

/// What the user has checked out, and what they have not committed, does not count then.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_begins_at_the_commit_of_the_users_repository_that_is_named() {
    let Some(world) = World::start(|_| {}).await else { return };
    world.git(&["branch", "topic"]);
    world.git(&["commit", "-q", "-am", "second"]);
    let (top, topic) = (world.repo(), world.git(&["rev-parse", "topic"]));
    let prompt = bash("cat a.txt; ls new.txt; echo more >>a.txt");
    let ended = world.outcome_of(&["--repo", &format!("{}#topic", top.display()), &prompt]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = ended.tool_results().concat();
    assert!(said.contains("one\n") && said.contains("No such file"), "{said}");
    let told = format!("working on a copy of {}: commit {}", top.display(), &topic[..12]);
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    let [branch] = &world.branches()[..] else { panic!("{}", ended.stderr) };
    assert_eq!(world.git(&["show", &format!("{branch}:a.txt")]), "one\nmore");
    assert_eq!(world.git(&["rev-parse", &format!("{branch}~1")]), topic);

    let wrong = world.outcome_of(&["--repo", &format!("{}#none", top.display()), "do nothing"]).await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("has no branch, tag or commit `none`") && wrong.events.is_empty());
    world.end().await;
}

/// A task that nobody followed: where there is no clone yet, its work becomes one, as that of a task that was followed
/// does, also where another repository is around; in a clone made later it is a branch. It is retried and resumed anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_detached_task_on_a_repository_elsewhere_is_taken_and_gone_on_with_anywhere() {
    let Some(world) = World::start(|_| {}).await else { return };
    world.git(&["commit", "-q", "-am", "second"]);
    let (home, url) = (world.dir.path(), format!("file://{}", world.repo().display()));
    let outside = home.join("outside");
    fs::create_dir(&outside).unwrap();
    let mut command = world.command(&["--detach", "--repo", &url, &bash("echo more >>a.txt")]);
    let submitted = Said::from(command.current_dir(&outside).output().await.unwrap()).text();
    let task: serde_json::Value = serde_json::from_str(&submitted).unwrap();
    let task = task["short"].as_str().unwrap();
    world.mayfly(&["logs", task, "--follow"]).await.text();

    let result = async |words: &[&str], folder: &Path| {
        let mut command = world.plain_command(&[&["result", task], words].concat());
        Said::from(command.current_dir(folder).output().await.unwrap())
    };
    let refused = result(&["--apply"], &outside).await.refusal();
    assert!(
        refused.contains("go into a clone of `repo`") && refused.contains("--branch makes a new folder"),
        "{refused}"
    );
    let ours = |clone: &Path, args: &[&str]| git(home, clone, args);
    let check = |clone: &Path, branch: &str, text: &str| {
        assert_eq!(ours(clone, &["show", "HEAD:a.txt"]), text);
        assert_eq!(ours(clone, &["remote", "get-url", "origin"]), url);
        assert_eq!(ours(clone, &["log", "--format=%s"]), "Uncommitted work\nsecond\nfirst");
        assert_eq!(ours(clone, &["status", "--porcelain"]), "");
        let branches = ours(clone, &["for-each-ref", "--format=%(refname:short)"]);
        assert!(branches.starts_with(branch) && branches.lines().count() == 1, "{branches}");
    };
    result(&["--branch"], &outside).await.text();
    let [made] = &clones(&outside)[..] else { panic!("one folder") };
    check(made, &format!("mayfly/{task}-"), "two\nmore");
    let twice = result(&["--branch"], &outside).await.refusal();
    assert!(twice.contains("is there already: choose another name with --branch NAME"), "{twice}");
    let other = home.join("other");
    git(home, home, &["init", "-q", "other"]);
    git(home, &other, &["commit", "-q", "--allow-empty", "-m", "another"]);
    result(&["--branch", "x"], &other).await.text();
    check(&other.join("x"), "x", "two\nmore");
    let named = result(&["--branch", "y", "--repo", other.to_str().unwrap()], &outside).await.refusal();
    assert!(named.contains("share no commit") && !outside.join("y").exists(), "{named}");
    let elsewhere = home.join("again");
    fs::create_dir(&elsewhere).unwrap();
    for words in [&["retry", task][..], &["resume", task, &bash("echo again >>a.txt")]] {
        let mut command = world.plain_command(words);
        Said::from(command.current_dir(&elsewhere).output().await.unwrap()).text();
    }
    let mut made: Vec<_> =
        clones(&elsewhere).iter().map(|clone| ours(clone, &["show", "HEAD:a.txt"])).collect();
    made.sort();
    assert_eq!(made, ["two\nmore", "two\nmore\nagain"]);
    let refused = result(&["--branch", "--repo", &url], &outside).await.refusal();
    assert!(refused.contains("takes a path, and no URL: `git clone` it first"), "{refused}");
    // To look at it takes none.
    assert!(result(&["--patch"], &outside).await.text().contains("+more"));
    git(home, &outside, &["clone", "-q", &url, "late"]);
    result(&["--branch", "taken"], &outside.join("late")).await.text();
    assert_eq!(git(home, &outside.join("late"), &["show", "taken:a.txt"]), "two\nmore");
    world.end().await;
}

/// A part of the history, where its owner wants no more of it: in the machine and in the clone that is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_elsewhere_can_be_fetched_with_a_part_of_its_history() {
    let Some(world) = World::start(|_| {}).await else { return };
    for number in 0..4 {
        world.git(&["commit", "-q", "--allow-empty", "-m", &format!("number {number}")]);
    }
    let (home, url) = (world.dir.path(), format!("file://{}", world.repo().display()));
    let (config, outside) = (home.join("mayfly.toml"), home.join("outside"));
    fs::write(&config, "[repo.repo]\ndepth = 2\n").unwrap();
    fs::create_dir(&outside).unwrap();
    let prompt =
        bash("git log --format=%s; git fsck --strict 2>&1; echo more >>a.txt; git commit -q -am work");
    for _ in 0..2 {
        let mut command = world.command(&["--config", config.to_str().unwrap(), "--repo", &url, &prompt]);
        command.current_dir(&outside);
        let ended = super::world::Run::start(command).end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.tool_results().concat(), "number 3\nnumber 2");
        let task = ended.events[0]["task"].as_str().unwrap();
        assert!(world.mayfly(&["result", task, "--patch"]).await.text().contains("+more"));
        // In a whole clone as well.
        world.mayfly(&["result", task, "--branch"]).await.text();
    }
    let [clone, _] = &clones(&outside)[..] else { panic!("a clone of each") };
    assert_eq!(git(home, clone, &["log", "--format=%s"]), "work\nnumber 3\nnumber 2");
    assert_eq!(bundles(&world).len(), 1, "the same history is there already");
    for branch in world.branches() {
        assert_eq!(world.git(&["log", "--format=%s", "-3", &branch]), "work\nnumber 3\nnumber 2");
    }
    world.git(&["fsck", "--strict"]);
    // What is whole is never made of what is not.
    let ended = world.outcome_of(&[&bash("git log --format=%s | wc -l")]).await;
    assert_eq!(ended.tool_results().concat(), "6", "{}", ended.stderr);
    world.end().await;
}

/// Objects that are named by SHA-256, from the mirror to the machine and back, and in a repository of the user's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_sha_256_is_one_like_another() {
    let Some(world) = World::start(|_| {}).await else { return };
    let (home, theirs) = (world.dir.path(), world.dir.path().join("theirs"));
    fs::create_dir(&theirs).unwrap();
    git(home, &theirs, &["init", "-q", "-b", "main", "--object-format=sha256"]);
    fs::write(theirs.join("a.txt"), "one\n").unwrap();
    git(home, &theirs, &["add", "."]);
    git(home, &theirs, &["commit", "-q", "-m", "first"]);
    fs::write(theirs.join("new.txt"), "new\n").unwrap();
    let prompt = bash("git log --format=%s; git rev-parse HEAD | tr -d '\\n' | wc -c; echo more >>a.txt; ls");
    let url = format!("file://{}", theirs.display());
    for (repo, said) in [
        (theirs.to_str().unwrap(), "Uncommitted work when the task began\nfirst\n64\na.txt\nnew.txt"),
        (&url, "first\n64\na.txt"),
    ] {
        let ended = world.outcome_of(&["--repo", repo, &prompt]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.tool_results().concat(), said);
    }
    let branch = git(home, &theirs, &["for-each-ref", "--format=%(refname)", "refs/heads/mayfly"]);
    assert_eq!(git(home, &theirs, &["show", &format!("{branch}:a.txt")]), "one\nmore");
    let [clone] = &clones(&world.repo())[..] else { panic!("a clone of the other") };
    assert_eq!(git(home, clone, &["show", "HEAD:a.txt"]), "one\nmore");
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

/// A clone of the last commits, as they are in CI, with changes in it: the agent sees what is there of the history, its work
/// lands there now and later, and another goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_works_on_a_clone_of_a_part_of_a_history() {
    let Some(world) = World::start(|_| {}).await else { return };
    let home = world.dir.path();
    world.git(&["commit", "-q", "-am", "second"]);
    let part = home.join("part");
    git(home, home, &["clone", "-q", "--depth=1", &format!("file://{}", world.repo().display()), "part"]);
    fs::write(part.join("new.txt"), "untracked\n").unwrap();
    let prompt = bash("git log --format=%s; cat a.txt new.txt; echo more >>a.txt; git commit -qam work");
    let mut command = world.command(&[&prompt]);
    command.current_dir(&part);
    let ended = super::world::Run::start(command).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let expected = "Uncommitted work when the task began\nsecond\ntwo\nuntracked";
    assert_eq!(ended.tool_results().concat(), expected);
    let ours = |args: &[&str]| git(home, &part, args);
    let landed = ours(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    let log = ours(&["log", "--format=%s", &landed]);
    assert_eq!(log, "work\nUncommitted work when the task began\nsecond");
    ours(&["branch", "-q", "-D", &landed]);
    ours(&["reflog", "expire", "--expire=now", "--all"]);
    ours(&["gc", "-q", "--prune=now"]);

    let task = ended.events[0]["task"].as_str().unwrap().to_owned();
    let verb = async |args: &[&str]| {
        let mut command = world.plain_command(args);
        Said::from(command.current_dir(&part).output().await.unwrap()).text()
    };
    assert!(verb(&["result", &task, "--diff"]).await.contains("+more"));
    verb(&["result", &task, "--branch", "later"]).await;
    assert_eq!(ours(&["log", "--format=%s", "later"]), log);
    verb(&["resume", &task, &bash("git log --format=%s >log; git status --porcelain")]).await;
    let resumed = ours(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    assert_eq!(ours(&["show", &format!("{resumed}:log")]), log);
    ours(&["fsck", "--strict"]);
    world.end().await;
}
