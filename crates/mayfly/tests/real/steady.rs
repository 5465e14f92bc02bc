//! Agents that write steadily while their orchestrator is killed, is stopped, or has a neighbour that floods it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use mayfly_client::Client;
use rustix::process::Signal;
use serde_json::Value;

use super::draining::Serving;
use super::service::User;
use super::world::{Ended, Run, Said, processes_in};

/// Lines of this many bytes.
const LINE_BYTES: usize = 1000;
/// So many at once, ten times a second: 1 MB/s.
const BURST: usize = 100;
const BURSTS: usize = 80;
/// How many are heard of each before the orchestrator is killed.
const HEARD: usize = 3 * BURST;
/// The tasks that are under way.
const TASKS: usize = 5;
/// What one who says little says.
const TICKS: usize = 200;
/// What a flood may cost besides, where nothing is optimised and two processors are busy with other tests as well.
const BUSY: Duration = Duration::from_secs(1);
/// In this time the next orchestrator is ready. It takes a tenth of a second where nothing is optimised and two processors
/// are busy with other tests.
const READY_MAX: Duration = Duration::from_secs(2);

/// Says what it runs with as `claude` does, and then does what the prompt names. Its pauses are the load, and nobody
/// waits for them.
const SCRIPT: &str = r#"
while [ $# -gt 0 ]; do
    case $1 in --version) echo '2.1.330 (Claude Code)'; exit ;; esac
    case $1 in --session-id) session=$2 ;; --permission-mode) mode=$2 ;; esac
    shift
done
printf '{"type":"system","subtype":"init","cwd":"%s","session_id":"%s","tools":[],"mcp_servers":[],' "$PWD" "$session"
printf '"model":"claude-sonnet-5-5","permissionMode":"%s","claude_code_version":"2.1.330"}\n' "$mode"
read -r _
read -r prompt
burst=0
case $prompt in
*steady*)
    while [ $burst -lt 80 ]; do
        seq -f '%0999.0f' $((burst * 100)) $((burst * 100 + 99))
        burst=$((burst + 1)); sleep 0.1
    done ;;
*now-and-then*) while [ $burst -lt 200 ]; do echo '"tick"'; burst=$((burst + 1)); sleep 0.02; done ;;
*silent-flood*) exec yes '' > /dev/null ;;
*tiny-lines*) exec yes '' ;;
*stdout-flood*) exec yes "$(head -c 999 /dev/zero | tr '\0' x)" ;;
*stderr-flood*) exec yes complaint >&2 ;;
esac
echo '{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed"}'
cat > /dev/null
"#;

/// The last line that it writes.
const RESULT: &[u8] =
    b"{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"terminal_reason\":\"completed\"}\n";

/// A program in `folder` that runs the script: a machine takes no other `claude` than a native one.
fn native(folder: &Path) -> PathBuf {
    let (source, claude) = (folder.join("claude.c"), folder.join("claude"));
    let text = format!(
        r#"#include <unistd.h>
        int main(int count, char **given) {{
            char *args[count + 4];
            args[0] = "sh", args[1] = "-c", args[2] = {SCRIPT:?};
            for (int n = 0; n <= count; n++) args[n + 3] = given[n];
            return execv("/bin/sh", args);
        }}"#
    );
    fs::write(&source, text).unwrap();
    let compiled = Command::new("cc").args(["-w", "-o"]).arg(&claude).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    claude
}

/// What the steady one writes between its first line and its last.
fn steady() -> Vec<u8> {
    (0..BURST * BURSTS).flat_map(|n| format!("{n:0width$}\n", width = LINE_BYTES - 1).into_bytes()).collect()
}

/// A user whose `claude` is that one.
struct Owner {
    user: User,
    claude: PathBuf,
}

impl Owner {
    /// `None`: machines are only there where the tests of the real one run.
    async fn new() -> Option<Self> {
        mayfly_test_needs::claude()?;
        let user = User::new().await;
        let claude = native(user.dir.path());
        Some(Self { user, claude })
    }

    async fn serve(&self) -> Serving {
        Serving::start(&self.user, &self.claude, &[]).await
    }

    fn command(&self, args: &[&str]) -> tokio::process::Command {
        self.user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), args)
    }

    /// A task that nobody follows; its id.
    async fn leave(&self, prompt: &str) -> String {
        let said = Said::from(self.command(&["run", "--detach", prompt]).output().await.unwrap()).text();
        said.split_once(' ').unwrap().0.to_owned()
    }

    fn follow(&self, task: &str) -> Run {
        Run::start(self.command(&["logs", task, "--json", "--follow"]))
    }

    /// Hears so many lines of a task; the session of its `claude`.
    async fn hear(&self, task: &str, lines: usize) -> PathBuf {
        let mut follow = self.follow(task);
        let init = follow.until_event(|event| event["line"]["subtype"] == "init").await;
        for _ in 0..lines {
            follow.until_event(|event| event["source"] == "claude").await;
        }
        init["line"]["session_id"].as_str().unwrap().into()
    }

    /// Checks that the log of a steady one has what it wrote, and nothing else but its first line.
    async fn assert_whole(&self, task: &str) {
        let raw = self.command(&["logs", "--raw", task]).output().await.unwrap().stdout;
        let first = raw.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert!(raw[first..] == [&steady()[..], RESULT].concat(), "{} bytes", raw.len());
    }

    async fn end(self, serving: Serving) {
        serving.signal(Signal::TERM);
        assert_eq!(serving.end().await.0, Some(0));
        assert_eq!(processes_in(self.user.dir.path()).len(), 0);
        self.user.api.stop().await;
    }
}

/// The number on this host of the `claude` with this session: of those that name it, the first.
fn process(session: &Path) -> u32 {
    *processes_in(session).first().expect("it runs")
}

/// The worker that started it.
fn worker_of(session: &Path) -> rustix::process::Pid {
    let status = fs::read_to_string(format!("/proc/{}/status", process(session))).unwrap();
    let worker = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    rustix::process::Pid::from_raw(worker).unwrap()
}

fn assert_ran_once(ended: &Ended) {
    assert_eq!(ended.outcome(), ("succeeded", ""), "{}", ended.stderr);
    ended.assert_whole();
    assert_eq!(ended.own("started").count(), 1);
}

/// R03: the agents go on as the processes that they are, and of what they write nothing is lost or told twice.
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_write_a_megabyte_a_second_outlive_their_orchestrator() {
    let Some(owner) = Owner::new().await else { return };
    let killed = owner.serve().await;
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        tasks.push(owner.leave("steady").await);
    }
    let sessions = join_all(tasks.iter().map(|task| owner.hear(task, HEARD))).await;
    let processes = || sessions.iter().map(|session| process(session)).collect::<Vec<u32>>();
    let before = processes();
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().await.0, None);
    let begun = Instant::now();
    let next = owner.serve().await;
    assert!(begun.elapsed() < READY_MAX, "ready after {:?}", begun.elapsed());
    assert_eq!(processes(), before, "the very processes");
    for task in &tasks {
        assert_ran_once(&owner.follow(task).end().await);
        owner.assert_whole(task).await;
    }
    owner.end(next).await;
}

/// R21, R23: one that stands still has its folder, so that nobody takes its place, and goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_stands_still_is_replaced_by_nobody() {
    let Some(owner) = Owner::new().await else { return };
    let serving = owner.serve().await;
    let task = owner.leave("steady").await;
    let session = owner.hear(&task, HEARD).await;
    let before = process(&session);
    serving.signal(Signal::STOP);
    let mut second = owner.command(&["serve", "--listen", "127.0.0.1:0", "--claude"]);
    let second = Said::from(second.arg(&owner.claude).output().await.unwrap());
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains("already serves"), "{}", second.stderr);
    assert_eq!(process(&session), before);
    serving.signal(Signal::CONT);
    assert_ran_once(&owner.follow(&task).end().await);
    owner.assert_whole(&task).await;
    owner.end(serving).await;
}

/// R23: a worker that stands still for a while is the same one afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_goes_on_as_the_same() {
    let Some(owner) = Owner::new().await else { return };
    let serving = owner.serve().await;
    let (task, other) = (owner.leave("steady").await, owner.leave("now-and-then").await);
    let session = owner.hear(&task, HEARD).await;
    let worker = worker_of(&session);
    rustix::process::kill_process(worker, Signal::STOP).unwrap();
    // Meanwhile all of another task comes, and the agent of this one fills its pipe.
    assert_ran_once(&owner.follow(&other).end().await);
    rustix::process::kill_process(worker, Signal::CONT).unwrap();
    assert_ran_once(&owner.follow(&task).end().await);
    owner.assert_whole(&task).await;
    owner.end(serving).await;
}

/// R04: a machine ends with its worker; what was said until then is kept, and is no success.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_makes_no_success_and_loses_nothing_that_was_kept() {
    let Some(owner) = Owner::new().await else { return };
    let serving = owner.serve().await;
    let task = owner.leave("steady").await;
    let session = owner.hear(&task, HEARD).await;
    rustix::process::kill_process(worker_of(&session), Signal::KILL).unwrap();
    let ended = owner.follow(&task).end().await;
    assert_eq!(ended.outcome().0, "lost", "{}", ended.stderr);
    ended.assert_whole();
    assert_eq!(ended.own("started").count(), 1, "it is not run again");
    let raw = owner.command(&["logs", "--raw", &task]).output().await.unwrap().stdout;
    let first = raw.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(steady().starts_with(&raw[first..]) && raw.len() > first, "{} bytes", raw.len());
    owner.end(serving).await;
}

/// How late the lines of one who says little are heard here, by their times: all but the latest in a hundred.
async fn delay(owner: &Owner, task: &str) -> Duration {
    let mut events = Client::new(&owner.user.data().join("api.sock")).events(task, 0);
    let mut delays = Vec::new();
    while let Some(line) = events.next().await.unwrap() {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["line"] == "tick" {
            let at: Timestamp = event["at"].as_str().unwrap().parse().unwrap();
            delays.push(Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default());
        }
    }
    assert_eq!(delays.len(), TICKS);
    delays.sort_unstable();
    delays[TICKS * 99 / 100]
}

/// The same beside another task that runs meanwhile.
async fn delay_beside(owner: &Owner, other: &str) -> Duration {
    let other = owner.leave(other).await;
    owner.follow(&other).until_event(|event| event["event"]["type"] == "ready").await;
    let beside = delay(owner, &owner.leave("now-and-then").await).await;
    let cancelled = owner.command(&["cancel", "--force", &other]).output().await.unwrap();
    assert!(cancelled.status.success(), "{}", String::from_utf8_lossy(&cancelled.stderr));
    beside
}

/// S37: whatever floods the orchestrator, its neighbours are heard about as soon as beside an agent that takes as much
/// of the processors and says nothing. `benches/flood.rs` tells the figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_makes_no_neighbour_late() {
    let Some(owner) = Owner::new().await else { return };
    let serving = owner.serve().await;
    let quiet = delay_beside(&owner, "silent-flood").await;
    for flood in ["stdout-flood", "tiny-lines", "stderr-flood"] {
        let beside = delay_beside(&owner, flood).await;
        assert!(beside < quiet * 2 + BUSY, "{flood}: {beside:?}, and beside a quiet one {quiet:?}");
    }
    owner.end(serving).await;
}
