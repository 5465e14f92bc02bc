//! `mayfly demo`, as a newcomer runs it.

use std::process::Stdio;

use serde_json::Value;

use super::world::{PATH, most_at_once, processes_in};

/// Runs the demo in a folder of its own, with what it printed.
async fn demo(args: &[&str]) -> Option<(std::process::Output, tempfile::TempDir)> {
    let claude = mayfly_test_needs::claude()?;
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.env_clear().env("PATH", PATH).env("HOME", home.path()).env("TMPDIR", dir.path());
    command.arg("--claude").arg(claude).arg("demo").args(args).stdin(Stdio::null());
    Some((command.output().await.unwrap(), dir))
}

#[tokio::test(flavor = "multi_thread")]
async fn five_agents_end_with_their_branches_and_no_machine() {
    let Some((output, dir)) = demo(&[]).await else { return };
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.matches(" merge mayfly/").count(), 4, "{stdout}");
    assert_eq!(stdout.matches("no changes").count(), 1, "the review is read-only: {stdout}");
    assert!(stdout.contains("0 machines left"), "{stdout}");
    // Its temporary data is gone, the repository with the branches is there.
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].to_string_lossy().starts_with("mayfly-demo-"), "{left:?}");
    assert_eq!(processes_in(dir.path()).len(), 0);
}

/// G7: more tasks than slots.
#[tokio::test(flavor = "multi_thread")]
async fn seven_tasks_share_three_slots_and_their_events_are_json() {
    let Some((output, _dir)) = demo(&["--tasks", "7", "--parallel", "3", "--json"]).await else { return };
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let succeeded = events.iter().filter(|event| event["event"]["outcome"]["name"] == "succeeded");
    let finished = succeeded.filter(|event| event["event"]["type"] == "finished").count();
    assert_eq!((most_at_once(events.iter()), finished), (3, 7));
}
