//! Agents in virtual machines: the real QEMU, a real guest, and in it the real `claude`.
//!
//! What the guests start from, and the device for vsock, are in the folder that `MAYFLY_TEST_MICROVM` names, made of the
//! `mayfly` and the `claude` that are tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use super::service::{User, end};
use super::world::{PATH, Run, processes_in};

/// The folder with the guest; without it the test is skipped.
fn guest() -> Option<PathBuf> {
    let guest = std::env::var_os("MAYFLY_TEST_MICROVM");
    if guest.is_none() {
        mayfly_test_needs::skip("MAYFLY_TEST_MICROVM names no folder with a guest (scripts/test makes one)");
    }
    Some(fs::canonicalize(guest?).unwrap())
}

/// With its folder, where the device for vsock is.
fn path(guest: &Path) -> String {
    format!("{}:{PATH}", guest.display())
}

/// Two at once, through the gateway to two branches; nothing is left of either.
#[tokio::test(flavor = "multi_thread")]
async fn agents_in_virtual_machines_end_with_their_branches_and_no_machine() {
    let Some(guest) = guest() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (home, temporary) = (dir.path().join("home"), dir.path().join("tmp"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&temporary).unwrap();
    let config = dir.path().join("mayfly.toml");
    fs::write(&config, format!("[microvm]\nsystem = {:?}\n", guest.join("system"))).unwrap();
    let mut demo = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
    demo.env_clear().env("PATH", path(&guest));
    demo.env("HOME", &home).env("TMPDIR", &temporary);
    demo.arg("--config").arg(&config).args(["demo", "--provider", "microvm", "--tasks", "2"]);
    demo.args(["--parallel", "2", "--memory", "1GiB"]);
    let output = demo.stdin(Stdio::null()).output().await.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = said(&output.stdout) + &said(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches(" merge mayfly/").count(), 2, "{text}");
    assert!(text.contains("0 machines left"), "{text}");
    assert_eq!(processes_in(dir.path()).len(), 0);
}

/// R01, R03: it goes on, the next orchestrator adopts it, and the work comes home.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_outlives_its_orchestrator() {
    let Some(guest) = guest() else { return };
    let user = User::new().await;
    user.make_repository();
    let file = user.dir.path().join(".config/mayfly/mayfly.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = format!(
        "[serve]\nprovider = \"microvm\"\n[microvm]\nsystem = {:?}\n[machine]\nmemory = \"1GiB\"\n",
        guest.join("system")
    );
    fs::write(file, text).unwrap();
    let steps = json!([
        {"tools": [{"name": "Write", "input": {"file_path": "{cwd}/made.txt", "content": "made\n"}}]},
        {"text": "done", "hold": "answer"},
    ]);
    let prompt = format!("[script: steps list={steps}]");
    let mut command = user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["run", "--json", &prompt]);
    command.env("PATH", path(&guest));
    let run = Run::start(command);
    user.api.held("answer", 1).await;
    end(user.orchestrator(), Signal::KILL);
    user.api.release("answer");
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    user.end_with_branch_of(&ended, "made.txt");
    user.api.stop().await;
}
