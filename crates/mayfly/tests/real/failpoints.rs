//! Processes that are killed at each durable step, before it and after it: real binary, real CLI.
//!
//! A chain of lives on one data folder: each begins with a task of its own, ends where it is told to, and leaves all
//! that was begun to the next. The last one is left alone, and must bring everything to its end.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use mayfly_client::Client;
use mayfly_wire::api::{CreateTask, Credential, CredentialKind};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use super::port::status;
use super::service::{CANARY, User};
use super::world::{Ended, Run, Said, assert_no_cgroup_of, assert_no_mount_in, processes_in};

/// Where an orchestrator is killed, each in a life of its own.
const ORCHESTRATOR: [&str; 24] = [
    "submit-uncommitted",
    "submit-committed",
    "claim-uncommitted",
    "claim-committed",
    "create-asked",
    "machine-folder-made",
    "machine-holder-started",
    "create-answered",
    "effect-performed",
    "forget-uncommitted",
    "effect-forgotten",
    "join-bound",
    "ingest-uncommitted",
    "ingest-committed",
    "ingest-uncommitted:2",
    "ingest-committed:2",
    "upload-unnamed",
    "upload-named",
    "ingest-uncommitted:3",
    "ingest-committed:3",
    "destroy-asked",
    "machine-processes-ended",
    "destroy-answered",
    "forget-uncommitted:3",
];

/// Where a tunnel is killed.
const TUNNEL: [&str; 5] =
    ["tunnel-file-unnamed", "tunnel-appended", "tunnel-appended:3", "tunnel-synced", "tunnel-file-unnamed:2"];

/// The user's end, and where things are.
struct World {
    user: User,
    claude: PathBuf,
}

/// A process that ends by itself, or when it is told to.
pub(crate) struct Life {
    child: Child,
    /// The first line of its standard output; empty if it died before that.
    ready: String,
}

impl Life {
    pub(crate) async fn start(mut command: tokio::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).await.unwrap();
        // What else it says is read by nobody, and must not stop it.
        tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
        Self { child, ready }
    }

    /// Waits until it has been killed.
    pub(crate) async fn killed(mut self, point: &str) {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.child.wait().await.unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{point}: {status}");
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn end(mut self) {
        assert!(self.ready.starts_with("serving on"), "{}", self.ready);
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
    }
}

impl World {
    /// `None`: there is no `claude` here, or this build has no points, and the test is skipped.
    async fn start() -> Option<Self> {
        if !cfg!(feature = "failpoints") {
            mayfly_test_needs::skip("built without --features mayfly/failpoints");
            return None;
        }
        let claude = mayfly_test_needs::claude()?;
        Some(Self { user: User::new().await, claude })
    }

    fn data(&self, name: &str) -> PathBuf {
        self.user.dir.path().join(name)
    }

    fn command(&self, args: &[&str], data: &str) -> tokio::process::Command {
        let mut command = self.user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["--claude"]);
        command.arg(&self.claude).args(args).arg("--data").arg(self.data(data)).env("MAYFLY_LOG", "off");
        command
    }

    /// An orchestrator that is killed at a point, or none.
    async fn serve(&self, point: Option<&str>) -> Life {
        let mut serve = self.command(&["serve", "--listen", "127.0.0.1:0"], "there");
        serve.envs(point.map(|point| ("MAYFLY_FAILPOINT", point)));
        Life::start(serve).await
    }

    /// Submits the task with this key; `None`: there was no answer.
    async fn submit(&self, key: &str) -> Option<String> {
        let credential =
            Credential::new(CredentialKind::ApiKey, CANARY.to_owned().into(), Some(self.user.api.base_url()));
        let prompt = format!("[script: write path=made.txt] {key}");
        let create = CreateTask { prompt, credential: Some(credential), ..CreateTask::default() };
        let client = Client::new(&self.data("there").join("api.sock"));
        client.submit(&create, key).await.ok().map(|task| task.id)
    }

    async fn follow(&self, data: &str, task: &str) -> Ended {
        Run::start(self.command(&["logs", task, "--json", "--follow"], data)).end().await
    }

    /// A task that ran once, whole.
    async fn assert_done(&self, task: &str) {
        let ended = self.follow("there", task).await;
        assert_eq!(ended.outcome().0, "succeeded", "{:?}", ended.events);
        ended.assert_whole();
        let inits = ended.claude_lines().filter(|line| line["subtype"] == "init").count();
        assert_eq!((ended.own("started").count(), inits), (1, 1), "{:?}", ended.events);
    }

    /// Nothing is left of these tasks' machines.
    async fn end(self, tasks: &[String]) {
        assert_eq!(processes_in(self.user.dir.path()).len(), 0);
        assert_no_mount_in(self.user.dir.path());
        for task in tasks {
            assert_no_cgroup_of(task);
        }
        let machines = std::fs::read_dir(self.data("there").join("machines")).unwrap();
        let left: Vec<_> = machines.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
        self.user.api.stop().await;
    }
}

/// R01, R02: nothing is lost, nothing runs twice, and a key names one task.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_is_killed_at_each_durable_step_loses_nothing() {
    let Some(world) = World::start().await else { return };
    let mut answers = Vec::new();
    for point in ORCHESTRATOR {
        let life = world.serve(Some(point)).await;
        answers.push(world.submit(point).await);
        life.killed(point).await;
    }
    let last = world.serve(None).await;
    let mut tasks = Vec::new();
    for (point, answer) in ORCHESTRATOR.iter().zip(answers) {
        let task = world.submit(point).await.expect("this one answers");
        assert!(answer.is_none_or(|answer| answer == task), "{point}: the key names another task now");
        tasks.push(task);
    }
    for task in &tasks {
        world.assert_done(task).await;
    }
    let there = Client::new(&world.data("there").join("api.sock")).tasks(None, None).await.unwrap();
    assert_eq!(there.len(), tasks.len(), "there is no other task");
    last.end().await;
    world.end(&tasks).await;
}

/// R12: what comes again after a kill is in the log once.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_killed_at_each_durable_step_has_every_line_once() {
    let Some(world) = World::start().await else { return };
    let orchestrator = world.serve(None).await;
    let to = format!("unix:{}", world.data("there").join("api.sock").display());
    let tunnel = async |point: Option<&str>| {
        let mut tunnel = world.command(&["tunnel", "--listen", "127.0.0.1:0", "--to", &to], "here");
        tunnel.envs(point.map(|point| ("MAYFLY_FAILPOINT", point)));
        Life::start(tunnel).await
    };
    let mut tasks = Vec::new();
    for point in TUNNEL {
        let life = tunnel(Some(point)).await;
        tasks.push(world.submit(point).await.expect("nobody kills the orchestrator"));
        life.killed(point).await;
    }
    let last = tunnel(None).await;
    for task in &tasks {
        world.assert_done(task).await;
        // Through the tunnel to its end: its log is whole then.
        world.follow("here", task).await.assert_whole();
        let there = Said::from(world.command(&["logs", "--json", task], "there").output().await.unwrap());
        assert_eq!(log_of(&world.data("here"), task), there.text());
    }
    last.end().await;
    orchestrator.end().await;
    world.end(&tasks).await;
}

fn log_of(data: &Path, task: &str) -> String {
    let store = std::fs::read_to_string(data.join("tunnel/store")).unwrap();
    std::fs::read_to_string(data.join("tunnel").join(store.trim()).join(format!("logs/{task}.ndjson")))
        .unwrap()
}

/// R17, G1, G4: once the disk does not keep what it is given, nothing is acknowledged any more and the orchestrator ends;
/// the next one has all that was answered, and all that the machines say.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_whose_disk_fails_ends_and_the_next_one_has_all_that_was_answered() {
    let Some(world) = World::start().await else { return };
    let bad = world.data("bad");
    let on_bad_disk = async || {
        let mut serve = world.command(&["serve", "--listen", "127.0.0.1:0"], "there");
        serve.env("MAYFLY_BAD_DISK", &bad);
        Life::start(serve).await
    };
    let mut life = on_bad_disk().await;
    let mut tasks = Vec::new();
    for key in ["one", "two", "three"] {
        tasks.push(world.submit(key).await.expect("the disk is still good"));
    }
    std::fs::write(&bad, "").unwrap();
    assert_eq!(world.submit("four").await, None);
    assert_eq!(life.child.wait().await.unwrap().code(), Some(3));
    let mut none = on_bad_disk().await;
    assert!(!none.child.wait().await.unwrap().success());
    assert_eq!(none.ready, "", "it does not begin on such a disk");
    std::fs::remove_file(&bad).unwrap();
    let last = world.serve(None).await;
    tasks.push(world.submit("four").await.expect("the disk is good again"));
    for (task, key) in tasks.iter().zip(["one", "two", "three"]) {
        assert_eq!(world.submit(key).await.as_ref(), Some(task));
    }
    for task in &tasks {
        world.assert_done(task).await;
    }
    last.end().await;
    world.end(&tasks).await;
}

/// S33: whatever ends an orchestrator while it revokes the token of its folder, the one that is in the file then opens
/// its port, and no other does.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_a_change_of_the_folders_token_one_is_good_and_it_is_the_one_in_the_file() {
    let Some(world) = World::start().await else { return };
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let serve = async |point: Option<&str>| {
        let mut serve = world.command(&["serve", "--listen", &address], "there");
        serve.envs(point.map(|point| ("MAYFLY_FAILPOINT", point)));
        Life::start(serve).await
    };
    let token = || std::fs::read_to_string(world.data("there").join("token")).unwrap().trim_end().to_owned();
    serve(None).await.end().await;
    // The first private file of a life is the one that remembers its settings.
    for (point, is_changed) in [("private-unnamed:2", false), ("private-named:2", true)] {
        let (before, life) = (token(), serve(Some(point)).await);
        let client = Client::new(&world.data("there").join("api.sock"));
        client.revoke_token("local").await.expect_err("it is killed");
        life.killed(point).await;
        let after = token();
        assert_eq!(before != after, is_changed, "{point}");
        let last = serve(None).await;
        assert_eq!(status(&address, &after).await, "200", "{point}");
        let expected = if is_changed { "401" } else { "200" };
        assert_eq!(status(&address, &before).await, expected, "{point}");
        last.end().await;
    }
    world.end(&[]).await;
}

/// The tables of the first version, with a task that is over: in the year 2100, so that it is not old enough to go.
const FIRST_VERSION: &str = "
CREATE TABLE tasks (id TEXT PRIMARY KEY, spec TEXT NOT NULL, idempotency_key TEXT UNIQUE, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, word TEXT, detail TEXT, result TEXT, last_seq INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL, finished_ms INTEGER) STRICT;
CREATE INDEX tasks_by_state ON tasks (state, id);
CREATE TABLE attempts (task TEXT NOT NULL REFERENCES tasks (id), attempt INTEGER NOT NULL, launched_ms INTEGER NOT NULL,
    joined_ms INTEGER, heard_ms INTEGER, ended_ms INTEGER, stored INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0, link_hash BLOB, PRIMARY KEY (task, attempt)) STRICT, WITHOUT ROWID;
CREATE TABLE events (task TEXT NOT NULL REFERENCES tasks (id), seq INTEGER NOT NULL, attempt INTEGER NOT NULL,
    at_ms INTEGER NOT NULL, source INTEGER NOT NULL, ending INTEGER NOT NULL, json INTEGER NOT NULL,
    bytes BLOB NOT NULL, PRIMARY KEY (task, seq)) STRICT;
CREATE TABLE effects (task TEXT NOT NULL REFERENCES tasks (id), attempt INTEGER NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (task, attempt, kind)) STRICT, WITHOUT ROWID;
INSERT INTO tasks VALUES ('0193b2c4-0000-7000-8000-00000000000a', '{\"prompt\":\"of long ago\"}', 'key', 'finished', 1,
    'cancelled', 'cancelled by its owner', NULL, 2, 1000, 4102444800000);
INSERT INTO events VALUES ('0193b2c4-0000-7000-8000-00000000000a', 1, 0, 1000, 2, 0, 1, CAST('{\"type\":\"queued\"}' AS BLOB));
INSERT INTO events VALUES ('0193b2c4-0000-7000-8000-00000000000a', 2, 0, 2000, 2, 0, 1,
    CAST('{\"type\":\"finished\",\"outcome\":{\"name\":\"cancelled\"}}' AS BLOB));
PRAGMA application_id = 0x6d617966;
PRAGMA user_version = 1;
";

/// R27: the tables are the old ones or the new ones, whatever ends the step between them, and what is in them stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_killed_at_each_step_is_made_by_the_next_start() {
    let Some(world) = World::start().await else { return };
    let there = world.data("there");
    std::fs::create_dir(&there).unwrap();
    rusqlite::Connection::open(there.join("mayfly.db")).unwrap().execute_batch(FIRST_VERSION).unwrap();
    let steps = ["migration-step", "migration-step:2", "migration-step:3", "migration-step:4"];
    for point in [&steps[..], &["migration-uncommitted", "migration-committed"]].concat() {
        let life = world.serve(Some(point)).await;
        assert_eq!(life.ready, "", "{point}");
        life.killed(point).await;
    }
    let last = world.serve(None).await;
    let said = Said::from(world.command(&["logs", "--json", "0000000a"], "there").output().await.unwrap());
    let told: Vec<Value> = said.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = told.iter().filter_map(|event| event["event"]["type"].as_str()).collect();
    assert_eq!(kinds, ["queued", "finished"]);
    assert_eq!(told[1]["event"]["outcome"]["name"], "cancelled");
    last.end().await;
    world.end(&[]).await;
}
