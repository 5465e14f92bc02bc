//! R17: the disk fills while a task runs, and is emptied again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mayfly_client::{Client, ClientError, EventStream};
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_wire::api::CreateTask;
use mayfly_wire::event::Event;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::world::{CANARY, PATH};

/// The orchestrator's disk: large enough for a task, small enough to be filled quickly.
const DISK: &str = "300m";

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

async fn until(events: &mut EventStream, kind: &str) -> Value {
    loop {
        let line = events.next().await.unwrap().expect("the task goes on");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"]["type"] == kind {
            return event;
        }
    }
}

/// The name of its outcome, once it is over.
async fn outcome(client: &Client, id: &str, mut events: EventStream) -> String {
    while let Some(line) = events.next().await.unwrap() {
        Event::parse(&line).unwrap();
    }
    client.task(id).await.unwrap().outcome.unwrap().name
}

/// Nothing is acknowledged that is not stored and no task is accepted; once there is room, everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_everything_up_until_there_is_room() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    if !rustix::process::geteuid().is_root() {
        mayfly_test_needs::skip("only root can mount a small disk, in a mount namespace of its own");
        return;
    }
    let loopback = "127.0.0.1:0".parse().unwrap();
    let api = ScriptedApi::start_paced(loopback, Accepted::Oauth(CANARY.to_owned()), 0.0).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let script = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", DISK]).arg(&small).arg(env!("CARGO_BIN_EXE_mayfly"));
    command
        .arg("--claude")
        .arg(claude)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(small.join("data"));
    command.env_clear().env("PATH", PATH).env("HOME", dir.path()).env("MAYFLY_LOG", "info");
    let mut serve =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(serve.stdout.take().unwrap()).lines();
    let mut log = BufReader::new(serve.stderr.take().unwrap()).lines();
    assert!(said.next_line().await.unwrap().expect("it is ready").starts_with("serving on"));
    let pid = i32::try_from(serve.id().unwrap()).unwrap();
    // The same disk, seen from here.
    let disk = PathBuf::from(format!("/proc/{pid}/root{}", small.display()));
    let client = Client::new(&disk.join("data/api.sock"));
    let task = |prompt: &str| {
        let credential = json!({"kind": "oauth-token", "secret": CANARY, "base_url": api.base_url()});
        serde_json::from_value::<CreateTask>(json!({"prompt": prompt, "credential": credential})).unwrap()
    };

    let running = client.submit(&task("[script: hold] go on"), "running").await.unwrap();
    let mut events = client.events(&running.id, 0);
    until(&mut events, "ready").await;
    api.arrived("hold", 1).await;
    fill(&disk.join("filler"));
    let refused = client.submit(&task("[script: text]"), "refused").await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(problem) if problem.kind == "disk-full"), "{refused}");
    let ready = client.ready().await.unwrap_err();
    assert!(matches!(&ready, ClientError::Refused(problem) if problem.status == 503), "{ready}");
    api.release("hold");
    // What the machine says now cannot be stored.
    while !log.next_line().await.unwrap().expect("it goes on").contains("not stored") {}
    let logged = tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    fs::remove_file(disk.join("filler")).unwrap();
    assert_eq!(outcome(&client, &running.id, events).await, "succeeded");
    client.ready().await.unwrap();
    let next = client.submit(&task("[script: text]"), "next").await.unwrap();
    assert_eq!(outcome(&client, &next.id, client.events(&next.id, 0)).await, "succeeded");
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    assert!(serve.wait().await.unwrap().success());
    logged.await.unwrap();
}
