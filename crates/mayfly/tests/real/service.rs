//! `mayfly run` on its own: it starts its orchestrator, and another run joins it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mayfly_scripted_api::{Accepted, ScriptedApi};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::cancelling::{half_done, is_waiting};
use super::world::{Ended, PATH, Run, Said, git, processes_in};

/// The user's API key.
pub(crate) const CANARY: &str = "sk-ant-api03-canary-5e2c";

/// A user without an orchestrator.
pub(crate) struct User {
    pub(crate) api: ScriptedApi,
    pub(crate) dir: TempDir,
}

impl User {
    pub(crate) async fn new() -> Self {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let api = ScriptedApi::start_paced(loopback, Accepted::ApiKey(CANARY.to_owned()), 0.0).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cwd")).unwrap();
        Self { api, dir }
    }

    /// `mayfly` with an API key, in a folder that is no repository.
    pub(crate) fn command(&self, program: &Path, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path().join("cwd"));
        command.env("ANTHROPIC_API_KEY", CANARY).env("ANTHROPIC_BASE_URL", self.api.base_url());
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Makes a repository of the current folder.
    pub(crate) fn make_repository(&self) {
        self.git(&["init", "-q", "-b", "main"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
    }

    /// git in the current folder.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        git(self.dir.path(), &self.dir.path().join("cwd"), args)
    }

    /// Checks that a run of one agent was told whole and its branch has `file`; then ends the orchestrator,
    /// after which nothing is left.
    pub(crate) fn end_with_branch_of(&self, ended: &Ended, file: &str) {
        ended.assert_whole();
        assert_eq!(ended.own("started").count(), 1);
        let branch = self.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
        self.git(&["cat-file", "-e", &format!("{branch}:{file}")]);
        end(self.orchestrator(), Signal::TERM);
        assert_eq!(processes_in(self.dir.path()).len(), 0);
    }

    async fn run(&self, claude: &Path, prompt: &str) -> Output {
        let claude = claude.to_str().unwrap();
        let mut command =
            self.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["--claude", claude, "run", prompt]);
        command.output().await.unwrap()
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join(".local/share/mayfly")
    }

    pub(crate) fn orchestrator(&self) -> Pid {
        let pid = fs::read_to_string(self.data().join("lock")).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_starts_an_orchestrator_and_the_next_one_joins_it() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let first = user.run(&claude, "[script: write path=made.txt] Make a file").await;
    let text = String::from_utf8_lossy(&first.stdout);
    assert!(first.status.success(), "{text}{}", String::from_utf8_lossy(&first.stderr));
    // Without a repository the work becomes a new one, in the current folder.
    let made: Vec<_> =
        fs::read_dir(user.dir.path().join("cwd")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [folder] = &made[..] else { panic!("{made:?}") };
    assert!(folder.file_name().unwrap().to_str().unwrap().starts_with("mayfly-"), "{folder:?}");
    assert!(folder.join("made.txt").is_file());

    let orchestrator = user.orchestrator();
    let second = user.run(&claude, "[script: text]").await;
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(user.orchestrator(), orchestrator);
    // S32: neither the database nor any other file has the credential.
    let hits = Command::new("grep").args(["-rlae", CANARY]).arg(user.dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&hits.stdout), "");
    // S14: nor has its environment.
    let environment = fs::read(format!("/proc/{}/environ", orchestrator.as_raw_nonzero())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(CANARY));

    end(orchestrator, Signal::TERM);
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// What `run` needs, and the orchestrator that it starts in the background: both have it from one file.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_holds_in_the_background_too() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let data = user.dir.path().join("elsewhere");
    let file = user.dir.path().join(".config/mayfly/mayfly.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let (claude, folder) = (claude.display(), data.display());
    let text = format!(
        "claude = \"{claude}\"\ndata = \"{folder}\"\n[serve]\nidle_exit = \"5m\"\n[machine]\nprocesses = 100\n"
    );
    fs::write(&file, text).unwrap();
    let prompt = "[script: bash command=\"ulimit -u > limit.txt\"]";
    let ran = user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["run", prompt]).output().await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let made = fs::read_dir(user.dir.path().join("cwd")).unwrap().next().unwrap().unwrap().path();
    // One more than its cgroup lets it have.
    assert_eq!(fs::read_to_string(made.join("limit.txt")).unwrap(), "101\n");

    let pid = fs::read_to_string(data.join("lock")).unwrap();
    let orchestrator = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let started = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap();
    assert!(started.contains(&format!("--config\0{}", file.display())), "{started:?}");
    assert!(!started.contains("--idle-exit"), "{started:?}");
    end(orchestrator, Signal::TERM);
    user.api.stop().await;
}

/// R01, R03: the machine goes on, the next orchestrator adopts it, and who followed it still does.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_orchestrator_is_taken_up_again() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let program = Path::new(env!("CARGO_BIN_EXE_mayfly"));
    let prompt = half_done();
    let args = ["--claude", claude.to_str().unwrap(), "run", "--json", &prompt];
    let mut run = Run::start(user.command(program, &args));
    run.until_event(is_waiting).await;
    end(user.orchestrator(), Signal::KILL);
    let other = user.run(&claude, "[script: text]").await;
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
    run.signal(Signal::INT);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(130), "cancelled"), "{}", ended.stderr);
    assert_eq!(ended.own("started").count(), 1);
    ended.assert_whole();
    let made =
        fs::read_dir(user.dir.path().join("cwd")).unwrap().next().expect("the work came back").unwrap();
    assert_eq!(fs::read_to_string(made.path().join("half.txt")).unwrap(), "half\n");
    end(user.orchestrator(), Signal::TERM);
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// R01, R03: nobody but the run itself is there to start the next orchestrator.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_starts_the_next_orchestrator_and_brings_the_branch_home() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    user.make_repository();
    let steps = json!([
        {"tools": [{"name": "Write", "input": {"file_path": "{cwd}/made.txt", "content": "made\n"}}]},
        {"text": "done", "hold": "answer"},
    ]);
    let prompt = format!("[script: steps list={steps}]");
    let args = ["--claude", claude.to_str().unwrap(), "run", "--json", &prompt];
    let run = Run::start(user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &args));
    user.api.held("answer", 1).await;
    let first = user.orchestrator();
    end(first, Signal::KILL);
    user.api.release("answer");
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    assert_eq!(
        ended.stderr.matches("the orchestrator had ended; started it again").count(),
        1,
        "{}",
        ended.stderr
    );
    assert_ne!(user.orchestrator(), first);
    user.end_with_branch_of(&ended, "made.txt");
    user.api.stop().await;
}

/// R01, R03: at a moment from which on it is the results that have to be fetched.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_dies_at_the_end_of_a_task_costs_nothing() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    user.make_repository();
    let args = ["--claude", claude.to_str().unwrap(), "run", "--json", "[script: write path=made.txt]"];
    let mut run = Run::start(user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &args));
    run.until_event(|event| event["line"]["type"] == "result").await;
    end(user.orchestrator(), Signal::KILL);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the orchestrator had ended; started it again"), "{}", ended.stderr);
    user.end_with_branch_of(&ended, "made.txt");
    user.api.stop().await;
}

/// R01, R32: cancelling is a call like any other.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_without_an_orchestrator_still_ends_the_machine_with_its_work() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    user.make_repository();
    let prompt = half_done();
    let args = ["--claude", claude.to_str().unwrap(), "run", "--json", &prompt];
    let mut run = Run::start(user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &args));
    run.until_event(is_waiting).await;
    end(user.orchestrator(), Signal::KILL);
    run.signal(Signal::INT);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(130), "cancelled"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the orchestrator had ended; started it again"), "{}", ended.stderr);
    user.end_with_branch_of(&ended, "half.txt");
    user.api.stop().await;
}

/// G10, R03: the orchestrator dies while the model thinks; the CLI asks again, and is held until the next one is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_call_outlives_its_orchestrator() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let program = Path::new(env!("CARGO_BIN_EXE_mayfly"));
    let args =
        ["--claude", claude.to_str().unwrap(), "run", "--json", "[script: hold name=call text=answered]"];
    let run = Run::start(user.command(program, &args));
    user.api.held("call", 1).await;
    end(user.orchestrator(), Signal::KILL);
    user.api.release("call");
    // The run starts the next one.
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome()), (Some(0), ("succeeded", "")), "{}", ended.stderr);
    assert_eq!(ended.own("started").count(), 1);
    let retries = ended.claude_lines().filter(|line| line["subtype"] == "api_retry").count();
    let requests = user.api.requests();
    let calls: Vec<_> =
        requests.iter().filter(|request| request.scenario.as_deref() == Some("hold")).collect();
    assert_eq!((retries, calls.len()), (1, 2), "one is cut, and the CLI's own retry is held");
    assert_eq!(calls[0].body["messages"], calls[1].body["messages"]);
    end(user.orchestrator(), Signal::TERM);
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// Nobody is left that knows of the task but the data folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_taken_long_after_everybody_is_gone() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let verb = async |args: &[&str]| {
        let claude = ["--claude", claude.to_str().unwrap()];
        let mut command = user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &[&claude, args].concat());
        Said::from(command.output().await.unwrap())
    };
    let submitted = verb(&["run", "--detach", "[script: write path=made.txt]"]).await.text();
    let task = submitted.split_once(' ').unwrap().0;
    verb(&["logs", task, "--follow"]).await.text();
    end(user.orchestrator(), Signal::TERM);
    let nobody = verb(&["ps"]).await;
    assert_eq!(nobody.code, Some(3));
    assert!(
        nobody.stderr.contains("no orchestrator runs") && nobody.stderr.contains("`mayfly serve`"),
        "{nobody:?}"
    );
    let diff = verb(&["result", task, "--diff"]).await.text();
    assert!(diff.contains("--- /dev/null\n+++ b/made.txt"), "{diff}");
    let taken = verb(&["result", task, "--branch", "here"]).await.text();
    assert!(user.dir.path().join("cwd/here/made.txt").is_file(), "{taken}");
    assert!(
        verb(&["result", task, "--branch", "here"]).await.refusal().contains("/cwd/here` is there already")
    );
    assert!(verb(&["ps", "--all"]).await.text().contains("  succeeded  "));
    end(user.orchestrator(), Signal::TERM);
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// One that was started by hand, on a folder of its own, is the one that every verb talks to.
#[tokio::test(flavor = "multi_thread")]
async fn every_verb_joins_an_orchestrator_that_was_started_by_hand() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let data = user.dir.path().join("data");
    let (program, data_arg) = (Path::new(env!("CARGO_BIN_EXE_mayfly")), data.to_str().unwrap());
    let claude = claude.to_str().unwrap();
    let serve = ["--claude", claude, "serve", "--listen", "127.0.0.1:0", "--data", data_arg];
    let mut serve = user.command(program, &serve).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("serving on "));
    let pid = Pid::from_raw(serve.id().unwrap().cast_signed()).unwrap();

    // None of them could start one: there is no such CLI.
    let verb = async |args: &[&str]| {
        let args = [&["--claude", "/nowhere"], args, &["--data", data_arg]].concat();
        Said::from(user.command(program, &args).output().await.unwrap())
    };
    let submitted = verb(&["run", "--detach", "[script: write path=made.txt]", &half_done()]).await.text();
    let tasks: Vec<&str> = submitted.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    verb(&["logs", tasks[0], "--follow"]).await.text();
    assert!(verb(&["ps"]).await.text().contains(tasks[1]));
    assert!(verb(&["cancel", tasks[1], "--force"]).await.text().contains("  cancelled  "));
    assert!(verb(&["result", tasks[0]]).await.text().contains(&format!("--branch --data {data_arg}")));
    verb(&["retry", tasks[0]]).await.text();
    assert_eq!(fs::read_to_string(data.join("lock")).unwrap().trim(), serve.id().unwrap().to_string());
    assert!(!user.data().exists());
    pidfd_send_signal(pidfd_open(pid, PidfdFlags::empty()).unwrap(), Signal::TERM).unwrap();
    assert!(serve.wait().await.unwrap().success());
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// Ends a process, and waits until it is gone.
pub(crate) fn end(process: Pid, signal: Signal) {
    let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&process, signal).unwrap();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
}

/// The whole demo as a user without any right.
#[tokio::test(flavor = "multi_thread")]
async fn a_normal_user_needs_no_right_for_the_demo() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    if !rustix::process::geteuid().is_root() {
        mayfly_test_needs::skip("the other tests run as a normal user already");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let open =
        |path: &Path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    open(dir.path());
    // The build folder and the cache may be in a place that only root can enter.
    for (from, to) in [(Path::new(env!("CARGO_BIN_EXE_mayfly")), "mayfly"), (&claude, "claude")] {
        let to = dir.path().join(to);
        fs::copy(from, &to).unwrap();
        open(&to);
    }
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(54_321), Some(54_321)).unwrap();
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]).arg(dir.path().join("mayfly"));
    command.arg("--claude").arg(dir.path().join("claude")).arg("demo");
    command.env_clear().env("PATH", PATH).env("HOME", &home).env("TMPDIR", &home).current_dir(&home);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches(" merge mayfly/").count(), 4, "{text}");
    assert!(text.contains("0 machines left"), "{text}");
    assert_eq!(processes_in(dir.path()).len(), 0);
}

/// A disk that is full: said in words, with an exit code, and nothing half done.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    if !rustix::process::geteuid().is_root() {
        mayfly_test_needs::skip("only root can mount a small disk, in a mount namespace of its own");
        return;
    }
    // Too little for the queue itself, and enough for that but not for a task.
    for (size, words) in [("64k", "full"), ("20m", "free some space")] {
        let user = User::new().await;
        let small = user.dir.path().join("small");
        fs::create_dir(&small).unwrap();
        let script = r#"mount -t tmpfs -o size="$4" tmpfs "$1" || exit 99
            "$2" --claude "$3" run --data "$1/data" "[script: text]"; code=$?
            kill "$(cat "$1/data/lock")" 2>/dev/null; exit $code"#;
        let mut command = user.command(Path::new("unshare"), &["--mount", "sh", "-c", script, "sh"]);
        command.arg(&small).arg(env!("CARGO_BIN_EXE_mayfly")).arg(&claude).arg(size);
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{size}: {text}");
        assert!(text.contains(words), "{size}: {text}");
        assert_eq!(user.api.requests().len(), 0);
    }
}

/// Where no task is accepted there is nothing to look at, and nothing is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_has_no_room_leaves_nothing() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    if !rustix::process::geteuid().is_root() {
        mayfly_test_needs::skip("only root can mount a small disk, in a mount namespace of its own");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let script = r#"mount -t tmpfs -o size=20m tmpfs "$1" || exit 99
        TMPDIR="$1" "$2" --claude "$3" demo; code=$?; ls -A "$1"; exit $code"#;
    let mut command = tokio::process::Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&small)
        .arg(env!("CARGO_BIN_EXE_mayfly"))
        .arg(claude);
    let output = command.env_clear().env("PATH", PATH).env("HOME", dir.path()).output().await.unwrap();
    let (said, refused) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*said), (Some(3), ""), "{refused}");
    assert!(refused.contains("free some space"), "{refused}");
}
