//! A task that goes on where another ended, with the real `claude`: in another machine, with the same files, repository and
//! conversation.

use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::cancelling::{half_done, is_waiting};
use super::checkpoints::{claude_of, parent_of, pid};
use super::world::{Ended, Run, World};

fn bash(command: &str) -> Value {
    json!({"tools": [{"name": "Bash", "input": {"command": command, "description": "look"}}]})
}

fn steps(words: &str, steps: &[Value]) -> String {
    format!("{words} [script: steps list={}]", json!(steps))
}

/// What git says of a repository, as far as a resumed task is to find it as it was left.
const LOOK: &str = "pwd; git status --porcelain=v1 --branch; git log --format=%s --all; git branch --format='%(refname:short) \
                    %(subject)'; git stash list --format=%s; git tag; cat *.txt";

/// Commits on a branch of its own, leaves another branch, a stash and a tag, and changes that are not committed.
fn works() -> String {
    let commands = [
        "git checkout -q -b feature && echo committed > c.txt && git add c.txt && git commit -q -m committed && git tag v1",
        "git checkout -q -b aside && echo aside > d.txt && git add d.txt && git commit -q -m aside && git checkout -q feature",
        "echo stashed > a.txt && git stash -q && echo changed > a.txt && echo untracked > u.txt && chmod +x u.txt",
        "ln -s a.txt link.txt && echo staged > s.txt && git add s.txt && git rm -q new.txt && echo more >> s.txt",
        LOOK,
    ];
    let commands: Vec<Value> = commands.iter().map(|command| bash(command)).collect();
    steps("the first words", &commands)
}

impl World {
    /// The last request to the model.
    fn last_request(&self) -> String {
        self.api.requests().last().expect("a request").body.to_string()
    }

    async fn resume(&self, task: &str, prompt: &str) -> Ended {
        Run::start(self.plain_command(&["resume", task, prompt, "--json"])).end().await
    }
}

fn task_of(ended: &Ended) -> String {
    ended.events[0]["task"].as_str().unwrap().to_owned()
}

fn short(task: &str) -> &str {
    &task[task.len() - 8..]
}

/// G11: the model is told what was said before, the files and the repository are as they were left, and the branch
/// holds the work of all three, though those of the first two were not taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_on_where_another_ended_and_so_does_the_next() {
    let Some(world) = World::start(|_| {}).await else { return };
    let first = world.outcome_of(&[&works()]).await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let left = first.tool_results().last().unwrap().clone();
    assert!(left.contains("## feature\n M a.txt\nD  new.txt\nAM s.txt\n?? link.txt\n?? u.txt"), "{left}");
    let first = task_of(&first);
    let base = world.git(&["merge-base", "main", &world.branches()[0]]);
    assert_eq!(base, world.git(&["rev-parse", "main"]));
    for branch in world.branches() {
        world.git(&["branch", "-q", "-D", &branch]);
    }

    let again = world
        .resume(&first, &steps("the second words", &[bash(LOOK), bash("git commit -q -a -m more")]))
        .await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(again.tool_results()[0], left);
    let told = world.last_request();
    assert!(told.contains("the first words") && told.contains("the second words"), "{told}");
    let earlier = again.own("resumes").next().unwrap();
    assert_eq!(earlier["task"], first.as_str());
    let branch = world.branches().into_iter().find(|branch| !branch.contains("--")).unwrap();
    assert!(branch.contains(short(&task_of(&again))), "{branch}");
    let subjects = world.git(&["log", "--format=%s", &format!("main..{branch}")]);
    assert_eq!(
        subjects, "Uncommitted work\nmore\ncommitted\nUncommitted work when the task began",
        "the work of both, on what the first began with"
    );
    assert_eq!(world.git(&["show", &format!("{branch}:a.txt")]), "changed");
    assert_eq!(
        world.git(&["ls-tree", "--format=%(objectmode) %(path)", &branch]).lines().last(),
        Some("100755 u.txt")
    );
    let asides = world.branches().into_iter().filter(|branch| branch.contains("--")).count();
    assert_eq!(asides, 2, "the other branch and the stash: {:?}", world.branches());

    // What only the second task said and did is there for the third, once.
    let third = world.resume(&task_of(&again), &steps("the third words", &[bash(LOOK)])).await;
    assert_eq!(third.code, Some(0), "{}", third.stderr);
    assert!(
        third.tool_results()[0].starts_with("/workspace/repo\n## feature\n?? link.txt"),
        "{:?}",
        third.tool_results()
    );
    let told = world.last_request();
    for words in ["the first words", "the second words", "the third words"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // Each is charged what it used itself.
    let cost = |ended: &Ended| {
        let line = ended.claude_lines().filter(|line| line["type"] == "result").last().unwrap();
        (line["total_cost_usd"].as_f64().unwrap(), line["session_id"].as_str().unwrap().to_owned())
    };
    let (own, session) = cost(&third);
    assert!(own < cost(&again).0 && session != cost(&again).1, "{own}");
    world.end().await;
}

/// Whatever ended it: cancelled, out of time, failed. What was done by then is there, and so is what was said.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_resumed_however_it_ended() {
    let Some(world) = World::start(|_| {}).await else { return };
    let mut run = world.run(&[&half_done()]);
    run.until_event(is_waiting).await;
    run.signal(Signal::INT);
    let cancelled = run.end().await;
    assert_eq!(cancelled.outcome().0, "cancelled", "{}", cancelled.stderr);
    let late = world.outcome_of(&[&half_done(), "--timeout", "20s"]).await;
    assert_eq!(late.outcome().0, "timeout", "{}", late.stderr);
    let failed = world.outcome_of(&["[script: loop]", "--max-turns", "1"]).await;
    assert_eq!(failed.outcome().0, "max-turns", "{}", failed.stderr);

    for (ended, file) in [(&cancelled, "half.txt"), (&late, "half.txt"), (&failed, "a.txt")] {
        let look = steps("go on", &[bash(&format!("git status --porcelain; cat {file}"))]);
        let again = world.resume(&task_of(ended), &look).await;
        let said = again.tool_results();
        let expected = if file == "half.txt" { "?? half.txt\nhalf" } else { "two" };
        assert_eq!(said, [expected], "{}", again.stderr);
        assert!(world.last_request().contains("[script: "), "{}", world.last_request());
    }
    world.end().await;
}

/// G11: also after the loss of its machine, from the last checkpoint. The set-up is what it was before the first agent
/// began, and nothing of the second machine is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_task_goes_on_from_its_last_checkpoint_and_is_set_up_again() {
    let Some(world) = World::start(|_| {}).await else { return };
    fs::write(world.repo().join(".gitignore"), "deps/\n").unwrap();
    let config = world.dir.path().join("mayfly.toml");
    let setup = "[repo.repo.setup]\ncommands = [\"mkdir deps && echo made >deps/made\"]\nkeep = [\"deps\"]\n";
    fs::write(&config, setup).unwrap();
    let work = "git commit -q --allow-empty -m committed && echo half >half.txt && echo spoiled >deps/made";
    let mut more = bash("echo more >more.txt");
    more["hold"] = "more".into();
    let prompt = steps("begin", &[bash(work), more, json!({"hold": "later", "text": "done"})]);
    let mut run = world.run(&["--config", config.to_str().unwrap(), &prompt]);
    // What a checkpoint has of the session is handed over after its work, and before the next one's.
    for (files, next) in [(1, Some("more")), (2, None)] {
        run.until_event(|event| event["event"]["type"] == "checkpoint" && event["event"]["files"] == files)
            .await;
        if let Some(hold) = next {
            world.api.release(hold);
        }
    }
    world.api.held("later", 1).await;
    kill_process(pid(parent_of(claude_of(&run))), Signal::KILL).unwrap();
    let lost = run.end().await;
    assert_eq!(lost.outcome().0, "lost", "{}", lost.stderr);
    let summary = world.mayfly(&["result", &task_of(&lost)]).await.text();
    assert!(summary.contains("turns       ") && summary.contains("took        "), "{summary}");

    let look = "git status --porcelain; git log -1 --format=%s; cat half.txt deps/made";
    let again = world.resume(&task_of(&lost), &steps("go on", &[bash(look), bash("echo >>deps/made")])).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(again.tool_results()[0], "?? half.txt\n?? more.txt\ncommitted\nhalf\nmade");
    let said = again.events.iter().filter(|event| event["source"] == "stderr");
    let said: Vec<&str> = said.filter_map(|event| event["text"].as_str()).collect();
    assert_eq!(said, ["set-up: deps as an earlier task left it"]);
    assert!(world.last_request().contains("begin"), "{}", world.last_request());
    world.end().await;
}

/// Of which no session file came out: the files are there, the conversation begins anew, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_session_file_goes_on_with_its_files_alone() {
    let Some(world) = World::start(|_| {}).await else { return };
    let last =
        "echo made > made.txt; rm -r $CLAUDE_CONFIG_DIR/projects && echo > $CLAUDE_CONFIG_DIR/projects";
    let first = world.outcome_of(&[&steps("the first words", &[bash(last)])]).await;
    let collected = first.own("collected").next().unwrap();
    assert_eq!(
        (&collected["result"]["bundle"], &collected["result"]["transcript"]),
        (&json!(true), &json!(false))
    );
    let again = world
        .resume(&task_of(&first), &steps("go on", &[bash("git status --porcelain; cat made.txt")]))
        .await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(again.tool_results(), ["?? made.txt\nmade"]);
    assert!(!world.last_request().contains("the first words"), "{}", world.last_request());
    let warned: Vec<_> = again.own("warning").map(|event| event["text"].as_str().unwrap()).collect();
    assert!(matches!(warned[..], [text] if text.contains("the conversation begins anew")), "{warned:?}");
    world.end().await;
}

/// A task without a repository: the folder, with or without one that the agent made.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_code_goes_on_in_its_folder() {
    let Some(world) = World::start(|_| {}).await else { return };
    let folder = world.dir.path().join("elsewhere");
    fs::create_dir(&folder).unwrap();
    let run = |verb: &[&str]| {
        let mut command = world.plain_command(&[verb, &["--json"]].concat());
        command.current_dir(&folder);
        Run::start(command).end()
    };
    let made = [
        ("mkdir -p d && echo one > d/one.txt; ls -A", "d"),
        (
            "git init -q -b trunk; echo one > d; git add d; git commit -q -m one; echo two > d; ls -A",
            ".git\nd",
        ),
        ("git init -q -b trunk; echo one > d; ls -A", ".git\nd"),
    ];
    for (command, there) in made {
        let first = run(&["run", &steps("begin", &[bash(command)])]).await;
        assert_eq!(first.tool_results(), [there], "{}", first.stderr);
        let look = "pwd; ls -A; git log --format=%s 2>&1; git status --porcelain --branch 2>&1; true";
        let look = steps("go on", &[bash(look), bash("echo three > three.txt")]);
        let again = run(&["resume", &task_of(&first), &look]).await;
        assert_eq!(again.code, Some(0), "{}", again.stderr);
        let said = &again.tool_results()[0];
        assert!(said.starts_with(&format!("/workspace\n{there}\n")), "{said}");
        let status = match command {
            command if command.contains("commit") => "\none\n## trunk\n M d",
            command if command.contains("init") => "## No commits yet on trunk\n?? d",
            _ => "not a git repository",
        };
        assert!(said.contains(status), "{said}");
        let landed = folder.join(format!("mayfly-{}-go-on-script-steps-list-tools", short(&task_of(&again))));
        assert!(landed.join("three.txt").is_file() && landed.join("d").exists(), "{landed:?}");
    }
    world.end().await;
}

/// What cannot be resumed is named, with what to do instead.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resumed_is_named() {
    let Some(world) = World::start(|_| {}).await else { return };
    let mut run = world.run(&[&half_done()]);
    let running = run.until_event(is_waiting).await["task"].as_str().unwrap().to_owned();
    let refused = world.mayfly(&["resume", &running, "go on"]).await.refusal();
    assert!(refused.contains("is not over, but running"), "{refused}");
    run.signal(Signal::INT);
    run.end().await;
    fs::remove_dir_all(world.dir.path().join("data/results")).unwrap();
    let gone = world.mayfly(&["resume", &running, "go on"]).await;
    assert!(gone.stderr.contains("cannot be resumed: its session file cannot be read"), "{}", gone.stderr);
    assert!(
        gone.stderr.contains(&format!("`mayfly retry {}` begins it anew", short(&running))),
        "{}",
        gone.stderr
    );
    for (prompt, words) in [("", "the prompt is empty"), (" ", "the prompt is empty")] {
        let refused = world.mayfly(&["resume", &running, prompt]).await.refusal();
        assert!(refused.contains(words), "{refused}");
    }
    let refused = world.mayfly(&["resume", "deadbeef", "go on"]).await.refusal();
    assert!(refused.contains("no task has the id `deadbeef`"), "{refused}");
    world.end().await;
}
