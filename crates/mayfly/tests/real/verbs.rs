//! The verbs about tasks that are there: beside a run, after it, and without one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::cancelling::{half_done, is_waiting};
use super::world::{PATH, Run, World};

const WRITES: &str = "[script: write path=made.txt] Make a file";

impl World {
    /// Submits `prompts`; their short ids.
    async fn detach(&self, prompts: &[&str]) -> Vec<String> {
        let said = self.mayfly(&[&["run", "--detach"], prompts].concat()).await;
        assert!(said.stderr.contains("to follow: mayfly logs "), "{}", said.stderr);
        said.text().lines().map(|line| line.split_once("  ").unwrap().0.to_owned()).collect()
    }

    /// Runs a verb with its standard output on a terminal; what that shows.
    async fn mayfly_on_terminal(&self, args: &[&str]) -> String {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let shown = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let mut command = self.plain_command(args);
        let mut child = command.stdin(Stdio::null()).stdout(shown).stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let reading = tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            // Where nobody has the other end any more, reading fails, and all was read.
            let _ = fs::File::from(terminal).read_to_end(&mut seen);
            String::from_utf8_lossy(&seen).into_owned()
        });
        assert!(child.wait().await.unwrap().success());
        reading.await.unwrap()
    }

    /// Waits for a task's end; its exit is `code`.
    async fn ends(&self, task: &str, code: i32) {
        let said = self.mayfly(&["logs", task, "--follow"]).await;
        assert_eq!(said.code, Some(code), "{}", said.stderr);
    }

    /// Follows a task's events.
    fn follow(&self, task: &str) -> Run {
        Run::start(self.plain_command(&["logs", task, "--follow", "--json"]))
    }
}

/// R32, G11.
#[tokio::test(flavor = "multi_thread")]
async fn detached_tasks_are_listed_followed_and_cancelled() {
    let Some(world) = World::start(|_| {}).await else { return };
    let waits = half_done();
    let tasks = world.detach(&[WRITES, &waits]).await;
    let [writes, waits] = &tasks[..] else { panic!("{tasks:?}") };
    let mut log = world.follow(waits);
    log.until_event(is_waiting).await;
    // The reader's end is not the task's.
    log.signal(Signal::INT);
    assert_eq!(log.end().await.code, None);
    world.ends(writes, 0).await;

    let listed = world.mayfly(&["ps"]).await;
    let machine = "each machine may use 4GiB of memory, 1024 processes, 2 cpus, 20GiB of disk";
    assert!(listed.stderr.contains(machine), "{}", listed.stderr);
    let listed = listed.text();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(lines[1].starts_with(waits.as_str()) && lines[1].contains("  running  "), "{listed}");
    assert!(lines[1].contains("  30m/10m  "), "{listed}");
    let all = world.mayfly(&["ps", "--all", "--json"]).await.text();
    let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let brief: Vec<_> =
        all.iter().map(|task| (task["short"].as_str().unwrap(), task["state"].as_str().unwrap())).collect();
    assert_eq!(all[0]["limits"]["processes"], 1024);
    assert_eq!(brief, [(waits.as_str(), "running"), (writes.as_str(), "finished")]);

    let refused = world.mayfly(&["cancel", waits, "deadbeef"]).await.refusal();
    assert!(refused.contains("no task has the id `deadbeef`"), "{refused}");
    assert_eq!(world.mayfly(&["ps"]).await.text().lines().count(), 2, "none is cancelled where one is wrong");
    for verb in ["retry", "result"] {
        let refused = world.mayfly(&[verb, waits]).await.refusal();
        assert!(refused.contains("is not over, but running: `mayfly logs "), "{refused}");
    }
    // An end of an id is enough.
    let cancelled = world.mayfly(&["cancel", &waits[3..], writes]).await.text();
    assert!(cancelled.contains(&format!("{waits}  cancelled  ")), "{cancelled}");
    assert!(cancelled.contains(&format!("{writes}  succeeded already  ")), "{cancelled}");
    let none = world.mayfly(&["ps"]).await;
    assert!(none.stderr.contains("no task waits or runs") && none.stdout.is_empty(), "{none:?}");
    world.mayfly(&["result", waits, "--branch"]).await.text();
    assert_eq!(world.git(&["show", &format!("{}:half.txt", world.branches()[0])]), "half");
    world.end().await;
}

/// G3, S35: what `--raw` prints is what the events carry: parts joined, JSON as it was written.
#[tokio::test(flavor = "multi_thread")]
async fn raw_logs_are_the_bytes_of_claude() {
    #[derive(Deserialize)]
    struct Event {
        seq: u64,
        source: String,
        line: Option<Box<RawValue>>,
        text: Option<String>,
        end: Option<String>,
    }
    let Some(world) = World::start(|_| {}).await else { return };
    let tasks = world.detach(&["[script: big-text megabytes=3]"]).await;
    let task = tasks[0].as_str();
    world.ends(task, 0).await;
    let json = world.mayfly(&["logs", task, "--json"]).await.text();
    let events: Vec<Event> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event.end.as_deref() == Some("more")), "a line in parts");
    let mut expected = String::new();
    for Event { line, text, end, .. } in events.iter().filter(|event| event.source == "claude") {
        expected.push_str(line.as_ref().map_or_else(|| text.as_deref().unwrap(), |line| line.get()));
        expected.push_str(if end.is_none() { "\n" } else { "" });
    }
    let raw = world.mayfly(&["logs", task, "--raw"]).await.text();
    assert!(raw == expected, "{} bytes, and {} in the events", raw.len(), expected.len());
    assert!(raw.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    // From the middle on, and from behind the end.
    let last = events.last().unwrap().seq;
    let rest = world.mayfly(&["logs", task, "--json", "--after", &(last - 2).to_string()]).await.text();
    assert_eq!(rest.lines().count(), 2);
    assert_eq!(
        world.mayfly(&["logs", task, "--after", &(last + 7).to_string(), "--follow"]).await.text(),
        ""
    );
    // People read the same as while it ran.
    let lines = world.mayfly(&["logs", task]).await.text();
    assert!(lines.contains(&format!("{task}  launching\n")) && lines.ends_with("  succeeded\n"), "{lines}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_taken_in_every_form() {
    let Some(world) = World::start(|_| {}).await else { return };
    let tasks = world.detach(&[WRITES]).await;
    let task = tasks[0].as_str();
    world.ends(task, 0).await;
    let before = world.git(&["status", "--porcelain"]);
    let result = async |more: &[&str]| world.mayfly(&[&["result", task], more].concat()).await;

    let summary = result(&[]).await.text();
    assert!(summary.starts_with(&format!("{task}  succeeded  ")), "{summary}");
    assert!(summary.contains(&format!("take        mayfly result {task} --branch --data /")), "{summary}");
    let json: Value = serde_json::from_str(&result(&["--json"]).await.text()).unwrap();
    assert_eq!((json["short"].as_str(), json["outcome"]["name"].as_str()), (Some(task), Some("succeeded")));
    let session = result(&["--transcript"]).await.text();
    assert!(session.lines().any(|line| line.contains("[script: write path=made.txt]")), "{session}");
    // Only what the agent changed, on top of what was not committed.
    let diff = result(&["--diff"]).await.text();
    assert_eq!(diff.matches("diff --git").count(), 1, "{diff}");
    assert!(diff.contains("+++ b/made.txt\n@@ -0,0 +1 @@\n+Written by the script.\n"), "{diff}");

    let patch = result(&["--patch"]).await.text();
    let mut check = Command::new("git");
    check.args(["apply", "--check", "-"]).current_dir(world.repo()).stdin(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(patch.as_bytes()).unwrap();
    assert!(check.wait().unwrap().success(), "{patch}");

    let branch = result(&["--branch"]).await.text();
    let name = format!("mayfly/{task}-script-write-path-made-txt-make");
    assert!(branch.contains(&format!("git merge {name}")), "{branch}");
    assert_eq!(world.git(&["show", &format!("{name}:made.txt")]), "Written by the script.");
    let taken = result(&["--branch"]).await.refusal();
    let words =
        format!("mayfly: the branch `{name}` is there already, and may hold this very work: choose another");
    assert!(taken.starts_with(&words) && taken.contains("--branch NAME"), "{taken}");
    result(&["--branch", "other"]).await.text();
    assert_eq!(world.git(&["rev-parse", "other"]), world.git(&["rev-parse", &name]));
    assert!(result(&["--branch", "a..b"]).await.refusal().contains("cannot be the name of a branch"));
    assert_eq!(world.git(&["status", "--porcelain"]), before);

    let nowhere = world.plain_command(&["result", task, "--apply"]).current_dir("/").output().await.unwrap();
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("name it with --repo PATH"), "{nowhere:?}");
    result(&["--apply"]).await.text();
    assert_eq!(
        world.git(&["status", "--porcelain"]),
        format!("{before}\n?? made.txt").replace("?? new.txt\n?? made.txt", "?? made.txt\n?? new.txt")
    );
    let twice = result(&["--apply"]).await.refusal();
    assert!(twice.contains("nothing was changed") && twice.contains("made.txt"), "{twice}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_asked_for_again() {
    let Some(world) = World::start(|_| {}).await else { return };
    let tasks = world.detach(&[WRITES]).await;
    world.ends(&tasks[0], 0).await;
    // What the user has done since is not in it.
    fs::write(world.repo().join("later.txt"), "later\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-q", "-m", "later"]);
    let again = world.mayfly(&["retry", &tasks[0]]).await.text();
    let branches = world.branches();
    assert_eq!(branches.len(), 1, "{again}");
    assert!(!branches[0].contains(&tasks[0]) && again.contains(&branches[0]), "{again}");
    assert_eq!(
        world.git(&["ls-tree", "--name-only", &branches[0]]),
        ".gitattributes\na.txt\nmade.txt\nnew.txt"
    );
    let detached = world.mayfly(&["retry", &tasks[0], "--detach", "--json"]).await.text();
    let detached: Value = serde_json::from_str(&detached).unwrap();
    world.ends(detached["id"].as_str().unwrap(), 0).await;
    world.end().await;
}

/// S48: what takes effect by itself is named at the end of a run, in the summary and with the branch, and is not put into
/// the user's files unasked; the summary tells what was done, with nothing in it that a terminal obeys (S45).
#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_summed_up_and_what_runs_by_itself_is_flagged() {
    let Some(world) = World::start(|_| {}).await else { return };
    world.git(&["config", "core.hooksPath", "tools"]);
    let commands = [
        "mkdir -p .github/workflows tools && echo 'on: push' > .github/workflows/ci.yml && echo x > tools/pre-commit",
        "printf 'x\\033[2J' > \"$(printf 'odd\\033[2Jname')\"; echo more >> a.txt",
        "make test",
        "curl -sS http://nowhere.invalid/ || true",
    ];
    let steps = commands.map(|command| {
        serde_json::json!({"tools": [{"name": "Bash", "input": {"command": command, "description": "x"}}]})
    });
    let prompt = format!("[script: steps list={}]", serde_json::json!(steps));
    let ended = world.outcome_of(&[&prompt, "--max-turns", "9"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let flagged = [
        "flagged     .github/workflows/ci.yml: a pipeline, which takes effect by itself",
        "flagged     tools/pre-commit: a hook of git, which takes effect by itself",
    ];
    let all_in = |text: &str| flagged.iter().all(|line| text.contains(line));
    assert!(all_in(&ended.stderr), "{}", ended.stderr);
    let task = ended.events[0]["task"].as_str().unwrap().to_owned();
    let result = async |more: &[&str]| world.mayfly(&[&["result", &task], more].concat()).await;

    let summary = result(&[]).await.text();
    assert!(all_in(&summary) && !summary.contains('\u{1b}'), "{summary}");
    for line in [
        "changed     4 files, +4 -0",
        "+1 -0  a.txt",
        "+1 -0  odd\\u{1b}[2Jname",
        "ran         4 commands, 1 failed",
        "make test   (failed)",
        "tests       make test   (failed)",
        "turns       5",
        "took        ",
        "used        ",
        "denied      nowhere.invalid:80: ",
        "go on       mayfly resume ",
    ] {
        assert!(summary.contains(line), "{line}: {summary}");
    }
    let json: Value = serde_json::from_str(&result(&["--json"]).await.text()).unwrap();
    assert_eq!((json["id"].as_str(), json["outcome"]["name"].as_str()), (Some(&*task), Some("succeeded")));
    assert_eq!(json["changes"]["files"][1], serde_json::json!({"path": "a.txt", "added": 1, "removed": 0}));
    assert_eq!(json["changes"]["flagged"][1]["path"], "tools/pre-commit");
    assert_eq!(json["log"]["tests"][0], serde_json::json!({"command": "make test", "failed": true}));
    assert_eq!((json["log"]["commands_count"].as_u64(), json["log"]["turns"].as_u64()), (Some(4), Some(5)));
    assert!(all_in(&result(&["--branch", "other"]).await.text()));
    for form in ["--diff", "--patch"] {
        let shown = result(&[form]).await;
        assert!(
            shown.stdout.starts_with(b"diff --git "),
            "{form}: only the difference is for others to read"
        );
        for line in flagged {
            let line = line.replace("flagged     ", "flagged: ");
            assert!(shown.stderr.contains(&line), "{form}: {}", shown.stderr);
        }
        assert!(shown.stdout.contains(&b'\x1b'), "{form}: whoever takes it in gets it as it is");
        let seen = world.mayfly_on_terminal(&["result", &task, form]).await;
        assert!(seen.contains("x\\u{1b}[2J") && !seen.contains("\u{1b}[2J"), "{form}: {seen}");
    }
    let seen = world.mayfly_on_terminal(&["result", &task, "--transcript"]).await;
    assert!(seen.contains("make test") && !seen.contains('\u{1b}'), "{seen}");

    let before = world.git(&["status", "--porcelain"]);
    let refused = result(&["--apply"]).await.refusal();
    assert!(
        refused.contains("nothing was changed") && refused.contains("add --with-flagged to --apply"),
        "{refused}"
    );
    assert!(refused.contains("tools/pre-commit: a hook of git"), "{refused}");
    assert_eq!(world.git(&["status", "--porcelain"]), before);
    assert_eq!(result(&["--with-flagged"]).await.code, Some(2), "only with --apply");
    result(&["--apply", "--with-flagged"]).await.text();
    assert!(world.repo().join("tools/pre-commit").is_file());
    world.end().await;
}

/// What is in no file, and what is beside the work, does not come into the files; that is said, with the command that takes
/// it. Where all of the work is such, it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_is_named_with_the_command_that_takes_it() {
    let Some(world) = World::start(|_| {}).await else { return };
    let pointer = |commit: &str| format!("--cacheinfo 160000,{},sub", commit.repeat(40));
    fs::create_dir(world.repo().join("sub")).unwrap();
    let words = format!("update-index --add {}", pointer("1"));
    world.git(&words.split(' ').collect::<Vec<_>>());
    world.git(&["commit", "-q", "-m", "submodule"]);
    let bash = |command: &str| {
        let steps = serde_json::json!([{"tools": [{"name": "Bash", "input": {"command": command}}]}]);
        format!("[script: steps list={steps}]")
    };
    let moves = format!("git update-index {} && git commit -q -m moved", pointer("2"));
    let beside = "git checkout -q -b side && git commit -q --allow-empty -m aside && git checkout -q - && echo more >> a.txt";
    let both = format!("{moves}; {beside}");
    let tasks = world.detach(&[&bash(&both), &bash(&moves)]).await;
    for task in &tasks {
        world.ends(task, 0).await;
    }
    let [both, moves] = &tasks[..] else { panic!("{tasks:?}") };
    let shown = world.mayfly(&["result", both, "--patch"]).await;
    let beside = "side: what the agent committed beside its work";
    assert!(
        shown.stderr.contains(&format!("not shown: {beside}; --branch takes it too")),
        "{}",
        shown.stderr
    );
    let said = world.mayfly(&["result", both, "--apply"]).await.text();
    for line in [
        "applied     to the files in ",
        "not applied sub: the commit of a submodule",
        &format!("not applied {beside}"),
        &format!("all of it   mayfly result {both} --branch --data /"),
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(fs::read_to_string(world.repo().join("a.txt")).unwrap().ends_with("more\n"));
    let refused = world.mayfly(&["result", moves, "--apply"]).await.refusal();
    assert!(
        refused.contains("nothing of the work is in files: take it as a branch with --branch\n  sub: the commit of a submodule"),
        "{refused}"
    );
    world.end().await;
}

/// What a task was to leave besides its work comes out though git ignores it, goes into a new folder, and nothing else does.
#[tokio::test(flavor = "multi_thread")]
async fn artifacts_come_out_into_a_new_folder() {
    let Some(world) = World::start(|_| {}).await else { return };
    let command = "printf 'dist\\n' > .gitignore; mkdir -p dist/sub && echo built > dist/sub/app && chmod +x dist/sub/app && \
                   echo token > dist/.npmrc && ln -s /etc/passwd dist/link && echo no > other.bin";
    let steps =
        serde_json::json!([{"tools": [{"name": "Bash", "input": {"command": command, "description": "x"}}]}]);
    let lines =
        serde_json::json!({"prompt": format!("[script: steps list={steps}]"), "artifacts": ["dist/**"]});
    let file = world.dir.path().join("tasks.jsonl");
    fs::write(&file, lines.to_string()).unwrap();
    let ended = world.outcome_of(&["--file", file.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let task = ended.events[0]["task"].as_str().unwrap().to_owned();
    let out = world.dir.path().join("out");
    let take = async |folder: &str| world.mayfly(&["result", &task, "--artifacts", folder]).await;
    let summary = world.mayfly(&["result", &task]).await.text();
    assert!(
        summary.contains("artifacts   1 file, 6 bytes") && summary.contains("--artifacts DIR"),
        "{summary}"
    );
    assert!(summary.contains("1 files stay behind that could hold a credential"), "{summary}");
    let said = take(out.to_str().unwrap()).await.text();
    assert!(said.contains("artifacts   1 file, 6 bytes, in "), "{said}");
    assert_eq!(fs::read_to_string(out.join("dist/sub/app")).unwrap(), "built\n");
    let entries = |folder: &std::path::Path| fs::read_dir(folder).unwrap().count();
    assert_eq!((entries(&out), entries(&out.join("dist")), entries(&out.join("dist/sub"))), (1, 1, 1));
    let refused = take(out.to_str().unwrap()).await.refusal();
    assert!(refused.contains("is not empty: name a new folder"), "{refused}");
    let none = world.detach(&[WRITES]).await;
    world.ends(&none[0], 0).await;
    let said = world.mayfly(&["result", &none[0], "--artifacts", "new"]).await;
    assert!(said.code == Some(3) && said.stderr.contains("none were asked for"), "{said:?}");
    assert!(!world.repo().join("new").exists());
    world.end().await;
}

/// A branch `mayfly` is in the way of every `mayfly/…`: the work stays with the orchestrator, and the command that is
/// printed takes it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_land_is_taken_by_the_command_that_is_printed() {
    let Some(world) = World::start(|_| {}).await else { return };
    world.git(&["branch", "mayfly"]);
    let ended = world.outcome_of(&[WRITES]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(3), "succeeded"), "{}", ended.stderr);
    let by_hand = ended.stderr.lines().find_map(|line| line.split_once("by hand     ")).expect("a command").1;
    // As a shell finds it.
    let bin = world.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mayfly"), bin.join("mayfly")).unwrap();
    let mut shell = Command::new("sh");
    shell.env_clear().env("PATH", format!("{}:{PATH}", bin.display())).env("HOME", world.dir.path());
    assert!(shell.args(["-c", by_hand]).current_dir(world.repo()).status().unwrap().success(), "{by_hand}");
    let branch = world.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly-*"]);
    world.git(&["cat-file", "-e", &format!("{branch}:made.txt")]);
    world.end().await;
}

/// The exit is that of the worst; a line has the last word.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_tasks_is_run_with_the_flags_for_what_it_leaves_out() {
    let Some(world) = World::start(|_| {}).await else { return };
    let lines = [
        serde_json::json!({"prompt": WRITES}),
        serde_json::json!({"prompt": "[script: loop]", "max_turns": 1, "priority": 7}),
    ];
    let file = world.dir.path().join("tasks.jsonl");
    fs::write(&file, format!("{}\n\n{}\n", lines[0], lines[1])).unwrap();
    let args = ["--file", file.to_str().unwrap(), "--max-turns", "5", "--priority", "3"];
    let ended = world.outcome_of(&args).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let mut outcomes: Vec<&str> =
        ended.own("finished").map(|event| event["outcome"]["name"].as_str().unwrap()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["max-turns", "succeeded"]);
    world.git(&["cat-file", "-e", &format!("{}:made.txt", world.branches()[0])]);
    let listed = world.mayfly(&["ps", "--all", "--json"]).await.text();
    let priorities: Vec<i64> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["priority"].as_i64().unwrap())
        .collect();
    assert_eq!(priorities, [7, 3]);
    world.end().await;
}
