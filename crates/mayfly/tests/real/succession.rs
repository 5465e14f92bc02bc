//! One orchestrator follows another on a data folder: what it is like, and who gives way.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::draining::Serving;
use super::service::{User, end};
use super::world::{Run, Said, processes_in};

const MAYFLY: &str = env!("CARGO_BIN_EXE_mayfly");

async fn verb(user: &User, claude: &Path, args: &[&str]) -> Said {
    let claude = ["--claude", claude.to_str().unwrap()];
    Said::from(user.command(Path::new(MAYFLY), &[&claude, args].concat()).output().await.unwrap())
}

fn run(user: &User, claude: &Path, prompt: &str) -> Run {
    let args = ["--claude", claude.to_str().unwrap(), "run", "--json", prompt];
    Run::start(user.command(Path::new(MAYFLY), &args))
}

/// The words by which the orchestrator of `user` was started.
fn words(user: &User) -> String {
    let pid = user.orchestrator().as_raw_nonzero();
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().replace('\0', " ")
}

/// G7: how many there may be, and what each may use, is the last orchestrator's word, whatever became of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_keeps_to_the_limits_of_the_last_orchestrator() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    for signal in [Signal::KILL, Signal::TERM] {
        let user = User::new().await;
        let limits = ["--parallel", "1", "--memory", "700MiB", "--drain", "1s"];
        let serving = Serving::start(&user, &claude, &limits).await;
        let first = run(&user, &claude, "[script: hold name=first]");
        user.api.held("first", 1).await;
        let mut second = run(&user, &claude, "[script: hold name=second]");
        second.until("queued").await;
        let before = user.orchestrator();
        end(before, signal);
        drop(serving);
        user.api.release("first");
        let ended = first.end().await;
        assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
        let mut told = ended.stderr;
        user.api.held("second", 1).await;
        assert_ne!(user.orchestrator(), before);
        // One that its user ended has no port any more.
        let settings = fs::read_to_string(user.data().join("in-force.toml")).unwrap();
        assert!(settings.contains("parallel = 1\n") && settings.contains("\"700MiB\""), "{settings}");
        assert_eq!(settings.contains("listen = \"127.0.0.1:"), signal == Signal::KILL, "{settings}");
        let listed = verb(&user, &claude, &["ps", "--json"]).await.text();
        let task: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        assert_eq!(task["limits"]["memory_bytes"], 700 << 20, "{task}");
        user.api.release("second");
        let ended = second.end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        // One of the two started it, and says what became of the last one.
        told.push_str(&ended.stderr);
        let words = ["started it again", "was ended by its user"].map(|words| told.contains(words));
        assert_eq!(words, [signal == Signal::KILL, signal == Signal::TERM], "{told}");
        end(user.orchestrator(), Signal::TERM);
        let left = ["in-force.toml", "ended.toml"].map(|name| user.data().join(name).exists());
        assert_eq!(left, [false; 2], "nothing is left to do");
        assert_eq!(processes_in(user.dir.path()).len(), 0);
        user.api.stop().await;
    }
}

/// Who runs it in sight has the last word, and no machine notices.
#[tokio::test(flavor = "multi_thread")]
async fn one_in_the_background_gives_way_to_one_by_hand() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let held = run(&user, &claude, "[script: hold name=answer]");
    user.api.held("answer", 1).await;
    assert!(words(&user).contains(" serve --background "), "{}", words(&user));
    let serving = Serving::start(&user, &claude, &["--parallel", "1"]).await;
    assert!(words(&user).contains(" --parallel 1"), "{}", words(&user));
    user.api.release("answer");
    let ended = held.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    assert_eq!(ended.own("started").count(), 1);
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().await, (Some(0), String::new()));
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// A second one by hand is refused, and the first does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn one_by_hand_gives_way_to_nobody() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let serving = Serving::start(&user, &claude, &[]).await;
    let refused = verb(&user, &claude, &["serve", "--listen", "127.0.0.1:0"]).await;
    assert!(refused.code == Some(3) && refused.stderr.contains("already serves"), "{refused:?}");
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().await, (Some(0), String::new()));
    user.api.stop().await;
}
