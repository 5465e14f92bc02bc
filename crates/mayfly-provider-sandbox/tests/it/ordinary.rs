//! Root tells little about ordinary users: here they do all of the above.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::world::{STUB_VARIABLE, is_root, stub};

/// Nobody's id.
const USER: u32 = 54_321;

/// As an ordinary user, this whole test binary is what such a user does.
#[test]
fn an_ordinary_user_can_do_all_of_it() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = |name: &str, from: std::path::PathBuf| {
        let to = dir.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    // Copies, since the originals may be where only root can reach.
    let (tests, stub) = (own("tests", std::env::current_exe().unwrap()), own("stub", stub()));
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    for path in [dir.path(), &temporary] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let output = Command::new(tests)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", &temporary)
        .env("RUST_BACKTRACE", "1")
        .env(STUB_VARIABLE, stub)
        .current_dir(dir.path())
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("test result: ok"), "{said}");
}
