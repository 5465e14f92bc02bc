//! `mayfly demo`, as a newcomer runs it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::process::{ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::world::{PATH, Run, assert_no_cgroup_of, assert_no_mount_in, most_at_once, processes_in};

/// The demo, in a folder of its own.
fn command(args: &[&str]) -> Option<(tokio::process::Command, TempDir)> {
    let claude = mayfly_test_needs::claude()?;
    let dir = tempfile::tempdir().unwrap();
    let (home, temporary) = (dir.path().join("home"), dir.path().join("tmp"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.env_clear().env("PATH", PATH).env("HOME", &home).env("TMPDIR", &temporary);
    command.arg("--claude").arg(claude).arg("demo").args(args).stdin(Stdio::null());
    Some((command, dir))
}

/// Runs the demo, with what it printed.
async fn demo(args: &[&str]) -> Option<(std::process::Output, TempDir)> {
    let (mut command, dir) = command(args)?;
    Some((command.output().await.unwrap(), dir))
}

/// On a terminal: while they run each has a line that says what it does, and then the lines about the ends are
/// all that is left.
#[tokio::test(flavor = "multi_thread")]
async fn five_agents_end_with_their_branches_and_no_machine() {
    let Some((command, dir)) = command(&[]) else { return };
    let Some(terminal) = Terminal::run(command).await else { return };
    let text = lines(&terminal.screen).join("\n");
    assert!(terminal.status.success(), "{text}");
    assert_eq!(text.matches(" merge mayfly/").count(), 4, "{text}");
    assert_eq!(text.matches("no changes").count(), 1, "the review is read-only: {text}");
    assert!(text.contains("0 machines left"), "{text}");
    // Its temporary data is gone, the repository with the branches is there.
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join("tmp")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].to_string_lossy().starts_with("mayfly-demo-"), "{left:?}");
    assert_eq!(processes_in(dir.path()).len(), 0);

    let ends: Vec<&str> = text.lines().filter(|line| line.contains("succeeded  ")).collect();
    assert_eq!(ends.len(), 5, "{text}");
    for end in ends {
        let figures = ["s  ", " turns  ", "$0."];
        assert!(figures.iter().all(|figure| end.contains(figure)), "{end}");
        let short = end.split(' ').next().unwrap();
        let at_work = |line: &String| line.contains(short) && line.contains("  running  ");
        assert!(terminal.at_work.iter().any(at_work), "{short} in {:?}", terminal.at_work);
    }
    let screen = terminal.screen.screen();
    assert!(!screen.hide_cursor() && screen.cursor_position().1 == 0, "{:?}", screen.cursor_position());
    assert!(!text.contains(is_spinner), "{text}");
}

/// What became of a command whose standard output and error were a terminal.
struct Terminal {
    status: ExitStatus,
    /// What is shown at the end.
    screen: vt100::Parser,
    /// Lines of the view as they were seen, of agents that have called a tool.
    at_work: BTreeSet<String>,
}

impl Terminal {
    /// Runs it on a terminal that is high enough for all that it says.
    async fn run(mut command: tokio::process::Command) -> Option<Self> {
        const SIZE: (u16, u16) = (400, 300);
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let Ok(ours) = openpt(flags) else {
            mayfly_test_needs::skip("there are no pseudo-terminals here");
            return None;
        };
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        tcsetwinsize(&theirs, Winsize { ws_row: SIZE.0, ws_col: SIZE.1, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
        command.env("TERM", "xterm-256color").stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let mut child = command.spawn().unwrap();
        // It ends for us when the last of them has closed it.
        drop(command);
        let watch = tokio::task::spawn_blocking(move || watch(File::from(ours), SIZE));
        let (screen, at_work) = watch.await.unwrap();
        Some(Self { status: child.wait().await.unwrap(), screen, at_work })
    }
}

fn watch(mut terminal: File, (rows, columns): (u16, u16)) -> (vt100::Parser, BTreeSet<String>) {
    let mut screen = vt100::Parser::new(rows, columns, 0);
    let (mut at_work, mut chunk) = (BTreeSet::new(), [0; 8 * 1024]);
    // A terminal whose other end was closed gives an error.
    while let Ok(read) = terminal.read(&mut chunk) {
        screen.process(&chunk[..read]);
        let lines = lines(&screen).into_iter().filter(|line| line.starts_with(is_spinner));
        // Such as `⠙   4s 1a2b3c4d fix the bug  running  3 turns  Edit src/greet.sh`.
        let full = |line: &String| line.split("  ").filter(|part| !part.trim().is_empty()).count() >= 5;
        at_work.extend(lines.filter(full));
    }
    (screen, at_work)
}

/// What is shown, line by line. (A line of the view fills its row, so that the screen takes it for one that wraps.)
fn lines(screen: &vt100::Parser) -> Vec<String> {
    let columns = screen.screen().size().1;
    screen.screen().rows(0, columns).map(|line| line.trim_end().to_owned()).collect()
}

fn is_spinner(c: char) -> bool {
    ('\u{2800}'..='\u{28ff}').contains(&c)
}

/// What `mayfly demo | head -1` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_whose_output_nobody_reads_ends_quietly_and_leaves_no_machine() {
    let Some((mut command, dir)) = command(&["--tasks", "1"]) else { return };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().expect("a first line");
    drop(lines);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(141), ""));
    assert_eq!(processes_in(dir.path()).len(), 0);
}

/// G7: more tasks than slots.
#[tokio::test(flavor = "multi_thread")]
async fn seven_tasks_share_three_slots_and_their_events_are_json() {
    let Some((output, dir)) = demo(&["--tasks", "7", "--parallel", "3", "--json"]).await else { return };
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let succeeded = events.iter().filter(|event| event["event"]["outcome"]["name"] == "succeeded");
    let finished = succeeded.filter(|event| event["event"]["type"] == "finished").count();
    assert_eq!((most_at_once(events.iter()), finished), (3, 7));
    let tasks: BTreeSet<&str> = events.iter().map(|event| event["task"].as_str().unwrap()).collect();
    assert_eq!(tasks.len(), 7);
    tasks.into_iter().for_each(assert_no_cgroup_of);
    assert_no_mount_in(dir.path());
    assert_eq!(processes_in(dir.path()), BTreeSet::new());
}

/// G11: an interrupt, or two, while several agents work.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_leaves_no_machine() {
    for twice in [false, true] {
        let Some((command, dir)) = command(&["--json"]) else { return };
        let mut run = Run::start(command);
        let mut ready = BTreeSet::new();
        while ready.len() < 3 {
            ready.insert(run.until("ready").await["task"].to_string());
        }
        run.signal(Signal::INT);
        if twice {
            run.until("collecting").await;
            run.signal(Signal::INT);
        }
        let ended = run.end().await;
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        assert!(ended.stderr.contains("0 machines left"), "{}", ended.stderr);
        let tasks: BTreeSet<&str> =
            ended.events.iter().map(|event| event["task"].as_str().unwrap()).collect();
        assert_eq!((tasks.len(), ended.own("finished").count()), (5, 5));
        tasks.into_iter().for_each(assert_no_cgroup_of);
        assert_no_mount_in(dir.path());
        assert_eq!(processes_in(dir.path()), BTreeSet::new());
    }
}

/// The folders of data in the place of temporary files.
fn data_in(dir: &TempDir) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("mayfly-data-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_demo_leaves_is_removed_by_the_next() {
    let Some((command, dir)) = command(&["--tasks", "2", "--json"]) else { return };
    let mut run = Run::start(command);
    for _ in 0..2 {
        run.until("ready").await;
    }
    run.signal(Signal::KILL);
    let ended = run.end().await;
    assert_eq!(ended.code, None);
    let killed = data_in(&dir);
    assert_eq!(killed.len(), 1);
    // Its machines would end by themselves after a while.
    for machine in std::fs::read_dir(killed[0].join("machines")).unwrap() {
        let Ok(state) = std::fs::read(machine.unwrap().path().join("state.json")) else { continue };
        let state: Value = serde_json::from_slice(&state).unwrap();
        let process = |name: &str| {
            let pid = i32::try_from(state[name]["pid"].as_i64()?).unwrap();
            pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).ok()
        };
        let holder = process("holder");
        process("init").map(|init| pidfd_send_signal(&init, Signal::KILL));
        holder.map(|holder| poll(&mut [PollFd::new(&holder, PollFlags::IN)], None).unwrap());
    }
    let mut next = self::command(&["--tasks", "1"]).unwrap().0;
    let output = next.env("TMPDIR", dir.path().join("tmp")).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(data_in(&dir), [""; 0].map(std::path::PathBuf::from));
    let tasks: BTreeSet<&str> = ended.events.iter().map(|event| event["task"].as_str().unwrap()).collect();
    tasks.into_iter().for_each(assert_no_cgroup_of);
    assert_no_mount_in(dir.path());
}

/// What the agents of a demo had, and what was denied to them.
fn told(output: &std::process::Output) -> (Vec<Value>, BTreeSet<String>) {
    let events = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let events: Vec<Value> = events.map(|line| serde_json::from_slice(line).unwrap()).collect();
    let inits = events.iter().map(|event| &event["line"]).filter(|line| line["subtype"] == "init");
    let denied = events.iter().map(|event| &event["event"]).filter(|event| event["type"] == "denied");
    let denied = denied.map(|event| event["tool"].as_str().unwrap().to_owned()).collect();
    (inits.map(|init| init["tools"].clone()).collect(), denied)
}

/// The agent of the user's library has what its definition lists, and an attempt at more is refused and told.
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_by_a_reviewer_of_the_library_writes_nothing() {
    let Some((mut begin, dir)) = command(&["--agent", "code-reviewer"]) else { return };
    let none = begin.output().await.unwrap();
    let said = String::from_utf8(none.stderr).unwrap();
    assert!(none.status.code() == Some(2) && said.contains("there is no agent `code-reviewer`"), "{said}");
    assert!(none.stdout.is_empty());

    let mayfly = |args: &[&str]| {
        let mut mayfly = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
        mayfly.env_clear().env("PATH", PATH).env("HOME", dir.path().join("home"));
        mayfly
            .env("TMPDIR", dir.path().join("tmp"))
            .arg("--claude")
            .arg(mayfly_test_needs::claude().unwrap());
        mayfly.args(args).stdin(Stdio::null());
        mayfly
    };
    assert!(mayfly(&["library", "init"]).status().await.unwrap().success());
    let reviewed = ["demo", "--agent", "code-reviewer", "--tasks", "1"];
    let output = mayfly(&[&reviewed[..], &["--json"]].concat()).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("no changes"), "{stderr}");
    assert!(stderr.contains("0 machines left"), "{stderr}");
    let (tools, denied) = told(&output);
    assert_eq!(tools, [serde_json::json!(["Read", "Glob", "Grep"])]);
    assert_eq!(denied, BTreeSet::from(["Bash", "Edit", "Write"].map(str::to_owned)));
    let plain = mayfly(&reviewed).output().await.unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    for words in ["library: 6 resources", "tools: Read, Glob, Grep\n", "denied Write: Error: No such tool"] {
        assert!(plain.contains(words), "{words}: {plain}");
    }

    // Without an agent nothing of it counts, however it is.
    std::fs::write(
        dir.path().join("home/.local/share/mayfly/library/settings/_global/base/settings.json"),
        "{",
    )
    .unwrap();
    let without = mayfly(&["demo", "--tasks", "1", "--json"]).output().await.unwrap();
    assert!(
        without.status.success() && !String::from_utf8_lossy(&without.stdout).contains(r#""type":"locked""#)
    );
    let broken = mayfly(&reviewed).output().await.unwrap();
    let said = String::from_utf8(broken.stderr).unwrap();
    assert!(
        broken.status.code() == Some(2) && said.contains("settings/_global/base/settings.json:1:"),
        "{said}"
    );
}
