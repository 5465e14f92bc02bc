//! Agents in virtual machines: the real QEMU, a real guest, and in it the real `claude`.
//!
//! The guest and the device for vsock are in the folder that `MAYFLY_TEST_MICROVM` names; its image has the `mayfly` and the
//! `claude` that are tested.

use std::process::Stdio;

use super::world::{PATH, processes_in};

/// Two at once, through the gateway to two branches; nothing is left of either.
#[tokio::test(flavor = "multi_thread")]
async fn agents_in_virtual_machines_end_with_their_branches_and_no_machine() {
    let Some(guest) = std::env::var_os("MAYFLY_TEST_MICROVM") else {
        mayfly_test_needs::skip("MAYFLY_TEST_MICROVM names no guest (scripts/test-guest makes one)");
        return;
    };
    let guest = std::fs::canonicalize(guest).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (home, temporary) = (dir.path().join("home"), dir.path().join("tmp"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    let config = dir.path().join("mayfly.toml");
    std::fs::write(&config, format!("[microvm]\nsystem = {guest:?}\n")).unwrap();
    let mut demo = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
    demo.env_clear().env("PATH", format!("{}:{PATH}", guest.display()));
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
