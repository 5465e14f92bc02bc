//! What a test needs: an orchestrator, a Messages API, a user with a repository, and runs to follow.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use mayfly_client::Client;
use mayfly_engine::{Rules, SystemClock};
use mayfly_provider::Provider;
use mayfly_provider_sandbox::{Sandbox, SandboxConfig};
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_server::{Server, ServerConfig};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// The owner's credential: it opens the Messages API, and must be seen nowhere in a machine.
pub(crate) const CANARY: &str = "sk-ant-oat01-canary-7d1f";
/// The user's `PATH`.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// One orchestrator with all that is around it.
pub(crate) struct World {
    pub(crate) api: ScriptedApi,
    pub(crate) dir: TempDir,
    pub(crate) provider: Arc<Sandbox>,
    server: Server,
}

impl World {
    /// Starts one whose rules differ from the default only in what the test is about. `None`: there is no
    /// `claude` here, and the test is skipped.
    pub(crate) async fn start(adjust: impl FnOnce(&mut Rules)) -> Option<Self> {
        Some(Self::with(mayfly_test_needs::claude()?, adjust).await)
    }

    /// The same, with another program as `claude`.
    pub(crate) async fn with(claude: PathBuf, adjust: impl FnOnce(&mut Rules)) -> Self {
        Self::configured(claude, |config| adjust(&mut config.rules)).await
    }

    /// The same, with anything else in its configuration.
    pub(crate) async fn configured(claude: PathBuf, adjust: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let api = ScriptedApi::start_paced(loopback, Accepted::Oauth(CANARY.to_owned()), 0.0).await.unwrap();
        let mut config = ServerConfig::in_dir(dir.path().join("data"));
        fs::create_dir(&config.data).unwrap();
        adjust(&mut config);
        let provider = Arc::new(Sandbox::new(SandboxConfig {
            machines: config.data.join("machines"),
            bases: config.data.join("bases"),
            claude,
            mayfly: env!("CARGO_BIN_EXE_mayfly").into(),
        }));
        let clock = Arc::new(SystemClock);
        let server = Server::start(config, Arc::clone(&provider) as Arc<dyn Provider>, clock).await.unwrap();
        let world = Self { api, dir, provider, server };
        world.make_repository();
        world
    }

    /// The user's repository: one commit, one changed file, one new file. As in many, git is told of the ends of its lines.
    fn make_repository(&self) {
        let repo = self.repo();
        fs::create_dir(&repo).unwrap();
        self.git(&["init", "-q", "-b", "main"]);
        fs::write(repo.join(".gitattributes"), "* text=auto\n").unwrap();
        fs::write(repo.join("a.txt"), "one\n").unwrap();
        self.git(&["add", "."]);
        self.git(&["commit", "-q", "-m", "first"]);
        fs::write(repo.join("a.txt"), "two\n").unwrap();
        fs::write(repo.join("new.txt"), "new\n").unwrap();
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// git in the user's repository, as the user runs it.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        git(self.dir.path(), &self.repo(), args)
    }

    /// `mayfly run --json` in the user's repository.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.run_reading(Stdio::null(), args)
    }

    /// The same, with a standard input.
    pub(crate) fn run_reading(&self, stdin: Stdio, args: &[&str]) -> Run {
        let mut command = self.command(args);
        command.stdin(stdin);
        Run::start(command)
    }

    /// The command of it.
    pub(crate) fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.env_clear().env("PATH", PATH).env("HOME", self.dir.path()).current_dir(self.repo());
        command.env("CLAUDE_CODE_OAUTH_TOKEN", CANARY).env("ANTHROPIC_BASE_URL", self.api.base_url());
        command.args(["run", "--json", "--data"]).arg(self.dir.path().join("data")).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Any other verb, in the user's repository; what it said.
    pub(crate) async fn mayfly(&self, args: &[&str]) -> Said {
        let mut command = self.plain_command(args);
        Said::from(command.stdin(Stdio::null()).output().await.unwrap())
    }

    /// The command of it.
    pub(crate) fn plain_command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.env_clear().env("PATH", PATH).env("HOME", self.dir.path()).current_dir(self.repo());
        command.env("CLAUDE_CODE_OAUTH_TOKEN", CANARY).env("ANTHROPIC_BASE_URL", self.api.base_url());
        command.args(args).arg("--data").arg(self.dir.path().join("data"));
        command.kill_on_drop(true);
        command
    }

    /// Runs to the end.
    pub(crate) async fn outcome_of(&self, args: &[&str]) -> Ended {
        self.run(args).end().await
    }

    /// The branches that mayfly made.
    pub(crate) fn branches(&self) -> Vec<String> {
        let refs = self.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
        refs.lines().map(str::to_owned).collect()
    }

    /// Ends it, and checks that no machine is left: none known, no file, no cgroup, no process, no mount.
    pub(crate) async fn end(self) {
        assert_eq!(self.provider.list().await.unwrap(), []);
        let machines = self.dir.path().join("data/machines");
        let visible = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
        let left: Vec<_> = fs::read_dir(machines).unwrap().map(Result::unwrap).filter(visible).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(processes_in(self.dir.path()), BTreeSet::new());
        assert_no_mount_in(self.dir.path());
        for task in Client::new(&self.server.socket()).tasks(None, None).await.unwrap() {
            assert_no_cgroup_of(&task.id);
        }
        self.server.stop().await;
        self.api.stop().await;
    }
}

/// git in `folder`, as the user with this home runs it.
pub(crate) fn git(home: &Path, folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", PATH).env("HOME", home).current_dir(folder);
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "a user").env(format!("GIT_{who}_EMAIL"), "user@localhost");
    }
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The host sees no mount in `dir`.
pub(crate) fn assert_no_mount_in(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
}

/// No cgroup of this host is left of the task with this id, wherever this host has its cgroups.
pub(crate) fn assert_no_cgroup_of(task: &str) {
    let find = ["/sys/fs/cgroup", "-name", &format!("mayfly-{task}.*")];
    let found = Command::new("find").args(find).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

/// Processes whose arguments name `dir`.
pub(crate) fn processes_in(dir: &Path) -> BTreeSet<u32> {
    let name = dir.to_str().unwrap();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(name) && *pid != std::process::id()
    })
    .collect()
}

/// What a verb said to its end.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl From<std::process::Output> for Said {
    fn from(output: std::process::Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

impl Said {
    /// Its standard output, of one that did what was asked for.
    pub(crate) fn text(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// Its standard error, of one that refused what was asked for.
    pub(crate) fn refusal(self) -> String {
        assert_eq!(self.code, Some(2), "{}", String::from_utf8_lossy(&self.stdout));
        assert_eq!(self.stdout, b"");
        self.stderr
    }
}

/// A `mayfly run` under way.
pub(crate) struct Run {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    events: Vec<Value>,
}

impl Run {
    /// Starts a command that prints events.
    pub(crate) fn start(mut command: tokio::process::Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, events: Vec::new() }
    }

    /// Waits for the event of mayfly's own with this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        self.until_event(|event| event["event"]["type"] == kind).await
    }

    /// Waits for an event.
    pub(crate) async fn until_event(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            self.events.push(event.clone());
            if is_it(&event) {
                return event;
            }
        }
        panic!("the run ended before the event; stderr: {}", self.stderr().await);
    }

    /// What it has told so far.
    pub(crate) fn events(&self) -> &[Value] {
        &self.events
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Ended {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.events.push(serde_json::from_str(&line).unwrap());
        }
        let stderr = self.stderr().await;
        let code = self.child.wait().await.unwrap().code();
        Ended { code, events: self.events, stderr }
    }

    async fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
        text
    }
}

/// A `mayfly run` that is over.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) events: Vec<Value>,
    pub(crate) stderr: String,
}

impl Ended {
    /// The outcome's name and the words for it.
    pub(crate) fn outcome(&self) -> (&str, &str) {
        let finished =
            self.own("finished").last().unwrap_or_else(|| panic!("no finished event: {}", self.stderr));
        let outcome = &finished["outcome"];
        (outcome["name"].as_str().unwrap(), outcome["detail"].as_str().unwrap_or_default())
    }

    /// Checks that no event is missing or told twice.
    pub(crate) fn assert_whole(&self) {
        let numbers: Vec<u64> = self.events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }

    /// Events of mayfly's own with this type.
    pub(crate) fn own(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().map(|event| &event["event"]).filter(move |event| event["type"] == kind)
    }

    /// What `claude` wrote, as it was told of.
    pub(crate) fn claude_lines(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(|event| event["source"] == "claude").map(|event| &event["line"])
    }

    /// The results of tools, as texts.
    pub(crate) fn tool_results(&self) -> Vec<String> {
        let contents = self.claude_lines().filter_map(|line| line["message"]["content"].as_array());
        let results = contents.flatten().filter(|block| block["type"] == "tool_result");
        results
            .map(|block| block["content"].as_str().map_or(block["content"].to_string(), str::to_owned))
            .collect()
    }
}

/// The most tasks that held a slot at one time, by the times of their events. An end counts a moment earlier than it
/// was told: the next task may have looked at the clock while that end was being stored.
pub(crate) fn most_at_once<'a>(events: impl Iterator<Item = &'a Value>) -> i32 {
    const MOMENT: jiff::SignedDuration = jiff::SignedDuration::from_millis(50);
    let step = |event: &Value| {
        let at: jiff::Timestamp = event["at"].as_str()?.parse().ok()?;
        match event["event"]["type"].as_str()? {
            "launching" => Some((at, 1)),
            "finished" => Some((at - MOMENT, -1)),
            _ => None,
        }
    };
    let mut steps: Vec<(jiff::Timestamp, i32)> = events.filter_map(step).collect();
    steps.sort_unstable();
    let alive = steps.iter().scan(0, |alive, (_, step)| {
        *alive += step;
        Some(*alive)
    });
    alive.max().unwrap_or_default()
}
