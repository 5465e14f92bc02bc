//! The worker as it is in a machine: PID 1, started through its `main` with its boot record on descriptor 3.
//!
//! The test starts itself again in a process namespace of its own, and there it is the worker.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{WaitOptions, getpid, wait};

use super::host::Host;
use crate::reaper::{Realm, Reaper};

/// Set in the second start alone, so that no other process takes itself for a machine's.
const INSIDE: &str = "MAYFLY_TEST_PID_1";

fn is_inside() -> bool {
    getpid().is_init() && std::env::var_os(INSIDE).is_some()
}

/// This test, started again as PID 1.
fn inside(test: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture", test]).env(INSIDE, "1");
    command.stdin(Stdio::null());
    command
}

fn can_unshare() -> bool {
    let tried =
        Command::new("unshare").args(["--user", "--map-root-user", "--pid", "--fork", "true"]).status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        mayfly_test_needs::skip("this machine makes no process namespaces");
    }
    can
}

/// Covers S52: what was left behind in a session of its own is killed and reaped too.
#[tokio::test]
async fn orphans_are_killed_and_reaped() {
    if is_inside() {
        let reaper = Reaper::start(Realm::Machine).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "setsid tail -f /dev/null & exit 3"]).stdout(Stdio::piped());
        let child = reaper.spawn(&mut command).unwrap();
        assert_eq!(child.end.await.unwrap().code(), Some(3));
        reaper.kill_all_others();
        // The orphan held the pipe: its end is the orphan's.
        let mut stdout = child.stdout.unwrap();
        assert_eq!(tokio::io::AsyncReadExt::read(&mut stdout, &mut [0]).await.unwrap(), 0);
        while wait(WaitOptions::empty()).is_ok() {}
        let names =
            fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let alive: Vec<_> = names.filter(|name| name.parse::<u32>().is_ok()).collect();
        assert_eq!(alive, ["1"]);
    } else if can_unshare() {
        let output = inside("tests::as_pid_1::orphans_are_killed_and_reaped").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Covers S54 for descriptors: the boot record is read, and not left for `claude` to read.
#[tokio::test]
async fn the_worker_lives_from_its_boot_record_to_the_end_of_its_machine() {
    if is_inside() {
        // The runtime of this test is of no use to `main`, which makes its own.
        let lived = std::thread::spawn(|| crate::main(std::iter::empty())).join().unwrap();
        assert_eq!(format!("{lived:?}"), format!("{:?}", ExitCode::SUCCESS));
        return;
    }
    if !can_unshare() {
        return;
    }
    let host =
        Host::start("readlink /proc/$$/fd/* > fds; setsid tail -f /dev/null & init; result; cat > /dev/null");
    let boot = host.dir.path().join("boot");
    fs::write(&boot, serde_json::to_vec(&host.boot()).unwrap()).unwrap();
    let mut worker =
        inside("tests::as_pid_1::the_worker_lives_from_its_boot_record_to_the_end_of_its_machine");
    worker.stdin(fs::File::open(&boot).unwrap());
    let output = tokio::task::spawn_blocking(move || worker.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(host.ended().0, "succeeded");
    assert!(host.collected().bundle);
    let fds = fs::read_to_string(host.workspace().join("fds")).unwrap();
    assert!(fds.lines().count() >= 3 && !fds.lines().any(|file| Path::new(file) == boot), "{fds}");
}
