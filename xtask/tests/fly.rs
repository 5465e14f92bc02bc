//! Machines at a stand-in for Fly, all the way: an image's layout, a deployment, tasks, faults, the orchestrator killed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Stdio};

/// As `cargo xtask fly-e2e` does it, with fewer tasks. It ends by itself after ten minutes at most.
#[test]
fn tasks_end_well_at_fly_whatever_goes_wrong_there() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    if !xtask.with_file_name("mayfly").is_file() {
        return mayfly_test_needs::skip("mayfly is not built beside xtask");
    }
    if !rustix::process::geteuid().is_root() {
        return mayfly_test_needs::skip("only root can make the roots of machines");
    }
    let mut run = Command::new(xtask);
    run.args(["fly-e2e", "--built", "--tasks", "6", "--claude"]).arg(claude);
    let output = run.stdin(Stdio::null()).output().unwrap();
    let (table, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{words}");
    for row in
        ["the orchestrator is killed", "the orchestrator is upgraded", "uploads to the registry", "apps left"]
    {
        assert!(table.contains(row), "{row}: {table}");
    }
}
