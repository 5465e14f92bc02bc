//! Ctrl-C, once and twice.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use super::world::{PATH, Run, World};

/// Writes a file, then waits for ever.
pub(crate) fn half_done() -> String {
    let steps = json!([
        {"tools": [{"name": "Write", "input": {"file_path": "{cwd}/half.txt", "content": "half\n"}}]},
        {"tools": [{"name": "Bash", "input": {"command": "tail -f /dev/null", "description": "wait"}}]},
    ]);
    format!("[script: steps list={steps}]")
}

pub(crate) fn is_waiting(event: &serde_json::Value) -> bool {
    event["line"]["message"]["content"][0]["name"] == "Bash"
}

/// R32, G11.
#[tokio::test(flavor = "multi_thread")]
async fn one_interrupt_cancels_and_brings_the_work_back() {
    let Some(world) = World::start(|_| {}).await else { return };
    let mut run = world.run(&[&half_done()]);
    run.until_event(is_waiting).await;
    run.signal(Signal::INT);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(130), "cancelled"), "{}", ended.stderr);
    assert_eq!(world.git(&["show", &format!("{}:half.txt", world.branches()[0])]), "half");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_interrupts_leave_no_machine_either() {
    let Some(world) = World::start(|_| {}).await else { return };
    let mut run = world.run(&[&half_done()]);
    run.until_event(is_waiting).await;
    // A terminal that is closed counts as one.
    run.signal(Signal::HUP);
    run.until("collecting").await;
    run.signal(Signal::INT);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(130), "cancelled"), "{}", ended.stderr);
    world.end().await;
}

/// While the work lands: it is still with the orchestrator, and the command that is printed takes it.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_while_landing_leaves_the_work_and_says_how_to_take_it() {
    let Some(world) = World::start(|_| {}).await else { return };
    // A git that stops where the objects are about to enter the user's repository.
    let (bin, begun) = (world.dir.path().join("bin"), world.dir.path().join("begun"));
    fs::create_dir(&bin).unwrap();
    assert!(Command::new("mkfifo").arg(&begun).status().unwrap().success());
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *index-pack*) echo >{}; exec tail -f /dev/null;; esac\nPATH={PATH} exec git \"$@\"\n",
        begun.display()
    );
    fs::write(bin.join("git"), script).unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = world.command(&["[script: write path=made.txt]"]);
    command.env("PATH", format!("{}:{PATH}", bin.display()));
    let run = Run::start(command);
    tokio::task::spawn_blocking(move || fs::read(begun)).await.unwrap().unwrap();
    run.signal(Signal::INT);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(130), "succeeded"), "{}", ended.stderr);
    assert_eq!(world.branches(), [""; 0]);
    let take = ended.stderr.lines().find(|line| line.contains("mayfly result")).expect("a command");
    let words: Vec<&str> = take.split_whitespace().skip(1).take_while(|word| *word != "--data").collect();
    world.mayfly(&words).await.text();
    world.git(&["cat-file", "-e", &format!("{}:made.txt", world.branches()[0])]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_a_slot_is_cancelled_at_once() {
    let Some(world) = World::start(|rules| rules.policy.machines_max = 1.try_into().unwrap()).await else {
        return;
    };
    let mut first = world.run(&[&half_done()]);
    first.until_event(is_waiting).await;
    let mut second = world.run(&["[script: text]"]);
    second.until("queued").await;
    second.signal(Signal::TERM);
    let ended = second.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(130), "cancelled"), "{}", ended.stderr);
    assert_eq!(ended.own("launching").count(), 0);
    first.signal(Signal::INT);
    first.end().await;
    world.end().await;
}
