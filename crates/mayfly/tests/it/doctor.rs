//! The doctor on the real kernel: as this user, as an ordinary one, and where namespaces are off.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{User, program};

/// Nobody's id.
const ORDINARY: u32 = 54_321;
/// A program that says that it is the CLI, and whose digest is not the pinned one.
pub(crate) const STAND_IN: [&str; 2] = ["--claude", "../claude"];
/// What no task can run without.
const PARTS: [&str; 6] = ["user namespaces", "other namespaces", "overlay", "Landlock", "seccomp", "sandbox"];

/// The checks by name, with the exit code.
pub(crate) fn checks(output: &Output) -> (i32, Vec<(String, Value)>) {
    let said = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let checks = report["checks"].as_array().unwrap();
    let named = checks.iter().map(|check| (check["name"].as_str().unwrap().to_owned(), check.clone()));
    (output.status.code().unwrap(), named.collect())
}

/// The names and contents of a folder's files.
pub(crate) fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut content: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    content.sort();
    content
}

fn state<'a>(checks: &'a [(String, Value)], name: &str) -> &'a str {
    let check = checks.iter().find(|(found, _)| found == name);
    check.unwrap_or_else(|| panic!("no {name} in {checks:?}")).1["state"].as_str().unwrap()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[test]
fn a_host_on_which_tasks_run_is_found_well_and_left_as_it_was() {
    let user = User::new();
    let output = user.with_token(&[&STAND_IN[..], &["doctor", "--json"]].concat()).output().unwrap();
    let (code, checks) = checks(&output);
    for name in PARTS.iter().chain(&["configuration", "data folder", "git", "credential"]) {
        assert_eq!(state(&checks, name), "ok", "{checks:?}");
    }
    assert_eq!((code, state(&checks, "claude")), (0, "warning"));
    let limits = ["memory limit", "process limit", "processor limit"].map(|name| state(&checks, name));
    assert!(limits == ["ok"; 3] || !is_root(), "{checks:?}");
    assert!(user.untouched(), "a folder is left");
}

#[test]
fn a_folder_that_is_there_keeps_what_is_in_it_and_nothing_more() {
    let user = User::new();
    let data = user.home().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("mayfly-data"), "").unwrap();
    fs::write(data.join("mine"), "").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let data = data.to_str().unwrap();
    let said = user.said(user.with_token(&[&STAND_IN[..], &["doctor", "--data", data]].concat()));
    assert!(said.starts_with("exit 0\n") && said.contains("A task can run here."), "{said}");
    let mut left: Vec<_> = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["mayfly-data", "mine"]);
    assert_eq!(fs::metadata(data).unwrap().mode() & 0o777, 0o755);
}

/// S14: whether there is a credential is told, and nothing of it.
#[test]
fn a_credential_is_told_by_its_kind_and_a_login_is_not_read() {
    let user = User::new();
    let doctor = |name: &str, value: &str| {
        let mut command = user.mayfly(&[&STAND_IN[..], &["doctor", "--json"]].concat());
        let output = command.env(name, value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("canary"), "{text}");
        let (code, checks) = checks(&output);
        let (_, check) = checks.into_iter().find(|(name, _)| name == "credential").unwrap();
        format!("exit {code}, {}\n", serde_json::to_string_pretty(&check).unwrap())
    };
    let none = doctor("UNRELATED", "canary");
    let login = user.home().join(".claude/.credentials.json");
    fs::create_dir(login.parent().unwrap()).unwrap();
    fs::write(&login, "canary").unwrap();
    fs::set_permissions(&login, fs::Permissions::from_mode(0o000)).unwrap();
    let logged_in = doctor("UNRELATED", "canary");
    let kinds = [
        doctor("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-canary"),
        doctor("ANTHROPIC_API_KEY", "sk-ant-api03-canary"),
        doctor("ANTHROPIC_AUTH_TOKEN", "canary"),
        doctor("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-api03-canary"),
    ];
    insta::assert_snapshot!([none, logged_in].concat() + &kinds.concat());
}

#[test]
fn a_program_that_is_not_the_cli_is_named() {
    let user = User::new();
    let output = user.with_token(&["--claude", "/bin/true", "doctor", "--json"]).output().unwrap();
    let (code, checks) = checks(&output);
    let (_, check) = checks.into_iter().find(|(name, _)| name == "claude").unwrap();
    let detail = check["detail"].as_str().unwrap();
    assert!(code == 3 && detail.contains("is not the Claude Code CLI"), "{check}");
}

#[test]
fn a_missing_git_cli_or_data_folder_is_named_with_what_to_type() {
    let user = User::new();
    let empty = user.home().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(user.home().join("file"), "").unwrap();
    let mut command = user.with_token(&["doctor", "--json", "--data", "../file"]);
    let output = command.env("PATH", &empty).output().unwrap();
    let (code, mut checks) = checks(&output);
    assert_eq!(code, 3);
    checks.retain(|(name, _)| ["data folder", "git", "claude"].contains(&name.as_str()));
    let sudo = if is_root() { "" } else { "sudo " };
    for ((name, check), fix) in
        checks.iter().zip(["mayfly run --data", "apt-get install git", "apt-get install npm"])
    {
        assert_eq!(check["state"], "failed", "{name}");
        let said = check["fix"].as_str().unwrap();
        assert!(said.trim_start_matches(sudo).starts_with(fix), "{name}: {said}");
    }
    assert_eq!(checks.len(), 3);
}

#[test]
fn the_settings_are_listed_with_their_origin() {
    let user = User::new();
    fs::write(user.cwd().join("mayfly.toml"), "[serve]\nparallel = 3\n").unwrap();
    let with = ["--config", "mayfly.toml", "doctor", "--settings", "--data", "/d"];
    insta::assert_snapshot!("settings", user.said(user.mayfly(&with)));
    insta::assert_snapshot!("settings_json", user.said(user.mayfly(&[&with[..], &["--json"]].concat())));
}

/// Limits are root's here, or those of a delegated cgroup: all else is there, and each limit has its command.
#[test]
fn an_ordinary_user_can_run_tasks_too() {
    let Some(place) = Place::for_root() else { return };
    let (code, checks) = checks(&place.doctor(Command::new(&place.mayfly).uid(ORDINARY).gid(ORDINARY)));
    for name in PARTS {
        assert_eq!(state(&checks, name), "ok", "{checks:?}");
    }
    assert_eq!(code, 0, "{checks:?}");
    for name in ["memory limit", "process limit", "processor limit"] {
        let (_, check) = checks.iter().find(|(found, _)| found == name).unwrap();
        assert!(
            check["state"] == "ok" || check["fix"].as_str().is_some_and(|fix| fix.contains(" mayfly ")),
            "{check}"
        );
    }
}

/// In cgroups of version 1 a folder is given to the user, by the very command that the doctor names.
#[test]
fn the_command_for_limits_gives_them_to_an_ordinary_user() {
    let Some(place) = Place::for_root() else { return };
    let (_, before) = checks(&place.doctor(Command::new(&place.mayfly).uid(ORDINARY).gid(ORDINARY)));
    let (_, memory) = before.iter().find(|(found, _)| found == "memory limit").unwrap();
    let Some(fix) = memory["fix"].as_str().filter(|fix| fix.starts_with("for at in ")) else {
        return mayfly_test_needs::skip("there are no cgroups of version 1 here, or they are given already");
    };
    // The user's shell, with root's power where it asks for that.
    let script = format!(
        "sudo() {{ \"$@\"; }}; id() {{ echo {ORDINARY}; }}; \
         mayfly() {{ exec setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups \"$MAYFLY\" --claude claude doctor --json; }}; {fix}"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    shell.env("HOME", place.dir.path()).env("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-made-up");
    let output = shell.env("MAYFLY", &place.mayfly).current_dir(place.dir.path()).output().unwrap();
    let folders = fix.trim_start_matches("for at in ").split(';').next().unwrap().split(' ');
    folders.for_each(|folder| fs::remove_dir(format!("{folder}/mayfly-{ORDINARY}")).unwrap());
    let (code, after) = checks(&output);
    let limits = ["memory limit", "process limit", "processor limit"].map(|name| state(&after, name));
    assert_eq!((code, limits), (0, ["ok"; 3]), "{after:?}");
}

/// S59
#[test]
fn where_user_namespaces_are_off_the_command_is_named() {
    let Some(place) = Place::for_root() else { return };
    // In a user namespace of our own the setting is ours.
    let script = "echo ready; read go; echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --reuid 54321 --regid 54321 --clear-groups \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--keep-caps", "sh", "-c", script]).arg(&place.mayfly);
    place.prepare(&mut command);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", child.id()), "0 0 65536").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let (code, checks) = checks(&child.wait_with_output().unwrap());
    assert_eq!(code, 3);
    let states = PARTS.map(|name| state(&checks, name));
    assert_eq!(states, ["failed", "failed", "failed", "ok", "ok", "failed"], "{checks:?}");
    let (_, check) = checks.iter().find(|(name, _)| name == "user namespaces").unwrap();
    assert_eq!(check["fix"], "sudo sysctl -w user.max_user_namespaces=10000");
    assert!(check["detail"].as_str().unwrap().contains("user namespaces are off here"), "{check}");
}

/// What an ordinary user needs to be a patient: copies, since the originals may be where only root can reach.
struct Place {
    dir: tempfile::TempDir,
    mayfly: PathBuf,
}

impl Place {
    /// Only root can become another user.
    fn for_root() -> Option<Self> {
        if !is_root() {
            mayfly_test_needs::skip("only root can do this");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mayfly = dir.path().join("mayfly");
        fs::copy(env!("CARGO_BIN_EXE_mayfly"), &mayfly).unwrap();
        fs::set_permissions(&mayfly, fs::Permissions::from_mode(0o755)).unwrap();
        program::stand_in(&dir.path().join("claude"), program::CLAUDE);
        chown(dir.path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
        Some(Self { dir, mayfly })
    }

    fn prepare(&self, command: &mut Command) {
        command.args(["--claude", "claude", "doctor", "--json"]).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("HOME", self.dir.path()).env("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-made-up");
        command.current_dir(self.dir.path());
    }

    fn doctor(&self, command: &mut Command) -> Output {
        self.prepare(command);
        command.output().unwrap()
    }
}
