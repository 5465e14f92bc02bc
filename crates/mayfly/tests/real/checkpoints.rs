//! G11: what of the work is there after the machine, or whoever watches over it, is killed: real CLI, real SIGKILL.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

use super::draining::Serving;
use super::full_disk;
use super::service::User;
use super::world::{Ended, Run, Said, World, processes_in};

/// What the agent does before its machine is lost: a commit of its own, and more that it leaves uncommitted.
const WORK: &str = "rm a.txt && printf two > b && chmod +x b && ln -s b link && mkdir d && printf x > d/e \
                    && printf z > beside && git add d && git commit -q -m 'of the agent' -- d && printf y >> d/e";
/// What is then on the disk, as git names it: modes, and contents.
const TREE: [(&str, &str, &str); 6] = [
    ("100644", ".gitattributes", "* text=auto"),
    ("100755", "b", "two"),
    ("100644", "beside", "z"),
    ("100644", "d/e", "xy"),
    ("120000", "link", "b"),
    ("100644", "new.txt", "new"),
];

/// The work, and then a model that says nothing more until it is let.
fn prompt() -> String {
    let bash = json!({"name": "Bash", "input": {"command": WORK, "description": "work"}});
    format!("[script: steps list={}]", json!([{"tools": [bash]}, {"hold": "later", "text": "done"}]))
}

/// Waits until all of the work is in a checkpoint; gives the time that it is of.
async fn checkpointed(run: &mut Run) -> Timestamp {
    let event =
        run.until_event(|event| event["event"]["type"] == "checkpoint" && event["event"]["files"] == 5).await;
    let (told, as_of) = (&event["at"], event["event"]["as_of"].as_str().unwrap());
    let (told, as_of): (Timestamp, Timestamp) =
        (told.as_str().unwrap().parse().unwrap(), as_of.parse().unwrap());
    assert!(as_of <= told, "{event}");
    as_of
}

/// The process of `claude` in the machine of this run, as this host numbers it.
pub(crate) fn claude_of(run: &Run) -> u32 {
    let init = run.events().iter().find(|event| event["line"]["subtype"] == "init").expect("its first word");
    let processes = processes_in(Path::new(init["line"]["session_id"].as_str().unwrap()));
    let [claude] = Vec::from_iter(processes)[..] else { panic!("claude is one process") };
    claude
}

pub(crate) fn parent_of(process: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name, which may hold anything: state and parent.
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn pid(process: u32) -> Pid {
    Pid::from_raw(process.cast_signed()).unwrap()
}

/// Checks that the branch holds what was on the disk, and nothing else.
fn assert_landed(git: impl Fn(&[&str]) -> String) {
    let branch = git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    let listed = git(&["ls-tree", "-r", "--format=%(objectmode) %(path)", &branch]);
    assert_eq!(listed, TREE.map(|(mode, path, _)| format!("{mode} {path}")).join("\n"));
    for (_, path, content) in TREE {
        assert_eq!(git(&["show", &format!("{branch}:{path}")]), content, "{path}");
    }
    assert_eq!(git(&["log", "-1", "--format=%s", &format!("{branch}^")]), "of the agent");
}

/// Checks what is told of a result that is a checkpoint.
fn assert_told(ended: &Ended, as_of: Timestamp) {
    let result = &ended.own("collected").last().expect("a collection")["result"];
    let unsaved = result["unsaved"].to_string();
    assert!(unsaved.contains(&format!("what was changed after {as_of}")), "{unsaved}");
    assert_eq!(result["bundle"], true, "{result}");
    assert!(ended.stderr.contains(&format!("what was changed after {as_of}")), "{}", ended.stderr);
}

/// The session file is handed over after the work, and so may not have come; else it is whole lines, and knows of the work.
async fn assert_transcript(world: &World, ended: &Ended) {
    let result = &ended.own("collected").last().expect("a collection")["result"];
    if result["transcript"] == true {
        let id = ended.events[0]["task"].as_str().unwrap();
        let transcript = world.mayfly(&["result", id, "--transcript"]).await.text();
        let lines: Vec<Value> = transcript.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(transcript.contains("of the agent") && lines.len() > 1, "{transcript}");
    }
}

/// R05: whoever in the machine is killed, what was on the disk at the last checkpoint lands by the run itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_killed_leaves_its_last_checkpoint() {
    type Kill = fn(u32);
    let worker: Kill = |claude| kill_process(pid(parent_of(claude)), Signal::KILL).unwrap();
    let machine: Kill = |claude| {
        let holder = parent_of(parent_of(claude));
        kill_process_group(pid(holder), Signal::KILL).unwrap();
    };
    for kill in [worker, machine] {
        let Some(world) = World::start(|_| {}).await else { return };
        let mut run = world.run(&[&prompt()]);
        let as_of = checkpointed(&mut run).await;
        world.api.held("later", 1).await;
        kill(claude_of(&run));
        let ended = run.end().await;
        assert_eq!((ended.code, ended.outcome().0), (Some(3), "lost"), "{}", ended.stderr);
        ended.assert_whole();
        assert_told(&ended, as_of);
        assert_landed(|args| world.git(args));
        assert_transcript(&world, &ended).await;
        world.end().await;
    }
}

/// A `claude` that is killed leaves a worker, which brings out all that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_claude_that_is_killed_leaves_more_than_its_last_checkpoint() {
    let Some(world) = World::start(|_| {}).await else { return };
    let mut run = world.run(&[&prompt()]);
    checkpointed(&mut run).await;
    world.api.held("later", 1).await;
    kill_process(pid(claude_of(&run)), Signal::KILL).unwrap();
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "killed"), "{}", ended.stderr);
    let result = &ended.own("collected").next().expect("a collection")["result"];
    assert_eq!(result["unsaved"], Value::Null, "{result}");
    assert_landed(|args| world.git(args));
    let left =
        world.dir.path().join("data/results").join(ended.events[0]["task"].as_str().unwrap()).join("1");
    let left: BTreeSet<_> = fs::read_dir(left).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bundle", "transcript"].map(Into::into).into());
    world.end().await;
}

/// What could not be brought out in time is there as it was at the last checkpoint, however well the task ended.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_not_out_in_time_is_there_from_the_last_checkpoint() {
    let at_once = std::time::Duration::from_millis(1);
    let Some(world) = World::start(|rules| rules.collect_max = at_once).await else { return };
    let mut run = world.run(&[&prompt()]);
    let as_of = checkpointed(&mut run).await;
    world.api.held("later", 1).await;
    world.api.release("later");
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(3), "succeeded"), "{}", ended.stderr);
    assert_told(&ended, as_of);
    assert_landed(|args| world.git(args));
    world.end().await;
}

/// A machine that its owner ends by force leaves what it had handed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_ended_by_force_leaves_its_last_checkpoint() {
    let Some(world) = World::start(|_| {}).await else { return };
    let mut run = world.run(&[&prompt()]);
    let as_of = checkpointed(&mut run).await;
    let id = run.events()[0]["task"].as_str().unwrap().to_owned();
    world.mayfly(&["cancel", "--force", &id]).await.text();
    let ended = run.end().await;
    assert_eq!(ended.outcome().0, "cancelled", "{}", ended.stderr);
    assert_told(&ended, as_of);
    assert_landed(|args| world.git(args));
    world.end().await;
}

/// G2: an attempt that follows a lost one begins anew, and its own work is what lands. That of the first is told of, and taken
/// by its number.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_after_a_lost_one_has_work_of_its_own() {
    let Some(world) = World::start(|_| {}).await else { return };
    let mut run = world.run(&["--retries", "1", &prompt()]);
    let as_of = checkpointed(&mut run).await;
    world.api.held("later", 1).await;
    kill_process(pid(parent_of(claude_of(&run))), Signal::KILL).unwrap();
    world.api.held("later", 2).await;
    world.api.release("later");
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    let collected: Vec<_> =
        ended.events.iter().filter(|event| event["event"]["type"] == "collected").collect();
    let [first, second] = collected[..] else { panic!("{collected:?}") };
    assert_eq!((&first["attempt"], &second["attempt"]), (&json!(1), &json!(2)));
    assert!(first["event"]["result"]["unsaved"].to_string().contains(&as_of.to_string()), "{first}");
    assert_eq!(second["event"]["result"]["unsaved"], Value::Null);
    assert_landed(|args| world.git(args));

    let task = ended.events[0]["task"].as_str().unwrap();
    let result = async |more: &[&str]| world.mayfly(&[&["result", task], more].concat()).await;
    let note = format!(
        "note        attempt 1 left work too: `mayfly result {} --attempt 1",
        &task[task.len() - 8..]
    );
    assert!(ended.stderr.contains(&note), "{}", ended.stderr);
    let summary = result(&[]).await.text();
    assert!(summary.contains(&note), "{summary}");
    let json: Value = serde_json::from_str(&result(&["--json"]).await.text()).unwrap();
    assert_eq!((&json["result_attempt"], &json["other_attempts"]), (&json!(2), &json!([1])));
    let first = result(&["--attempt", "1"]).await.text();
    assert!(first.contains(&format!("what was changed after {as_of}")), "{first}");
    assert!(first.contains(" --attempt 1 --branch") && first.contains("attempt 2 left work too"), "{first}");
    result(&["--attempt", "1", "--branch", "first"]).await.text();
    let collected = &collected[0]["event"]["result"];
    assert_eq!(world.git(&["rev-parse", "first"]), collected["head"].as_str().unwrap());
    let refused = result(&["--attempt", "3", "--patch"]).await.refusal();
    assert!(
        refused.contains("nothing came out of attempt 3 of task") && refused.contains("it had 2"),
        "{refused}"
    );
    world.end().await;
}

/// R01, R03: the orchestrator is killed, and the machine after it; the next orchestrator finds what was kept, and the
/// verbs of then bring it home.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_found_by_the_next_orchestrator() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    user.make_repository();
    let killed = Serving::start(&user, &claude, &[]).await;
    let mayfly = Path::new(env!("CARGO_BIN_EXE_mayfly"));
    let write = json!({"name": "Write", "input": {"file_path": "{cwd}/kept.txt", "content": "kept\n"}});
    let prompt =
        format!("[script: steps list={}]", json!([{"tools": [write]}, {"hold": "later", "text": "done"}]));
    let said = Said::from(user.command(mayfly, &["run", "--detach", &prompt]).output().await.unwrap()).text();
    let id = said.split_once(' ').unwrap().0.to_owned();
    let mut logs = Run::start(user.command(mayfly, &["logs", &id, "--json", "--follow"]));
    let as_of = logs.until("checkpoint").await["event"]["as_of"].as_str().unwrap().to_owned();
    user.api.held("later", 1).await;
    let worker = parent_of(claude_of(&logs));
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().await.0, None);
    kill_process(pid(worker), Signal::KILL).unwrap();
    drop(logs);

    let next = Serving::start(&user, &claude, &[]).await;
    let ended = Run::start(user.command(mayfly, &["logs", &id, "--json", "--follow"])).end().await;
    assert_eq!(ended.outcome().0, "lost", "{}", ended.stderr);
    ended.assert_whole();
    let shown = Said::from(user.command(mayfly, &["result", &id]).output().await.unwrap()).text();
    assert!(shown.contains(&format!("what was changed after {as_of}")), "{shown}");
    let taken =
        Said::from(user.command(mayfly, &["result", &id, "--branch", "taken"]).output().await.unwrap());
    taken.text();
    assert_eq!(user.git(&["show", "taken:kept.txt"]), "kept");
    next.signal(Signal::TERM);
    assert_eq!(next.end().await.0, Some(0));
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// R17: what the orchestrator could not keep comes again once it can, and the next one on top of it: with the machine gone,
/// both are all of the work.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_could_not_be_kept_is_sent_again_and_the_next_one_builds_on_it() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    user.make_repository();
    for (name, content) in [(".gitattributes", "* text=auto\n"), ("a.txt", "a"), ("new.txt", "new")] {
        fs::write(user.dir.path().join("cwd").join(name), content).unwrap();
    }
    let mayfly = Path::new(env!("CARGO_BIN_EXE_mayfly"));
    let mut serve = tokio::process::Command::new(mayfly);
    serve.arg("--claude").arg(&claude).args(["serve", "--listen", "127.0.0.1:0"]).kill_on_drop(true);
    let (mut serve, mut log) = full_disk::serve(serve, user.dir.path()).await;
    let (first, second) = WORK.split_once("&& ln").unwrap();
    let bash =
        |command: &str| json!([{"name": "Bash", "input": {"command": command, "description": "work"}}]);
    let steps = json!([
        {"hold": "first", "tools": bash(first.trim_end())},
        {"hold": "second", "tools": bash(&format!("ln{second}"))},
        {"hold": "later", "text": "done"},
    ]);
    let prompt = format!("[script: steps list={steps}]");
    let said = Said::from(user.command(mayfly, &["run", "--detach", &prompt]).output().await.unwrap()).text();
    let id = said.split_once(' ').unwrap().0.to_owned();
    user.api.held("first", 1).await;
    let mut logs = Run::start(user.command(mayfly, &["logs", &id, "--json", "--follow"]));
    let task = logs.until("running").await["task"].as_str().unwrap().to_owned();
    // Where a folder is to be, a file is in its way.
    let folder = user.data().join("results").join(task).join("1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("checkpoints"), "").unwrap();
    user.api.release("first");
    while !log.next_line().await.unwrap().unwrap().contains("a file could not be stored or read") {}
    fs::remove_file(folder.join("checkpoints")).unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });

    let again = logs.until("checkpoint").await;
    assert_eq!((&again["event"]["number"], &again["event"]["files"]), (&json!(1), &json!(2)), "{again}");
    user.api.release("second");
    let as_of = checkpointed(&mut logs).await;
    user.api.held("later", 1).await;
    kill_process(pid(parent_of(claude_of(&logs))), Signal::KILL).unwrap();
    let ended = logs.end().await;
    assert_eq!(ended.outcome().0, "lost", "{}", ended.stderr);
    let warned: Vec<_> = ended.own("warning").map(|warning| warning["text"].to_string()).collect();
    assert!(warned.iter().all(|text| !text.contains("no checkpoint")), "it was in time: {warned:?}");
    let unsaved = ended.own("collected").last().expect("a collection")["result"]["unsaved"].to_string();
    assert!(unsaved.contains(&format!("what was changed after {as_of}")), "{unsaved}");
    let taken = user.command(mayfly, &["result", &id, "--branch", "mayfly/taken"]).output().await.unwrap();
    Said::from(taken).text();
    assert_landed(|args| user.git(args));
    kill_process(pid(serve.id().unwrap()), Signal::TERM).unwrap();
    assert!(serve.wait().await.unwrap().success());
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}
