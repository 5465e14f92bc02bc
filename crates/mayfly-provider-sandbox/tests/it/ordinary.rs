//! Root tells little about ordinary users: here they do all of the above.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mayfly_provider::Provider;
use tempfile::TempDir;

use crate::world::{STUB_VARIABLE, World, is_root, stub};

/// Nobody's id.
const USER: u32 = 54_321;

/// As an ordinary user, this whole test binary is what such a user does.
#[test]
fn an_ordinary_user_can_do_all_of_it() {
    if !is_root() {
        mayfly_test_needs::skip("only root can do this");
        return;
    }
    let place = Place::new();
    let output = place.command(&place.tests).uid(USER).gid(USER).output().unwrap();
    succeeded(&output);
}

/// Its holder made them in a user namespace, and can remove them from there.
#[test]
fn an_ordinary_users_delegated_cgroups_go_with_their_machine() {
    if !is_root() {
        mayfly_test_needs::skip("only root can do this");
        return;
    }
    let place = Place::new();
    let Some(cgroup) = Delegated::new() else {
        mayfly_test_needs::skip("there is no tree of cgroups here");
        return;
    };
    let script = "echo $$ > \"$1\" && exec setpriv --reuid 54321 --regid 54321 --clear-groups \
                  \"$0\" --ignored --exact ordinary::has_cgroups_that_go_with_their_machine";
    let mut command = place.command(Path::new("sh"));
    command.args(["-c", script]).arg(&place.tests).arg(cgroup.0.join("cgroup.procs"));
    succeeded(&command.output().unwrap());
}

#[tokio::test]
#[ignore = "the other half of `an_ordinary_users_delegated_cgroups_go_with_their_machine`, which runs it"]
async fn has_cgroups_that_go_with_their_machine() {
    let had = crate::life::cgroups_that_went_with_their_machine().await;
    assert_eq!(had.len(), 1, "{had:?}");
}

/// S59
#[test]
fn where_user_namespaces_are_off_it_is_said() {
    if !is_root() {
        mayfly_test_needs::skip("only root can do this");
        return;
    }
    let place = Place::new();
    // In a user namespace of our own the setting is ours.
    let script = "echo ready; read go; echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --reuid 54321 --regid 54321 --clear-groups \
                  \"$0\" --ignored --exact ordinary::is_refused_where_user_namespaces_are_off";
    let mut command = place.command(Path::new("unshare"));
    command.args(["--user", "--keep-caps", "sh", "-c", script]).arg(&place.tests);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", child.id()), "0 0 65536").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    succeeded(&child.wait_with_output().unwrap());
}

#[tokio::test]
#[ignore = "the other half of `where_user_namespaces_are_off_it_is_said`, which runs it"]
async fn is_refused_where_user_namespaces_are_off() {
    let world = World::new();
    let spec = world.spec();
    let error = world.sandbox.create(&spec).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("cannot make a user namespace") && said.contains("user.max_user_namespaces"),
        "{said}"
    );
    assert!(std::error::Error::source(&error).is_some());
    world.is_gone(spec.attempt, None);
    assert_eq!(world.sandbox.probe().await.unwrap_err().to_string(), said);
}

/// What an ordinary user needs to run these tests.
struct Place {
    dir: TempDir,
    tests: PathBuf,
    stub: PathBuf,
    temporary: PathBuf,
}

impl Place {
    /// Copies, since the originals may be where only root can reach.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copy = |name: &str, from: PathBuf| {
            let to = dir.path().join(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
            to
        };
        let (tests, stub) = (copy("tests", std::env::current_exe().unwrap()), copy("stub", stub()));
        let temporary = dir.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        for path in [dir.path(), &temporary] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        Self { dir, tests, stub, temporary }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("RUST_BACKTRACE", "1");
        command.env("TMPDIR", &self.temporary).env(STUB_VARIABLE, &self.stub).current_dir(self.dir.path());
        command
    }
}

/// A cgroup that was given to the ordinary user.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Option<Self> {
        let trees = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let tree = trees.into_iter().find(|tree| tree.join("cgroup.procs").exists())?;
        let path = tree.join(format!("mayfly-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        for part in [path.clone(), path.join("cgroup.procs")] {
            chown(part, Some(USER), Some(USER)).unwrap();
        }
        Some(Self(path))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn succeeded(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("test result: ok") && !said.contains(" 0 passed"),
        "{said}"
    );
}
