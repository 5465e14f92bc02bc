//! A host folder with a sandbox provider in it, and workers that do what a test says.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mayfly_core::AttemptId;
use mayfly_provider::{CodeSpec, Limits, MachineSpec, Provider, WorkspaceSpec};
use mayfly_provider_sandbox::{Sandbox, SandboxConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Names the stub's binary where it is not at cargo's place.
pub(crate) const STUB_VARIABLE: &str = "MAYFLY_TEST_SANDBOX_STUB";

/// What every test's ticket is: a text to be looked for.
pub(crate) const TICKET: &str = "canary-4f1c";

pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) config: SandboxConfig,
    pub(crate) way_out: PathBuf,
    listener: UnixListener,
    early: HashMap<String, Worker>,
    numbers: AtomicU32,
    pub(crate) dir: TempDir,
}

/// The stub's path on this host.
pub(crate) fn stub() -> PathBuf {
    std::env::var_os(STUB_VARIABLE)
        .map_or_else(|| env!("CARGO_BIN_EXE_mayfly-sandbox-stub").into(), PathBuf::from)
}

/// A config over `dir`.
pub(crate) fn config(dir: &Path) -> SandboxConfig {
    SandboxConfig {
        machines: dir.join("machines"),
        bases: dir.join("bases"),
        claude: "/bin/true".into(),
        mayfly: stub(),
    }
}

/// The way out of all machines of `dir`, who are one test's.
pub(crate) fn way_out(dir: &Path) -> PathBuf {
    let way_out = dir.join("way-out");
    fs::create_dir_all(&way_out).unwrap();
    fs::set_permissions(&way_out, PermissionsExt::from_mode(0o755)).unwrap();
    way_out
}

impl World {
    pub(crate) fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    /// As after a restart, if `dir` was another world's.
    pub(crate) fn in_dir(dir: TempDir) -> Self {
        let (config, way_out) = (config(dir.path()), way_out(dir.path()));
        let socket = way_out.join("orchestrator.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let sandbox = Sandbox::new(config.clone());
        Self { sandbox, config, way_out, listener, early: HashMap::new(), numbers: AtomicU32::new(1), dir }
    }

    pub(crate) fn spec(&self) -> MachineSpec {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // Cgroups are named after the attempt and shared by all tests.
        let attempt =
            format!("00000000-0000-7000-9000-{process:08x}{:04x}.{number}", unique()).parse().unwrap();
        MachineSpec {
            tools: Vec::new(),
            attempt,
            ticket: TICKET.to_owned().into(),
            workspace: None,
            way_out: self.way_out.clone(),
            limits: Limits::default(),
        }
    }

    /// Makes a machine and waits for its worker.
    pub(crate) async fn boot(&mut self, spec: &MachineSpec) -> Worker {
        let machine = self.sandbox.create(spec).await.unwrap();
        assert!(machine.alive);
        self.hello(spec.attempt).await
    }

    /// Waits for the worker of `attempt`.
    pub(crate) async fn hello(&mut self, attempt: AttemptId) -> Worker {
        let attempt = attempt.to_string();
        loop {
            if let Some(worker) = self.early.remove(&attempt) {
                return worker;
            }
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let hello: Value = serde_json::from_str(&line).unwrap();
            self.early.insert(hello["attempt"].as_str().unwrap().to_owned(), Worker { link: stream, hello });
        }
    }

    pub(crate) fn folder(&self, attempt: AttemptId) -> PathBuf {
        self.config.machines.join(attempt.to_string())
    }

    /// The machine's state, as the holder wrote it.
    pub(crate) fn state(&self, attempt: AttemptId) -> Value {
        serde_json::from_slice(&fs::read(self.folder(attempt).join("state.json")).unwrap()).unwrap()
    }

    /// A bundle of a repository with one commit, and how it is asked for as `name`.
    pub(crate) fn bundle(&self, name: &str) -> WorkspaceSpec {
        let (folder, bundle) = (self.dir.path().join("repo"), self.dir.path().join("code.bundle"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("code.txt"), "one\n").unwrap();
        fs::create_dir(folder.join("src")).unwrap();
        fs::write(folder.join("src/deep.txt"), "two\n").unwrap();
        std::os::unix::fs::symlink("code.txt", folder.join("link")).unwrap();
        let git = |words: &[&str]| git(&folder, words);
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "one"]);
        git(&["update-ref", "refs/heads/base", "HEAD"]);
        git(&["bundle", "create", "--quiet", bundle.to_str().unwrap(), "refs/heads/base"]);
        let base = git(&["rev-parse", "HEAD"]);
        WorkspaceSpec {
            name: name.to_owned(),
            code: CodeSpec { id: sha256(&bundle), base, bundle },
            on: None,
        }
    }

    /// A small bundle, whose commit has `depth` levels of ten entries each, all the same, down to a file of `bytes`.
    pub(crate) fn bundle_of_copies(&self, depth: u32, bytes: usize) -> WorkspaceSpec {
        let (folder, bundle) = (self.dir.path().join("copies"), self.dir.path().join("copies.bundle"));
        fs::create_dir(&folder).unwrap();
        let ask = |words: &[&str], input: &str| git_of(&folder, words, input);
        ask(&["init", "--quiet"], "");
        let mut entry =
            "100644 blob ".to_owned() + &ask(&["hash-object", "-w", "--stdin"], &"x".repeat(bytes));
        for _ in 0..depth {
            let entries = (0..10).map(|name| format!("{entry}\t{name}\n")).collect::<Vec<_>>().concat();
            entry = "040000 tree ".to_owned() + &ask(&["mktree"], &entries);
        }
        let tree = entry.rsplit(' ').next().unwrap();
        let base = ask(&["commit-tree", "-m", "copies", tree], "");
        ask(&["update-ref", "refs/heads/base", &base], "");
        ask(&["bundle", "create", "--quiet", bundle.to_str().unwrap(), "refs/heads/base"], "");
        let code = CodeSpec { id: sha256(&bundle), base, bundle };
        WorkspaceSpec { name: "copies".to_owned(), code, on: None }
    }

    /// A bundle of some hundred bytes, whose one object says that it is a commit of 3 GiB.
    pub(crate) fn bundle_of_a_long_commit(&self) -> WorkspaceSpec {
        let (base, bundle) = ("1".repeat(40), self.dir.path().join("long.bundle"));
        let mut bytes = format!("# v2 git bundle\n{base} refs/heads/base\n\n").into_bytes();
        bytes.extend_from_slice(b"PACK\0\0\0\x02\0\0\0\x01");
        // A commit, with 4 and then 7 bits of its length at a time, the lowest first.
        bytes.extend_from_slice(&[0x90, 0x80, 0x80, 0x80, 0x60]);
        // Nothing, as zlib writes it, and a checksum that nobody comes to.
        bytes.extend_from_slice(&[0x78, 0x9c, 3, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(&[0; 20]);
        fs::write(&bundle, bytes).unwrap();
        let code = CodeSpec { id: sha256(&bundle), base, bundle };
        WorkspaceSpec { name: "long".to_owned(), code, on: None }
    }

    /// A bundle of one commit more, on top of that one.
    pub(crate) fn bundle_on(&self, below: &WorkspaceSpec) -> WorkspaceSpec {
        let (folder, bundle) = (self.dir.path().join("repo"), self.dir.path().join("more.bundle"));
        fs::write(folder.join("code.txt"), "changed\n").unwrap();
        fs::write(folder.join("new.txt"), "new\n").unwrap();
        let git = |words: &[&str]| git(&folder, words);
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "two"]);
        git(&["update-ref", "refs/heads/base", "HEAD"]);
        let without = format!("^{}", below.code.base);
        git(&["bundle", "create", "--quiet", bundle.to_str().unwrap(), "refs/heads/base", &without]);
        let base = git(&["rev-parse", "HEAD"]);
        WorkspaceSpec {
            name: below.name.clone(),
            code: CodeSpec { id: sha256(&bundle), base, bundle },
            on: Some(below.code.clone()),
        }
    }

    /// Destroys it, and looks that nothing is left.
    pub(crate) async fn destroy(&self, attempt: AttemptId) {
        let init = self.state(attempt)["init"]["pid"].as_i64();
        self.sandbox.destroy(attempt).await.unwrap();
        self.is_gone(attempt, init);
    }

    /// Whether neither a folder, nor a cgroup, nor the process `init` is left of the machine.
    pub(crate) fn is_gone(&self, attempt: AttemptId, init: Option<i64>) {
        assert!(!self.folder(attempt).exists());
        assert!(!self.config.machines.join(".making").join(attempt.to_string()).exists());
        assert_eq!(cgroups_of(attempt), Vec::<PathBuf>::new());
        if let Some(init) = init {
            assert!(!is_running(init), "the machine's first process");
        }
    }
}

/// What a failed test leaves would outlive it: that is what machines do.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let sandbox = Sandbox::new(self.config.clone());
        let clear = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for machine in sandbox.list().await.unwrap() {
                    sandbox.destroy(machine.attempt).await.unwrap();
                }
            });
        };
        let _ = std::thread::spawn(clear).join();
    }
}

/// Whether a process runs; a dead one that nobody has waited for does not.
pub(crate) fn is_running(pid: i64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

/// The folders of a machine's cgroups, wherever they are.
pub(crate) fn cgroups_of(attempt: AttemptId) -> Vec<PathBuf> {
    let name = format!("mayfly-{attempt}");
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                found.extend((entry.file_name() == *name).then(|| path.clone()));
                todo.push(path);
            }
        }
    }
    found
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn unique() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap()
}

fn git(folder: &Path, words: &[&str]) -> String {
    git_of(folder, words, "")
}

fn git_of(folder: &Path, words: &[&str], input: &str) -> String {
    use std::io::{Seek as _, Write as _};
    let mut stdin = tempfile::tempfile().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    stdin.rewind().unwrap();
    let mut command = std::process::Command::new("git");
    command.args(words).current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.com");
    }
    let output = command.stdin(stdin).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn sha256(path: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// A worker that said hello.
pub(crate) struct Worker {
    link: BufReader<UnixStream>,
    pub(crate) hello: Value,
}

impl Worker {
    /// Runs a shell command, which must succeed, and gives its output.
    pub(crate) async fn sh(&mut self, command: &str) -> String {
        let answer = self.try_sh(command).await;
        assert_eq!(answer["code"], 0, "{command}: {answer}");
        answer["out"].as_str().unwrap().trim().to_owned()
    }

    /// Runs a shell command: `{"code", "out", "err"}`.
    pub(crate) async fn try_sh(&mut self, command: &str) -> Value {
        self.order(&json!({ "sh": command })).await.unwrap()
    }

    pub(crate) async fn order(&mut self, order: &Value) -> Option<Value> {
        self.link.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        self.answer().await
    }

    /// The next line; `None` when the machine is gone.
    pub(crate) async fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.link.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        }
    }
}
