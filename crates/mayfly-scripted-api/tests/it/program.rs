//! The program: what it prints, what it refuses, and that it serves.

use std::process::{Output, Stdio};

use mayfly_scripted_api::SCENARIOS;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly-scripted-api"));
    command.args(args).env_clear().kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_help_teaches_every_scenario() {
    let Output { status, stdout, .. } = program(&["--help"]).output().await.unwrap();
    let help = String::from_utf8(stdout).unwrap();
    assert!(status.success());
    assert!(help.contains("ANTHROPIC_BASE_URL"), "{help}");
    for scenario in SCENARIOS {
        assert!(help.lines().any(|line| line.trim_start().starts_with(scenario.name)), "{}", scenario.name);
    }
}

#[tokio::test]
async fn exactly_one_credential_is_needed() {
    for args in [&[][..], &["--accept-oauth", "a", "--accept-api-key", "b"]] {
        let Output { status, stdout, .. } = program(args).output().await.unwrap();
        assert_eq!((status.code(), stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
    }
}

#[tokio::test]
async fn it_prints_its_url_and_serves_there() {
    let mut child = program(&["--accept-bearer", "dummy"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next_line().await.unwrap().unwrap();
    let mut tcp = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    tcp.write_all(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    child.kill().await.unwrap();
}
