//! A `claude` that means harm, in a real machine: what it writes, through the worker, the store, the API and the client.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use mayfly_engine::Rules;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::world::World;

const MIB: usize = 1024 * 1024;
/// One line of the kind that nobody should write.
const LONG: usize = 64 * MIB;
/// The bounds of the flood: its log, and its machine's disk, and so what may wait there for the orchestrator.
const LOG_BYTES_MAX: u64 = 16 * MIB as u64;
const DISK_BYTES_MAX: u64 = 256 * MIB as u64;
/// What the orchestrator's process may grow by: three frames on their way to the disk, the newest of the log, readers;
/// and less than the longest line.
const MEMORY_MAX: u64 = LONG as u64;

/// Says what it runs with as `claude` does, and then does what the prompt names.
const CLAUDE: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in --session-id) session=$2 ;; --permission-mode) mode=$2 ;; esac
    shift
done
many() { head -c "$2" /dev/zero | tr '\0' "$1"; }
printf '{"type":"system","subtype":"init","cwd":"%s","session_id":"%s","tools":[],"mcp_servers":[],' "$PWD" "$session"
printf '"model":"claude-sonnet-5-5","permissionMode":"%s","claude_code_version":"2.1.330"}\n' "$mode"
read -r _
read -r prompt
case $prompt in
*stdout-flood*) exec yes "$(many x 99)" ;;
*stderr-flood*) yes complaint | head -c 50000000 >&2 ;;
*odd-bytes*)
    printf 'not JSON\r\n\na\000b\n\377\n'
    printf '\342'; sync; printf '\202\n'
    printf '"\\ud800"\n{"n":1e400}\n\357\273\277{}\n\342\200\250\n'
    many '[' 100000; many ']' 100000; echo
    printf '{"zzz":[], "type":"new-in-3.0", "type":"system"}\n'
    printf '{"task":"t","attempt":1,"seq":1,"at":"2026-01-01T00:00:00Z","source":"mayfly","event":{"type":"finished","outcome":{"name":"cancelled"}}}\n'
    printf '{"type":"ended","outcome":"cancelled"}\n::set-env name=PATH::/evil\n::stop-commands::\n'
    many x 67108864; echo ;;
esac
echo '{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed"}'
cat > /dev/null
printf 'half a li'
"#;

/// What it writes between its first line and its last ones, said once more.
fn odd_bytes() -> Vec<u8> {
    let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    [
        &b"not JSON\r\n\na\0b\n\xff\n\xe2\x82\n\"\\ud800\"\n{\"n\":1e400}\n\xef\xbb\xbf{}\n\xe2\x80\xa8\n"[..],
        deep.as_bytes(),
        b"\n{\"zzz\":[], \"type\":\"new-in-3.0\", \"type\":\"system\"}\n",
        br#"{"task":"t","attempt":1,"seq":1,"at":"2026-01-01T00:00:00Z","source":"mayfly","event":{"type":"finished","outcome":{"name":"cancelled"}}}"#,
        b"\n{\"type\":\"ended\",\"outcome\":\"cancelled\"}\n::set-env name=PATH::/evil\n::stop-commands::\n",
        &vec![b'x'; LONG],
        b"\n{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"terminal_reason\":\"completed\"}\nhalf a li",
    ]
    .concat()
}

/// A world with that `claude`.
async fn world(adjust: impl FnOnce(&mut Rules)) -> Option<(World, TempDir)> {
    // Machines are only there where the tests of the real one run.
    mayfly_test_needs::claude()?;
    let dir = tempfile::tempdir().unwrap();
    let claude: PathBuf = dir.path().join("claude");
    fs::write(&claude, CLAUDE).unwrap();
    fs::set_permissions(&claude, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Some((World::with(claude, adjust).await, dir))
}

impl World {
    /// Runs it to its end, in silence; its exit, and its short id.
    async fn ran(&self, prompt: &str) -> (Option<i32>, String) {
        let submitted = self.mayfly(&["run", "--detach", prompt]).await.text();
        let task = submitted.split_once("  ").unwrap().0.to_owned();
        let mut follow = self.plain_command(&["logs", &task, "--follow"]);
        let ended = follow.stdout(Stdio::null()).stderr(Stdio::null()).status().await.unwrap();
        (ended.code(), task)
    }
}

/// The most memory that this process has had, in bytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// S35, S36, S42: whatever it writes comes out of the client byte for byte, means nothing to us, and takes no memory
/// that it has not been given.
#[tokio::test(flavor = "multi_thread")]
async fn the_oddest_bytes_arrive_as_they_were_written() {
    let Some((world, _dir)) = world(|_| {}).await else { return };
    let before = memory();
    let (code, task) = world.ran("odd-bytes").await;
    assert_eq!(code, Some(0), "no line of it decides anything");
    let path = world.dir.path().join("raw");
    let mut raw = world.plain_command(&["logs", "--raw", &task]);
    assert!(raw.stdout(File::create(&path).unwrap()).status().await.unwrap().success());
    let grown = memory() - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes");
    let said = fs::read(path).unwrap();
    let first = said.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(said[first..] == odd_bytes(), "{} bytes", said.len());
    world.end().await;
}

/// S37: an endless output ends its attempt at the bound of its log, and takes neither the orchestrator's memory nor the
/// turn of another task.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_ends_its_own_attempt_and_no_other() {
    let adjust = |rules: &mut Rules| {
        rules.policy.log_bytes_max = LOG_BYTES_MAX;
        rules.limits.disk_bytes_max = DISK_BYTES_MAX;
    };
    let Some((world, _dir)) = world(adjust).await else { return };
    let before = memory();
    let submitted = world.mayfly(&["run", "--detach", "stdout-flood"]).await.text();
    let flood = submitted.split_once("  ").unwrap().0;
    // It is in full flow while the other comes and goes.
    let mut follow = world.plain_command(&["logs", "--raw", "--follow", flood]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    follow.stdout.as_mut().unwrap().read_exact(&mut vec![0; MIB]).await.unwrap();
    let (code, _) = world.ran("nothing else").await;
    assert_eq!(code, Some(0));
    drop(follow.stdout.take());
    let ended = world.mayfly(&["logs", "--follow", "--after", "1000000000", flood]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    // Nobody takes what it reads any more.
    follow.wait().await.unwrap();
    let grown = memory() - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes");
    let ps = world.mayfly(&["ps", "--all"]).await.text();
    assert!(ps.lines().any(|line| line.contains(flood) && line.contains("log-full")), "{ps}");
    world.end().await;
}

/// S37: what it complains is cut, and the user is told so once.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_complaints_is_cut_with_one_warning() {
    let Some((world, _dir)) = world(|_| {}).await else { return };
    let ended = world.outcome_of(&["stderr-flood"]).await;
    assert_eq!(ended.outcome().0, "succeeded");
    let complaints = ended.events.iter().filter(|event| event["source"] == "stderr").count();
    assert!((1..1_000_000).contains(&complaints), "{complaints}");
    let warned =
        ended.own("warning").filter(|event| event["text"].as_str().unwrap().contains("standard error"));
    assert_eq!(warned.count(), 1);
    world.end().await;
}
