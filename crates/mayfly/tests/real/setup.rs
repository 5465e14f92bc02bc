//! Set-up commands of a repository, with the real `claude`.

use std::fs;

use serde_json::json;

use super::world::{Ended, Run, World};

fn bash(command: &str) -> String {
    format!("[script: steps list={}]", json!([{"tools": [{"name": "Bash", "input": {"command": command}}]}]))
}

/// Writes the configuration; the words that name it.
fn configured(world: &World, commands: &[&str], rest: &str) -> Vec<String> {
    let path = world.dir.path().join("mayfly.toml");
    let commands = json!(commands);
    fs::write(&path, format!("[repo.repo.setup]\ncommands = {commands}\n{rest}")).unwrap();
    vec!["--config".to_owned(), path.to_str().unwrap().to_owned()]
}

async fn run(world: &World, config: &[String], prompt: &str) -> Ended {
    let words: Vec<&str> = config.iter().map(String::as_str).chain([prompt]).collect();
    world.outcome_of(&words).await
}

/// What came as lines of the standard error.
fn stderr(ended: &Ended) -> Vec<&str> {
    let said = ended.events.iter().filter(|event| event["source"] == "stderr");
    said.filter_map(|event| event["text"].as_str()).collect()
}

/// I6: what the commands made is there for the next task as they made it, whatever an agent did to it, until a lock file
/// changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_set_up_commands_made_is_kept_until_a_lock_file_changes() {
    let Some(world) = World::start(|_| {}).await else { return };
    fs::write(world.repo().join(".gitignore"), "deps/\n").unwrap();
    fs::write(world.repo().join("deps.lock"), "1\n").unwrap();
    let commands = "mkdir -p deps/bin && echo uid=$(id -u) && env && head -c 16 /dev/urandom | od -An -tx1 >deps/made && \
                printf '#!/bin/sh\\ncat /workspace/repo/deps/made\\n' >deps/bin/run && chmod +x deps/bin/run && \
                ln -s bin/run deps/link";
    let keep = "lock_files = [\"deps.lock\", \"none.lock\"]\nkeep = [\"deps\"]\n";
    let config = configured(&world, &[commands, "echo second"], keep);
    let prompt = bash(
        "deps/link; git status --porcelain; echo spoiled >deps/made; echo bad >deps/more; echo x >>a.txt",
    );
    let first = run(&world, &config, &prompt).await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let said = stderr(&first);
    assert!(said[0].starts_with("set-up: mkdir") && said.contains(&"set-up: echo second"), "{said:?}");
    assert!(said.contains(&"second") && said.contains(&"uid=1000"), "as the agent: {said:?}");
    assert!(said.iter().any(|line| line.starts_with("HTTPS_PROXY=http://127.0.0.1:")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("TOKEN") || line.contains("ANTHROPIC")), "{said:?}");
    let made = first.tool_results().concat();
    assert_eq!(made.split_whitespace().count(), 16, "{made}");

    let second = run(&world, &config, &prompt).await;
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(stderr(&second), ["set-up: deps as an earlier task left it"]);
    assert_eq!(second.tool_results().concat(), made, "what the first agent did to it is no matter");
    assert_eq!(world.branches().len(), 2);
    for branch in world.branches() {
        assert!(!world.git(&["ls-tree", "-r", "--name-only", &branch]).contains("deps/"));
    }

    fs::write(world.repo().join("deps.lock"), "2\n").unwrap();
    let third = run(&world, &config, &prompt).await;
    assert!(stderr(&third).contains(&"second"), "{:?}", stderr(&third));
    assert_ne!(third.tool_results().concat(), made);
    // What is kept and is spoiled on the disk is made anew.
    for entry in
        fs::read_dir(world.dir.path().join("data/workspaces")).unwrap().map(|entry| entry.unwrap().path())
    {
        if entry.extension().is_some_and(|end| end == "setup") {
            fs::write(entry, "mayfly set-up 1\n\u{1}").unwrap();
        }
    }
    let fourth = run(&world, &config, &prompt).await;
    assert_eq!(fourth.code, Some(0), "{}", fourth.stderr);
    assert!(stderr(&fourth).contains(&"second"), "{:?}", stderr(&fourth));
    world.end().await;
}

/// What they made or changed and no agent touched is not its work, nor are folders that are kept; what an agent went on
/// with is.
#[tokio::test(flavor = "multi_thread")]
async fn what_set_up_commands_made_is_not_the_agent_s_work() {
    let Some(world) = World::start(|_| {}).await else { return };
    let commands =
        "mkdir deps tools && echo x >deps/x && echo y >tools/y && echo changed >>a.txt && rm new.txt";
    let config = configured(&world, &[commands], "keep = [\"deps\"]\n");
    let idle = run(&world, &config, &bash("git status --porcelain")).await;
    assert_eq!(idle.code, Some(0), "{}", idle.stderr);
    assert_eq!(idle.tool_results().concat(), " M a.txt\n D new.txt\n?? deps/\n?? tools/");
    assert_eq!(world.branches(), [""; 0]);
    let note = "note        made by the set-up commands alone, and left behind: a.txt, new.txt, tools/y";
    assert!(idle.stderr.contains("no changes") && idle.stderr.contains(note), "{}", idle.stderr);

    let config = configured(&world, &[commands, "echo anew"], "keep = [\"deps\"]\n");
    let works =
        run(&world, &config, &bash("echo worked >>a.txt; echo z >tools/z; echo more >deps/more")).await;
    assert_eq!(works.code, Some(0), "{}", works.stderr);
    let [branch] = &world.branches()[..] else { panic!("{}", works.stderr) };
    assert_eq!(world.git(&["show", &format!("{branch}:a.txt")]), "two\nchanged\nworked");
    assert_eq!(
        world.git(&["ls-tree", "-r", "--name-only", branch]),
        ".gitattributes\na.txt\nnew.txt\ntools/z"
    );

    // One that fails leaves none of it either.
    let config = configured(&world, &["echo half >half.txt; exit 1"], "");
    let failed = run(&world, &config, "[script: text]").await;
    assert_eq!(failed.outcome().0, "setup", "{}", failed.stderr);
    assert_eq!(world.branches().len(), 1, "{}", failed.stderr);
    world.end().await;
}

/// I6: what another repository's commands made is never taken, whatever that one is called.
#[tokio::test(flavor = "multi_thread")]
async fn two_repositories_of_one_name_share_nothing_of_their_set_ups() {
    let Some(world) = World::start(|_| {}).await else { return };
    let other = world.dir.path().join("elsewhere/repo");
    fs::create_dir_all(&other).unwrap();
    world.git(&["clone", "-q", ".", other.to_str().unwrap()]);
    let config = configured(&world, &["mkdir deps && date +%s%N >deps/made"], "keep = [\"deps\"]\n");
    let look = bash("cat deps/made");
    let mut made = Vec::new();
    for place in [world.repo(), other.clone(), world.repo(), other] {
        let words: Vec<&str> = config.iter().map(String::as_str).collect();
        let words = [&words[..], &["--repo", place.to_str().unwrap(), &look]].concat();
        let ended = world.outcome_of(&words).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        made.push(ended.tool_results().concat());
    }
    assert!(made[0] != made[1] && made[0] == made[2] && made[1] == made[3], "{made:?}");
    world.end().await;
}

/// The model is asked nothing for a task whose set-up failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_that_fails_or_takes_too_long_ends_the_task() {
    let Some(world) = World::start(|_| {}).await else { return };
    let config = configured(&world, &["echo one", "echo wrong >&2; exit 3", "touch never"], "");
    let ended = run(&world, &config, "[script: text]").await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let (name, detail) = ended.outcome();
    assert_eq!(name, "setup");
    assert!(detail.contains("`echo wrong >&2; exit 3` failed with 3: wrong"), "{detail}");
    assert_eq!(stderr(&ended), ["set-up: echo one", "one", "set-up: echo wrong >&2; exit 3", "wrong"]);

    let config = configured(&world, &["sleep 600 & sleep 600"], "timeout = \"1s\"\n");
    let ended = run(&world, &config, "[script: text]").await;
    assert!(
        matches!(ended.outcome(), ("setup", detail) if detail.contains("not done within 1 s")),
        "{:?}",
        ended.outcome()
    );
    assert!(world.api.requests().is_empty());
    assert_eq!(ended.own("running").count(), 1);

    let wrong = run(&world, &configured(&world, &["true"], "keep = [\"../out\"]\n"), "x").await;
    assert_eq!((wrong.code, wrong.events.len()), (Some(2), 0));
    assert!(
        wrong.stderr.contains("setup.keep") && wrong.stderr.contains("[repo.\"repo\".setup]"),
        "{}",
        wrong.stderr
    );
    world.end().await;
}

/// A repository has no say in where the commands' files go: what is there already is not replaced, nor kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_repository_itself_is_not_kept() {
    let Some(world) = World::start(|_| {}).await else { return };
    std::os::unix::fs::symlink("/tmp", world.repo().join("deps")).unwrap();
    let config = configured(&world, &["echo ran"], "keep = [\"deps\"]\n");
    for _ in 0..2 {
        let ended = run(&world, &config, &bash("ls -d deps")).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(stderr(&ended), ["set-up: echo ran", "ran"]);
    }
    let kept = fs::read_dir(world.dir.path().join("data/workspaces")).unwrap();
    let kept: Vec<_> =
        kept.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "setup").collect();
    assert!(kept.is_empty(), "{kept:?}");
    world.end().await;
}

/// What a set-up made is no input: a retry has the same code and commands, and where their outcome is gone they run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_runs_the_commands_again_whose_outcome_is_not_kept_any_more() {
    let Some(world) = World::start(|_| {}).await else { return };
    let config = configured(&world, &["mkdir deps && echo made >deps/made"], "keep = [\"deps\"]\n");
    let first = run(&world, &config, &bash("cat deps/made a.txt")).await;
    assert_eq!((first.code, stderr(&first).len()), (Some(0), 1), "{}", first.stderr);
    fs::write(world.repo().join("a.txt"), "later\n").unwrap();
    let kept = || {
        let entries = fs::read_dir(world.dir.path().join("data/workspaces")).unwrap();
        let mut kept = entries.map(|entry| entry.unwrap().path());
        kept.find(|path| path.extension().unwrap() == "setup")
    };
    fs::remove_file(kept().unwrap()).unwrap();
    let task = first.events[0]["task"].as_str().unwrap();
    for said in ["set-up: mkdir deps && echo made >deps/made", "set-up: deps as an earlier task left it"] {
        let again = Run::start(world.plain_command(&["retry", task, "--json"])).end().await;
        assert_eq!((again.code, stderr(&again)), (Some(0), vec![said]), "{}", again.stderr);
        assert_eq!(again.tool_results(), first.tool_results());
        assert!(kept().is_some());
    }
    world.end().await;
}
