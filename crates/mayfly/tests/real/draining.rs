//! `mayfly serve` is asked to stop: what runs may end, what waits is not begun, and what is left goes on.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout};

use super::service::{User, end};
use super::world::{Run, processes_in};

/// In this time one is gone that waits for a second at most, and for 3 s to hang up; twice that, on a busy machine.
const LEFT_MAX: Duration = Duration::from_secs(8);

/// A `mayfly serve` in the foreground.
pub(crate) struct Serving {
    child: Child,
    /// It says more there.
    _stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Serving {
    /// Starts one, and waits until it is ready.
    pub(crate) async fn start(user: &User, claude: &Path, args: &[&str]) -> Self {
        let mut command =
            user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["serve", "--listen", "127.0.0.1:0"]);
        command.env("MAYFLY_LOG", "off").arg("--claude").arg(claude).args(args).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut ready).await.unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        if !ready.starts_with("serving on ") {
            stderr.read_to_string(&mut ready).await.unwrap();
            panic!("{ready}");
        }
        Self { child, _stdout: stdout, stderr }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The next line of its standard error.
    async fn says(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for its end; what it still said.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).await.unwrap();
        (self.child.wait().await.unwrap().code(), rest)
    }
}

fn run(user: &User, claude: &Path, prompt: &str) -> Run {
    let args = ["--claude", claude.to_str().unwrap(), "run", "--json", prompt];
    Run::start(user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &args))
}

/// R25, G10: nothing new is begun, and what runs ends first.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_asked_to_stop_lets_its_tasks_end_and_begins_no_other() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let mut serving = Serving::start(&user, &claude, &["--parallel", "1", "--drain", "2m"]).await;
    let first = run(&user, &claude, "[script: hold name=first]");
    user.api.held("first", 1).await;
    let mut second = run(&user, &claude, "[script: hold name=second]");
    second.until("queued").await;
    serving.signal(Signal::TERM);
    assert_eq!(
        serving.says().await,
        "draining: 1 task runs; waiting up to 120s, and 3s to hang up; once more stops now"
    );
    user.api.release("first");
    assert_eq!(serving.end().await, (Some(0), String::new()));
    // The runs start the next one, which has the result of the first and begins the second.
    user.api.held("second", 1).await;
    user.api.release("second");
    for run in [first, second] {
        let ended = run.end().await;
        assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
        assert_eq!(ended.own("started").count(), 1);
    }
    assert_eq!(user.api.requests().len(), 2, "nothing was cut");
    end(user.orchestrator(), Signal::TERM);
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// R25, G10: what does not end in time, or is not waited for, is lost neither.
#[tokio::test(flavor = "multi_thread")]
async fn machines_that_are_left_are_taken_over_by_the_next_server() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    for (args, signals) in [
        (&["--drain", "1h"][..], &[Signal::TERM, Signal::INT][..]),
        (&["--drain", "1s", "--idle-exit", "1h"], &[Signal::INT]),
    ] {
        let user = User::new().await;
        let mut serving = Serving::start(&user, &claude, args).await;
        let held = run(&user, &claude, "[script: hold name=answer]");
        user.api.held("answer", 1).await;
        let begun = Instant::now();
        serving.signal(signals[0]);
        assert!(serving.says().await.starts_with("draining: 1 task runs; "));
        signals[1..].iter().for_each(|&signal| serving.signal(signal));
        let left = "1 machine goes on; the next `mayfly serve` takes it over\n";
        assert_eq!(serving.end().await, (Some(0), left.to_owned()));
        assert!(begun.elapsed() < LEFT_MAX, "{:?}", begun.elapsed());
        user.api.release("answer");
        let ended = held.end().await;
        assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
        assert_eq!(ended.own("started").count(), 1);
        end(user.orchestrator(), Signal::TERM);
        assert_eq!(processes_in(user.dir.path()).len(), 0);
        user.api.stop().await;
    }
}
