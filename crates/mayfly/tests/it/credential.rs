//! `mayfly credential add`, as far as it gets without an orchestrator: how the secret comes in, and what is said of a bad one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::User;

/// S30: what is typed is shown nowhere, neither by the terminal nor in what is said of it.
#[test]
fn a_secret_that_is_typed_is_not_shown() {
    let user = User::new();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let typed = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.env_clear().env("HOME", user.home()).env("PATH", "/usr/bin:/bin").current_dir(user.cwd());
    command.args(["credential", "add", "work"]).stdin(typed).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut stderr = child.stderr.take().unwrap();
    let mut prompt = vec![0; "The secret (it is not shown): ".len()];
    stderr.read_exact(&mut prompt).unwrap();
    let mut terminal = File::from(terminal);
    terminal.write_all(b"canary-of-no-kind\n").unwrap();
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(said.contains("say --kind") && !said.contains("canary"), "{said}");
    // Nobody has the other end any more: what the terminal showed is all there is to read.
    let mut shown = Vec::new();
    let _ = terminal.read_to_end(&mut shown);
    assert_eq!(String::from_utf8_lossy(&shown), "");
    assert!(user.untouched());
}

/// S30, S43: each is refused before anything is started, and none is repeated.
#[test]
fn a_secret_that_is_none_is_refused_in_words() {
    let user = User::new();
    std::fs::write(user.cwd().join("token"), "sk-ant-oat01-canary\n").unwrap();
    let long = "canary".repeat(10_000);
    let with = |stdin: &str, args: &[&str]| {
        let mut command = user.mayfly(&[&["credential", "add", "work"], args].concat());
        command.write_stdin(stdin.to_owned());
        let said = user.said(command);
        assert!(!said.contains("canary"), "{said}");
        said
    };
    let said = [
        with("", &[]),
        with(" \n", &[]),
        with("canary", &[]),
        with("canary canary", &["--kind", "api-key"]),
        with("sk-ant-ort01-canary", &[]),
        with("sk-ant-oat01-canary", &["--kind", "api-key"]),
        with("sk-ant-api03-canary", &["--kind", "oauth-token"]),
        with("canary", &["--kind", "bearer"]),
        with(&long, &[]),
        with("", &["--file", "nowhere"]),
        with("", &["--file", "token", "--kind", "api-key"]),
        with("", &["--command", "exit 3"]),
    ];
    insta::assert_snapshot!(said.join("\n"));
    assert!(user.untouched());
}
