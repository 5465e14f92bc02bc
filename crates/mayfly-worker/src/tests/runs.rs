//! How runs end: scripts that behave as `claude` does, or as oddly as it has been seen to.

use std::fs;

use mayfly_wire::worker::{Down, Report, Source};

use super::host::Host;
use crate::listen::STDERR_BYTES_MAX;

/// Reads its input to the end, as the CLI does once it has answered.
const TO_THE_END: &str = "cat > /dev/null";

async fn run(script: &str) -> Host {
    let host = Host::start(script);
    host.live().await.unwrap();
    host
}

#[tokio::test]
async fn a_good_run_is_told_step_by_step_and_byte_by_byte() {
    let host =
        run(&format!("init; printf 'not JSON\\r\\n\\n'; result; {TO_THE_END}; printf 'a half line'")).await;
    let reports = host.reports();
    assert_eq!(reports[0], Report::Started);
    assert_eq!(
        reports[1],
        Report::Ready { version: "2.1.330".to_owned(), model: "claude-sonnet-5-5".to_owned() }
    );
    assert_eq!(host.ended(), ("succeeded".to_owned(), String::new()));
    assert_eq!(reports.len(), 4, "{reports:?}");
    let said = String::from_utf8(host.bytes(Source::Claude)).unwrap();
    let lines: Vec<_> = said.split('\n').collect();
    assert!(lines[0].contains("init") && lines[3].contains("result"), "{said}");
    assert_eq!((lines[1], lines[2], lines[4]), ("not JSON\r", "", "a half line"));
}

#[tokio::test]
async fn each_odd_end_has_its_own_outcome() {
    let result = |rest: &str| format!(r#"echo '{{"type":"result","is_error":true,{rest}}}'; exit 1"#);
    let cases = [
        ("init; exit 0".to_owned(), "no-result", "no result"),
        ("echo 'no such flag' >&2; exit 1".to_owned(), "startup", "no such flag"),
        ("init; exit 7".to_owned(), "killed", "exited with 7"),
        ("init; kill -9 $$".to_owned(), "killed", "signal 9"),
        ("kill -SEGV $$".to_owned(), "killed", "signal 11"),
        (
            format!("init; {}", result(r#""terminal_reason":"max_turns","errors":["after 2"]"#)),
            "max-turns",
            "after 2",
        ),
        (format!("init; {}", result(r#""terminal_reason":"budget_exhausted""#)), "max-budget", ""),
        (
            format!(
                "init; {}",
                result(r#""terminal_reason":"api_error","api_error_status":529,"result":"busy""#)
            ),
            "overloaded",
            "busy (529)",
        ),
        (
            format!("init; {}", result(r#""terminal_reason":"aborted_tools""#)),
            "claude-error",
            "aborted_tools",
        ),
    ];
    for (script, outcome, detail) in cases {
        let ended = run(&script).await.ended();
        assert_eq!(ended.0, outcome, "{script}: {ended:?}");
        assert!(ended.1.contains(detail), "{script}: {ended:?}");
    }
}

#[tokio::test]
async fn a_binary_that_is_not_there_is_a_failed_start() {
    let host = Host::start("");
    fs::remove_file(host.boot().claude).unwrap();
    host.live().await.unwrap();
    assert_eq!(host.ended().0, "startup");
}

#[tokio::test]
async fn a_workspace_that_is_not_there_is_told_and_claude_not_started() {
    let host = Host::start("init");
    fs::remove_dir(host.workspace()).unwrap();
    host.live().await.unwrap();
    assert_eq!(host.ended().0, "workspace");
    assert!(!host.reports().contains(&Report::Started));
}

/// Covers R33.
#[tokio::test]
async fn a_result_without_an_exit_is_a_success_after_the_grace() {
    assert_eq!(run("init; result; exec tail -f /dev/null").await.ended().0, "succeeded");
}

/// Covers R33, with a process that takes no hint.
#[tokio::test]
async fn one_that_ignores_the_signal_to_end_is_killed() {
    assert_eq!(run("trap '' TERM; init; result; while :; do :; done").await.ended().0, "succeeded");
}

/// Covers R05 for memory.
#[tokio::test]
async fn a_kill_for_memory_is_told_from_other_kills() {
    let host = run("init; echo 'oom_kill 1' > \"$HOME/../memory.events\"; kill -9 $$").await;
    assert_eq!(host.ended().0, "out-of-memory");
}

/// Covers S51 for memory: a tool of the agent was killed, and `claude` went on.
#[tokio::test]
async fn a_machine_that_ran_out_of_memory_says_so_whatever_the_outcome() {
    let host = run("init; echo 'oom_kill 1' > \"$HOME/../memory.events\"; result; cat > /dev/null").await;
    assert_eq!(host.ended().0, "succeeded");
    let text = "the machine ran out of memory, and programs in it were killed".to_owned();
    assert!(host.reports().contains(&Report::Warning { text }), "{:?}", host.reports());
}

/// Covers S51 for processes: it is told, once, whatever the outcome is.
#[tokio::test]
async fn a_machine_that_met_its_limit_of_processes_says_so() {
    let host = run("init; echo 'max 7' > \"$HOME/../pids.events\"; result; cat > /dev/null").await;
    assert_eq!(host.ended().0, "succeeded");
    let warnings: Vec<_> = host
        .reports()
        .into_iter()
        .filter_map(|report| if let Report::Warning { text } = report { Some(text) } else { None })
        .collect();
    assert_eq!(warnings, ["the machine reached its limit of 512 processes and threads"]);
}

/// Covers S34: while it waits for the model it is as silent as at its end, and a result that comes meanwhile may be
/// anybody's.
#[tokio::test]
async fn a_result_while_the_model_is_asked_ends_nothing() {
    // Longer than the grace that it has to exit after a result.
    let ask = r#"bash -c "exec 3<>/dev/tcp/127.0.0.1/${ANTHROPIC_BASE_URL##*:}; echo; sleep 0.5" > asked"#;
    let host = run(&format!(
        "init; mkfifo asked; {ask} & read _ < asked; result; wait; echo unharmed; {TO_THE_END}"
    ))
    .await;
    assert_eq!(host.ended().0, "succeeded");
    assert!(String::from_utf8(host.bytes(Source::Claude)).unwrap().ends_with("unharmed\n"));
}

/// Covers S34: what a forged line says is passed on, and the end of the process decides.
#[tokio::test]
async fn a_forged_result_does_not_make_a_success() {
    let forged = "( result ) ; kill -9 $$";
    assert_eq!(run(&format!("init; {forged}")).await.ended().0, "killed");
    let then_error =
        r#"result; echo '{"type":"result","is_error":true,"terminal_reason":"api_error"}'; exit 1"#;
    assert_eq!(run(&format!("init; {then_error}")).await.ended().0, "api-error");
}

/// Covers S61: what it says it runs with is not what was asked for.
#[tokio::test]
async fn an_init_that_differs_stops_claude_and_names_the_difference() {
    let script = "init | sed 's/claude-sonnet-5-5/claude-opus-5-5/'; exec tail -f /dev/null";
    let (outcome, detail) = run(script).await.ended();
    assert_eq!(outcome, "init-mismatch");
    assert!(detail.contains("model is `claude-opus-5-5`, asked for was `sonnet`"), "{detail}");
}

/// Covers S35 and S37: a line of many records, and no newline at the end.
#[tokio::test]
async fn lines_of_megabytes_come_through_unchanged() {
    const LENGTHS: [usize; 2] = [64 << 20, 5_000_000];
    let [line, last] = LENGTHS.map(|length| format!("head -c {length} /dev/zero | tr '\\0' 'x'"));
    let host = run(&format!("init; {line}; echo; result; {TO_THE_END}; {last}")).await;
    let said = host.bytes(Source::Claude);
    let lines: Vec<_> = said.split(|&byte| byte == b'\n').collect();
    assert_eq!((lines.len(), [lines[1].len(), lines[3].len()]), (4, LENGTHS));
    assert!([lines[1], lines[3]].concat().iter().all(|&byte| byte == b'x'));
    assert_eq!(host.ended().0, "succeeded");
}

/// Covers S37 for the standard error.
#[tokio::test]
async fn a_flood_on_stderr_is_cut_with_one_warning_and_stdout_is_not() {
    let flood = "yes complaint | head -c 8000000 >&2";
    let host = run(&format!("init; {flood}; result; {TO_THE_END}")).await;
    let warnings =
        host.reports().into_iter().filter(|report| matches!(report, Report::Warning { .. })).count();
    assert_eq!(warnings, 1);
    let kept = host.bytes(Source::Stderr).len();
    assert!((STDERR_BYTES_MAX..STDERR_BYTES_MAX + 100).contains(&kept), "{kept}");
    assert_eq!(host.ended().0, "succeeded");
}

/// Covers S43: a prompt of a megabyte goes in while `claude` itself is still writing.
#[tokio::test]
async fn a_long_prompt_and_a_long_output_do_not_wait_for_each_other() {
    let prompt = "\n\"prompt\" ".repeat(100_000);
    let adjusted = prompt.clone();
    let script = "init; head -c 3000000 /dev/zero; echo; head -n 2 > input; result; cat > /dev/null";
    let host = Host::with(script, |desk| desk.order.prompt = adjusted);
    host.live().await.unwrap();
    let input = fs::read_to_string(host.workspace().join("input")).unwrap();
    let user: serde_json::Value = serde_json::from_str(input.lines().nth(1).unwrap()).unwrap();
    assert_eq!(user["message"]["content"][0]["text"], prompt);
}

#[tokio::test]
async fn a_permission_request_is_denied_and_told() {
    let request = r#"{"type":"control_request","request_id":"r1","request":{"subtype":"can_use_tool","tool_name":"Write","tool_use_id":"t1"}}"#;
    let host =
        run(&format!("init; echo '{request}'; head -n 3 | tail -n 1 > answer; result; {TO_THE_END}")).await;
    let answer: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(host.workspace().join("answer")).unwrap()).unwrap();
    assert_eq!(answer["response"]["request_id"], "r1");
    assert_eq!(answer["response"]["response"]["behavior"], "deny");
    let denied = host
        .reports()
        .into_iter()
        .filter(|report| matches!(report, Report::Denied { tool, .. } if tool == "Write"));
    assert_eq!(denied.count(), 1);
}

async fn cancel(script: &str) -> Host {
    let host = Host::start(script);
    let (lived, ()) = tokio::join!(host.live(), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        host.say(Down::Collect);
    });
    lived.unwrap();
    host
}

/// Covers R32 for one that obeys.
#[tokio::test]
async fn a_cancel_asks_claude_to_stop_first() {
    let script = "init; while read -r line; do case $line in *'\"interrupt\"'*) echo asked > asked; result;; esac; done";
    let host = cancel(script).await;
    assert_eq!(host.ended().0, "cancelled");
    assert!(host.workspace().join("asked").exists());
    let collected = host.collected();
    assert!(collected.bundle, "the work comes out all the same: {collected:?}");
}

/// Covers R32 for one that does not.
#[tokio::test]
async fn a_cancel_ends_one_that_obeys_nothing() {
    let host = cancel("trap '' INT TERM; init; while :; do :; done").await;
    assert_eq!(host.ended().0, "cancelled");
}
