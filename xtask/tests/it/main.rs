//! The long checks, for a short time.

use std::process::{Command, Stdio};

/// R01, R03, R04, R05, R10, R23, R42: all that `torture` can do, for some seconds. The program beside it is built by whoever
/// runs the tests of the whole workspace.
#[test]
fn no_promise_is_broken_by_a_few_seconds_of_torture() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let torture = env!("CARGO_BIN_EXE_xtask");
    if !std::path::Path::new(torture).with_file_name("mayfly").is_file() {
        mayfly_test_needs::skip("`mayfly` is not built: cargo build --package mayfly");
        return;
    }
    let mut run = Command::new(torture);
    // The plan of this seed has each fault early.
    run.args(["torture", "--built", "--seed", "3367", "--minutes", "0.3", "--claude"]).arg(claude);
    let output = run.stdin(Stdio::null()).output().expect("it runs");
    let (table, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{words}");
    assert!(table.contains("the orchestrator is killed"), "{table}");
    assert!(table.contains("files that the tunnel grew by"), "{table}");
}
