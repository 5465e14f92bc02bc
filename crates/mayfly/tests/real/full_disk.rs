//! R17: the disk fills while a task runs, and is emptied again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mayfly_client::{Client, ClientError, EventStream};
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_wire::api::CreateTask;
use mayfly_wire::event::Event;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::world::{CANARY, PATH};

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// An orchestrator whose data folder has a disk of its own, with a Messages API.
struct SmallDisk {
    api: ScriptedApi,
    client: Client,
    /// The disk, as it is seen from here.
    path: PathBuf,
    serve: Child,
    /// What the orchestrator says.
    log: Lines<BufReader<ChildStderr>>,
    /// The orchestrator's command line.
    program: Vec<OsString>,
    dir: TempDir,
}

impl SmallDisk {
    /// `None`: it cannot be had here, and the test is skipped.
    async fn start(size: &str) -> Option<Self> {
        let claude = mayfly_test_needs::claude()?;
        if !rustix::process::geteuid().is_root() {
            mayfly_test_needs::skip("only root can mount a small disk, in a mount namespace of its own");
            return None;
        }
        let loopback = "127.0.0.1:0".parse().unwrap();
        let api = ScriptedApi::start_paced(loopback, Accepted::Oauth(CANARY.to_owned()), 0.0).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let small = dir.path().join("small");
        fs::create_dir(&small).unwrap();
        let mut program: Vec<OsString> =
            vec![env!("CARGO_BIN_EXE_mayfly").into(), "--claude".into(), claude.into()];
        program.extend(["serve", "--listen", "127.0.0.1:0", "--data"].map(OsString::from));
        program.push(small.join("data").into());
        let script = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", size]).arg(&small).args(&program);
        let (serve, log) = serve(command, dir.path()).await;
        let path = PathBuf::from(format!("/proc/{}/root{}", serve.id().unwrap(), small.display()));
        let client = Client::new(&path.join("data/api.sock"));
        Some(Self { api, client, path, serve, log, program, dir })
    }

    fn task(&self, prompt: &str) -> CreateTask {
        let credential = json!({"kind": "oauth-token", "secret": CANARY, "base_url": self.api.base_url()});
        serde_json::from_value(json!({"prompt": prompt, "credential": credential})).unwrap()
    }

    /// Kills the orchestrator, and starts another that sees the same disk.
    async fn die_and_start_again(&mut self) {
        let spaces = File::open(format!("/proc/{}/ns/mnt", self.serve.id().unwrap())).unwrap();
        self.serve.kill().await.unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/fd/{}", std::process::id(), spaces.as_raw_fd()));
        command.args(&self.program);
        (self.serve, self.log) = serve(command, self.dir.path()).await;
        // The same disk, seen by way of another process.
        let small = self.dir.path().join("small");
        self.path = PathBuf::from(format!("/proc/{}/root{}", self.serve.id().unwrap(), small.display()));
        self.client = Client::new(&self.path.join("data/api.sock"));
    }

    /// Ends the orchestrator.
    async fn end(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.serve.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let reading = async { while let Ok(Some(_)) = self.log.next_line().await {} };
        let (ended, ()) = tokio::join!(self.serve.wait(), reading);
        assert!(ended.unwrap().success());
        self.api.stop().await;
    }
}

/// Starts an orchestrator, and waits until it serves.
pub(crate) async fn serve(mut command: Command, home: &Path) -> (Child, Lines<BufReader<ChildStderr>>) {
    command.env_clear().env("PATH", PATH).env("HOME", home).env("MAYFLY_LOG", "info");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut serve = command.spawn().unwrap();
    let mut said = BufReader::new(serve.stdout.take().unwrap()).lines();
    let mut log = BufReader::new(serve.stderr.take().unwrap()).lines();
    let first = said.next_line().await.unwrap();
    if !first.as_ref().is_some_and(|line| line.starts_with("serving on")) {
        let why = log.next_line().await;
        panic!("{first:?} {why:?}");
    }
    (serve, log)
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

/// Its time ends it although nothing can be stored: then it goes at once, and its disk is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fills_the_disk_is_ended_by_its_time_or_by_force() {
    for force in [false, true] {
        let Some(disk) = SmallDisk::start("200m").await else { return };
        let mut task = disk.task(
            r#"[script: steps list=[
                {"tools": [{"name": "Bash", "input": {"command": "head -c 60M /dev/zero > blob"}}]}, {"hold": "on"}
            ]]"#,
        );
        task.timeout_ms = (!force).then_some(8_000);
        let running = disk.client.submit(&task, "filler").await.unwrap();
        let events = disk.client.events(&running.id, 0);
        // The second request comes once the machine's files are written; others take the rest.
        disk.api.arrived("steps", 2).await;
        fill(&disk.path.join("filler"));
        if force {
            let asked = disk.client.cancel(&running.id, false).await.unwrap_err();
            assert!(
                matches!(&asked, ClientError::Refused(problem) if problem.kind == "disk-full"),
                "{asked}"
            );
            disk.client.cancel(&running.id, true).await.unwrap();
        }
        let expected = if force { "cancelled" } else { "timeout" };
        assert_eq!(outcome(&disk.client, &running.id, events).await, expected);
        fs::remove_file(disk.path.join("filler")).unwrap();
        disk.client.ready().await.unwrap();
        disk.end().await;
    }
}

/// R17, R18: nobody is there any more, and the disk is as full as before: the next one starts all the same, and can
/// be asked to end what fills it.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_died_on_a_full_disk_is_followed_by_another() {
    let Some(mut disk) = SmallDisk::start("200m").await else { return };
    let task = disk.task(
        r#"[script: steps list=[
            {"tools": [{"name": "Bash", "input": {"command": "head -c 60M /dev/zero > blob"}}]}, {"hold": "on"}
        ]]"#,
    );
    let running = disk.client.submit(&task, "filler").await.unwrap();
    disk.api.arrived("steps", 2).await;
    fill(&disk.path.join("filler"));
    disk.die_and_start_again().await;
    disk.client.cancel(&running.id, true).await.unwrap();
    let events = disk.client.events(&running.id, 0);
    assert_eq!(outcome(&disk.client, &running.id, events).await, "cancelled");
    disk.end().await;
}

/// Nothing is acknowledged that is not stored and no task is accepted; once there is room, everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_everything_up_until_there_is_room() {
    let Some(mut disk) = SmallDisk::start("300m").await else { return };
    let (client, api, filler) = (disk.client.clone(), &disk.api, disk.path.join("filler"));
    let running = client.submit(&disk.task("[script: hold] go on"), "running").await.unwrap();
    let mut events = client.events(&running.id, 0);
    until(&mut events, "ready").await;
    api.arrived("hold", 1).await;
    fill(&filler);
    let refused = client.submit(&disk.task("[script: text]"), "refused").await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(problem) if problem.kind == "disk-full"), "{refused}");
    let ready = client.ready().await.unwrap_err();
    assert!(matches!(&ready, ClientError::Refused(problem) if problem.status == 503), "{ready}");
    api.release("hold");
    // What the machine says now cannot be stored.
    while !disk.log.next_line().await.unwrap().expect("it goes on").contains("not stored") {}
    fs::remove_file(filler).unwrap();
    assert_eq!(outcome(&client, &running.id, events).await, "succeeded");
    client.ready().await.unwrap();
    let next = client.submit(&disk.task("[script: text]"), "next").await.unwrap();
    assert_eq!(outcome(&client, &next.id, client.events(&next.id, 0)).await, "succeeded");
    disk.end().await;
}

/// A pipe that nobody reads.
fn unread() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

/// Nobody reads the log, or its disk is full: the work goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let loopback = "127.0.0.1:0".parse().unwrap();
    let api = ScriptedApi::start_paced(loopback, Accepted::Oauth(CANARY.to_owned()), 0.0).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command
        .arg("--claude")
        .arg(claude)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path().join("data"));
    command.env_clear().env("PATH", PATH).env("HOME", dir.path()).env("MAYFLY_LOG", "trace");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(unread());
    let mut serve = command.spawn().unwrap();
    let mut said = BufReader::new(serve.stdout.take().unwrap()).lines();
    assert!(said.next_line().await.unwrap().expect("it is ready").starts_with("serving on"));
    // Nor does anybody read what it says next.
    drop(said);
    let client = Client::new(&dir.path().join("data/api.sock"));
    let credential = json!({"kind": "oauth-token", "secret": CANARY, "base_url": api.base_url()});
    let task = json!({"prompt": "[script: text]", "credential": credential});
    let task = client.submit(&serde_json::from_value(task).unwrap(), "key").await.unwrap();
    assert_eq!(outcome(&client, &task.id, client.events(&task.id, 0)).await, "succeeded");
    kill_process(Pid::from_raw(i32::try_from(serve.id().unwrap()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert!(serve.wait().await.unwrap().success());
}
