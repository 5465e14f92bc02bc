//! G11: whoever is killed at whichever step, what lands is what was on the machine's disk at its last checkpoint or, once
//! the work is out, at its end: real binary, real CLI, real SIGKILL.
//!
//! An agent works in two parts. The first is in a checkpoint before the second begins, so that the one can be told from
//! the other. A machine dies where the agent's second part has it die; an orchestrator where it was told when it started.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::failpoints::Life;
use super::service::User;
use super::world::{Ended, Run, Said, World, processes_in};

/// The first part of the work: a commit, and more that is uncommitted.
pub(crate) const FIRST: &str =
    "mkdir d && printf x > d/e && git add d && git commit -q -m first -- d && printf y >> d/e && rm a.txt";
/// The second.
const SECOND: &str = "chmod +x d/e && ln -s d link && printf z > late && git add late && git commit -q -m second -- late \
                      && printf w > beside";

/// What the files of a repository are, as git names them: modes, paths and contents; and the last commit's message.
type Tree = (&'static [(&'static str, &'static str, &'static str)], &'static str);
/// Nobody touches it.
const ATTRIBUTES: (&str, &str, &str) = ("100644", ".gitattributes", "* text=auto");
/// After the first part, in a repository with `a.txt` and `new.txt`.
const AFTER_FIRST: Tree = (&[ATTRIBUTES, ("100644", "d/e", "xy"), ("100644", "new.txt", "new")], "first");
/// After both.
const AFTER_SECOND: Tree = (
    &[
        ATTRIBUTES,
        ("100644", "beside", "w"),
        ("100755", "d/e", "xy"),
        ("100644", "late", "z"),
        ("120000", "link", "d"),
        ("100644", "new.txt", "new"),
    ],
    "second",
);

/// Where a machine dies: whether all of the work is out by then, or else as much as the last checkpoint has.
const MACHINE: [(&str, bool); 9] = [
    ("checkpoint-looked", false),
    ("checkpoint-packed", false),
    ("checkpoint-handed", false),
    ("session-handed", false),
    ("collect-begun", false),
    ("collect-session-out", false),
    ("collect-bundled", false),
    ("collect-work-out", true),
    ("collect-told", true),
];

/// Where an orchestrator dies while work comes out of a machine that lives.
const TAKING: [&str; 6] = [
    "checkpoint-searched",
    "checkpoint-kept",
    "checkpoint-told",
    "result-kept",
    "result-searched:2",
    "result-kept:2",
];
/// Where it dies while it makes a result of what a machine had handed over that is gone.
const RECOVERING: [&str; 6] = [
    "recover-joined",
    "recover-named",
    "recover-untold",
    "recover-uncommitted",
    "recover-told",
    "recover-discarded",
];

/// Where the user's end dies while the work lands, and whether it has landed by then.
const LANDING: [(&str, bool); 3] = [("land-fetched", false), ("land-indexed", false), ("land-named", true)];

/// A step of a script that runs this.
pub(crate) fn bash(command: &str) -> Value {
    json!([{"name": "Bash", "input": {"command": command, "description": "work"}}])
}

/// A command that has the machine die there from now on.
fn dies_at(point: &str) -> String {
    format!("printf {point} > ~/.mayfly-failpoint")
}

pub(crate) fn script(steps: &[Value]) -> String {
    format!("[script: steps list={}]", json!(steps))
}

/// `None`: this build has no points, and the test is skipped.
pub(crate) fn points() -> Option<()> {
    if !cfg!(feature = "failpoints") {
        mayfly_test_needs::skip("built without --features mayfly/failpoints");
        return None;
    }
    Some(())
}

/// Checks that a branch holds these files and nothing else.
fn assert_holds(git: impl Fn(&[&str]) -> String, branch: &str, (files, message): Tree, at: &str) {
    let listed = git(&["ls-tree", "-r", "--format=%(objectmode) %(path)", branch]);
    let expected: Vec<_> = files.iter().map(|(mode, path, _)| format!("{mode} {path}")).collect();
    assert_eq!(listed, expected.join("\n"), "{at}");
    for (_, path, content) in files {
        assert_eq!(git(&["show", &format!("{branch}:{path}")]), *content, "{at}: {path}");
    }
    assert_eq!(git(&["log", "-1", "--format=%s", &format!("{branch}^")]), message, "{at}");
}

/// What the last checkpoint of a task holds, as it was told of.
fn last_checkpoint(ended: &Ended) -> (Tree, &str) {
    let told = ended.own("checkpoint").last().expect("a checkpoint");
    let tree = match told["files"].as_u64().unwrap() {
        2 => AFTER_FIRST,
        5 => AFTER_SECOND,
        files => panic!("{files} files: a checkpoint of no such moment"),
    };
    (tree, told["as_of"].as_str().unwrap())
}

/// A run whose machine dies at a point of its second part.
async fn machine_that_dies_at(world: &World, point: &str) -> Ended {
    let second = format!("{SECOND} && {}", dies_at(point));
    // What is collected has ended; elsewhere nobody ends it.
    let last = match point.starts_with("collect") {
        true => json!({"text": "done"}),
        false => json!({"hold": "for ever", "text": "never said"}),
    };
    let steps = [json!({"tools": bash(FIRST)}), json!({"hold": point, "tools": bash(&second)}), last];
    let mut run = world.run(&[&script(&steps)]);
    run.until("checkpoint").await;
    world.api.release(point);
    run.end().await
}

/// R05: a machine that dies at a step of a checkpoint or of its collection.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_at_each_step_leaves_what_had_come_out_of_it() {
    let Some(()) = points() else { return };
    let Some(world) = World::start(|_| {}).await else { return };
    let all = MACHINE.map(|(point, _)| machine_that_dies_at(&world, point));
    for ((point, is_out), ended) in MACHINE.into_iter().zip(join_all(all).await) {
        let (kept, as_of) = last_checkpoint(&ended);
        let expected = if is_out { AFTER_SECOND } else { kept };
        if ["checkpoint-looked", "checkpoint-packed"].contains(&point) {
            assert_eq!(expected.1, AFTER_FIRST.1, "{point}: the second part was not handed over");
        }
        // The worker tells how claude ended, and does not wait until that is heard.
        let ends = if point == "collect-told" { &["succeeded"][..] } else { &["lost", "succeeded"] };
        assert!(ends.contains(&ended.outcome().0), "{point}: {}", ended.stderr);
        let later = format!("what was changed after {as_of}");
        assert_eq!(ended.stderr.contains(&later), !is_out, "{point}: {}", ended.stderr);
        let branch = ended.stderr.lines().find_map(|line| line.trim().strip_prefix("branch"));
        let branch = branch.unwrap_or_else(|| panic!("{point}: {}", ended.stderr)).trim();
        assert_holds(|args| world.git(args), branch, expected, point);
        ended.assert_whole();
    }
    world.end().await;
}

/// What an agent commits and puts away before its last checkpoint, and after it.
const BEFORE: &str = "git checkout -q -b feature && echo 1 > c && git add c && git commit -q -m c1 && git branch aside \
                      && echo s > a.txt && git stash -q -m s1";
const AFTER: [(&str, &str); 8] = [
    ("its branch goes on", "echo 2 > c && git commit -q -a -m c2"),
    (
        "another goes on",
        "git checkout -q aside && echo x > d && git add d && git commit -q -m d1 && git checkout -q feature",
    ),
    ("one is new", "git checkout -q -b late && echo l > l && git add l && git commit -q -m l1"),
    ("one goes back", "git reset -q --hard HEAD~1"),
    ("one goes", "git branch -q -D aside"),
    ("none is under HEAD", "git checkout -q --detach && echo h > h && git add h && git commit -q -m h1"),
    ("more is put away", "echo t > a.txt && git stash -q -m s2"),
    ("what was put away is taken", "git stash pop -q"),
];
/// Tells of `HEAD`, then of every commit that a branch, a tag or the stash has.
const COMMITS: &str = "git log --format=%s > /tmp/head; { git log --all --format=%s; git stash list --format=%s; } | sort -u > /tmp/all";

/// What a task left that was lost with its work out, and with less of it in its last checkpoint, and what one that goes on
/// with it finds: `HEAD`'s history, all commits and what is not committed, twice.
async fn left_and_found(world: &World, after: &str) -> [String; 2] {
    let last = format!(
        "{after} && echo u > u; {COMMITS}; git status --porcelain > /tmp/changed; {}; \
         mkdir seen && cp /tmp/head /tmp/all /tmp/changed seen; kill -9 $PPID; tail -f /dev/null",
        dies_at("collect-work-out")
    );
    let steps = [json!({"tools": bash(BEFORE)}), json!({"hold": after, "tools": bash(&last)})];
    let mut run = world.run(&[&script(&steps)]);
    run.until("checkpoint").await;
    world.api.release(after);
    let ended = run.end().await;
    let result = &ended.own("collected").last().expect("a collection")["result"];
    assert!(result["notes"].to_string().contains("as its worker brought it out"), "{after}: {result}");
    let id = ended.events[0]["task"].as_str().unwrap();
    let look = |folder: &str| json!({"tools": bash(&format!("cat {folder}/head; echo; cat {folder}/all; echo; cat {folder}/changed"))});
    let found =
        json!({"tools": bash(&format!("{COMMITS}; git status --porcelain | grep -v seen/ > /tmp/changed"))});
    let resume =
        world.plain_command(&["resume", id, &script(&[found, look("seen"), look("/tmp")]), "--json"]);
    let resumed = Run::start(resume).end().await;
    assert_eq!(resumed.code, Some(0), "{after}: {}", resumed.stderr);
    let told = resumed.tool_results();
    [told[1].clone(), told[2].clone()]
}

/// G11: the work that came out is newer than what is known of its repository. Whatever the agent did to it since, another
/// goes on from the same commit with the same files, and no commit is lost.
#[tokio::test(flavor = "multi_thread")]
async fn no_commit_is_lost_of_a_repository_that_went_on_after_its_last_checkpoint() {
    let Some(()) = points() else { return };
    let Some(world) = World::start(|_| {}).await else { return };
    let all = AFTER.map(|(_, after)| left_and_found(&world, after));
    for ((what, _), [left, found]) in AFTER.into_iter().zip(join_all(all).await) {
        let [left, found] = [&left, &found].map(|text| text.split("\n\n").collect::<Vec<_>>());
        assert_eq!((left.len(), left[0], left[2]), (3, found[0], found[2]), "{what}");
        let found: Vec<_> = found[1].lines().collect();
        for commit in left[1].lines() {
            assert!(found.contains(&commit), "{what}: `{commit}` is not among {found:?}");
        }
    }
    world.end().await;
}

/// A `claude` that is killed in the middle of a tool of its own: the worker brings out all that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_claude_that_is_killed_by_its_own_tool_leaves_all_that_is_on_the_disk() {
    let Some(world) = World::start(|_| {}).await else { return };
    let kill = |before: &str| {
        script(&[json!({"tools": bash(&format!("{before} && kill -9 $PPID; tail -f /dev/null"))})])
    };
    let both = format!("{FIRST} && {SECOND}");
    for (before, expected) in [(FIRST, AFTER_FIRST), (&both, AFTER_SECOND)] {
        let ended = world.outcome_of(&[&kill(before)]).await;
        assert_eq!((ended.code, ended.outcome().0), (Some(1), "killed"), "{}", ended.stderr);
        let result = &ended.own("collected").last().expect("a collection")["result"];
        assert_eq!((&result["bundle"], &result["unsaved"]), (&json!(true), &Value::Null), "{result}");
        assert_holds(|args| world.git(args), &branch_of(&world, &ended), expected, before);
    }
    world.end().await;
}

/// The branch that holds a task's work.
fn branch_of(world: &World, ended: &Ended) -> String {
    let id = ended.events[0]["task"].as_str().unwrap();
    world.branches().into_iter().find(|branch| branch.contains(&id[id.len() - 8..])).expect("a branch")
}

/// S51, G11: `claude` is killed for memory, which is all in files of the machine's memory; or its tool, by which it has all.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_for_memory_all_that_is_on_the_disk_comes_back() {
    let Some(world) = World::start(|rules| rules.limits.memory_bytes_max = 768 << 20).await else { return };
    let in_files =
        "head -c 1G /dev/zero > /tmp/fill; head -c 1G /dev/zero > /dev/shm/fill; tail -f /dev/null";
    for (hog, outcome) in [(in_files, "out-of-memory"), ("tail /dev/zero", "succeeded")] {
        let work = format!("{FIRST} && {SECOND}; {hog}");
        let ended = world.outcome_of(&[&script(&[json!({"tools": bash(&work)})])]).await;
        let warned: Vec<_> = ended.own("warning").map(|warning| warning["text"].as_str().unwrap()).collect();
        if warned.iter().any(|text| text.contains("memory limit")) {
            mayfly_test_needs::skip("memory cannot be limited here");
            break;
        }
        assert_eq!(ended.outcome().0, outcome, "{warned:?}: {}", ended.stderr);
        let killed = warned.iter().any(|text| text.contains("programs in it were killed"));
        assert!(killed, "{warned:?}");
        assert_holds(|args| world.git(args), &branch_of(&world, &ended), AFTER_SECOND, hog);
    }
    world.end().await;
}

/// An orchestrator of its own data folder, which dies where it is told to, and the one after it.
pub(crate) struct Orchestrated<'a> {
    pub(crate) user: &'a User,
    pub(crate) claude: &'a Path,
    pub(crate) data: PathBuf,
}

impl Orchestrated<'_> {
    pub(crate) fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = self.user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["--claude"]);
        command.arg(self.claude).args(args).arg("--data").arg(&self.data).env("MAYFLY_LOG", "off");
        command
    }

    pub(crate) async fn serve(&self, point: Option<&str>) -> Life {
        let mut serve = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        serve.envs(point.map(|point| ("MAYFLY_FAILPOINT", point)));
        Life::start(serve).await
    }

    /// Has a task with these steps meet the point, and lets the next orchestrator bring it to its end.
    async fn dies_at(&self, point: &str, steps: &[Value]) {
        let life = self.serve(Some(point)).await;
        let submitted = self.command(&["run", "--detach", &script(steps)]).output().await.unwrap();
        let said = Said::from(submitted).text();
        let id = said.split_once(' ').unwrap().0;
        life.killed(point).await;
        let next = self.serve(None).await;
        self.user.api.release(point);
        let ended = Run::start(self.command(&["logs", id, "--json", "--follow"])).end().await;
        ended.assert_whole();
        assert_eq!(ended.own("collected").count(), 1, "{point}: {:?}", ended.events);
        let branch = format!("after-{}", point.replace(':', "-"));
        let taken = self.command(&["result", id, "--branch", &branch]).output().await.unwrap();
        Said::from(taken).text();
        assert_holds(|args| self.user.git(args), &branch, AFTER_FIRST, point);
        let result = self.data.join("results").join(ended.events[0]["task"].as_str().unwrap()).join("1");
        assert!(result.is_dir() && !result.join("checkpoints").exists(), "{point}");
        next.end().await;
    }
}

/// R01, R03: whatever an orchestrator was doing with work when it died, the next one has all of it, once.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_dies_at_each_step_of_a_result_loses_nothing_of_it() {
    let Some(()) = points() else { return };
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    user.make_repository();
    for (name, content) in [(".gitattributes", "* text=auto\n"), ("a.txt", "a"), ("new.txt", "new")] {
        std::fs::write(user.dir.path().join("cwd").join(name), content).unwrap();
    }
    let at = |point: &str| {
        let data = user.dir.path().join(format!("data-{}", point.replace(':', "-")));
        Orchestrated { user: &user, claude: &claude, data }
    };
    let taking = TAKING.map(async |point| {
        let steps = [json!({"tools": bash(FIRST)}), json!({"hold": point, "text": "done"})];
        at(point).dies_at(point, &steps[..if point.starts_with("result") { 1 } else { 2 }]).await;
    });
    let recovering = RECOVERING.map(async |point| {
        let first = format!("{FIRST} && {}", dies_at("session-handed"));
        let steps = [json!({"tools": bash(&first)}), json!({"hold": "for ever", "text": "never said"})];
        at(point).dies_at(point, &steps).await;
    });
    join_all(taking).await;
    join_all(recovering).await;
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// The user's end dies while work lands: it has landed, or has not and lands when it is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_landing_that_is_killed_at_each_step_has_landed_or_has_not() {
    let Some(()) = points() else { return };
    let Some(world) = World::start(|_| {}).await else { return };
    let before = world.git(&["status", "--porcelain=v2", "--branch"]);
    let mut run = world.command(&[&script(&[json!({"tools": bash(FIRST)})])]);
    run.env("MAYFLY_FAILPOINT", LANDING[1].0);
    let ended = Run::start(run).end().await;
    assert_eq!((ended.code, ended.outcome().0), (None, "succeeded"), "{}", ended.stderr);
    let id = ended.events[0]["task"].as_str().unwrap();
    assert_eq!(world.branches(), [""; 0]);
    for (point, has_landed) in LANDING {
        let branch = format!("mayfly/{point}");
        let mut killed = world.plain_command(&["result", id, "--branch", &branch]);
        let said = Said::from(killed.env("MAYFLY_FAILPOINT", point).output().await.unwrap());
        assert_eq!(said.code, None, "{point}: {}", said.stderr);
        assert_eq!(world.branches().contains(&branch), has_landed, "{point}");
        assert_eq!(world.git(&["fsck", "--strict", "--no-dangling"]), "", "{point}");
        if !has_landed {
            world.mayfly(&["result", id, "--branch", &branch]).await.text();
        }
        assert_holds(|args| world.git(args), &branch, AFTER_FIRST, point);
        assert_eq!(world.git(&["status", "--porcelain=v2", "--branch"]), before, "{point}");
    }
    world.end().await;
}

/// The same of a task without code, whose work becomes a folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_there_whole_or_not_at_all() {
    let Some(()) = points() else { return };
    let Some(world) = World::start(|_| {}).await else { return };
    let away = world.dir.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let mut run = world.command(&["[script: write path=made.txt content=made]"]);
    run.current_dir(&away).env("MAYFLY_FAILPOINT", "land-made");
    let ended = Run::start(run).end().await;
    assert_eq!((ended.code, ended.outcome().0), (None, "succeeded"), "{}", ended.stderr);
    let id = ended.events[0]["task"].as_str().unwrap();
    let seen = || {
        let names = std::fs::read_dir(&away).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !name.to_string_lossy().starts_with('.')).count()
    };
    assert_eq!(seen(), 0, "what is not whole has no name");
    let mut again = world.plain_command(&["result", id, "--branch", "taken"]);
    Said::from(again.current_dir(&away).output().await.unwrap()).text();
    assert_eq!(std::fs::read_to_string(away.join("taken/made.txt")).unwrap(), "made");
    assert_eq!(seen(), 1);
    world.end().await;
}
