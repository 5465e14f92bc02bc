//! Lines as the CLI writes them, shortened, and lines that nobody should have written.

use proptest::prelude::*;

use super::super::command::tests::order;
use super::*;

const INIT: &str = r#"{"type":"system","subtype":"init","cwd":"/workspace","session_id":"0193b2c4-0000-7000-8000-0123456789ab","tools":["Task","Bash","Edit"],"mcp_servers":[],"model":"claude-sonnet-5-5","permissionMode":"bypassPermissions","slash_commands":["x"],"apiKeySource":"none","claude_code_version":"2.1.330","uuid":"u"}"#;
const CALL: &str = r#"{"type":"assistant","message":{"id":"m","content":[{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"x"}}]},"parent_tool_use_id":null}"#;
const RETURN: &str = r#"{"type":"user","message":{"role":"user","content":[{"tool_use_id":"t1","type":"tool_result","content":"ok","is_error":false}]},"parent_tool_use_id":null}"#;
const RESULT: &str = r#"{"duration_api_ms":34,"stop_reason":"end_turn","terminal_reason":"completed","is_error":false,"num_turns":1,"subtype":"success","api_error_status":null,"result":"Hello.","type":"result"}"#;

fn interpreter() -> Interpreter {
    Interpreter::new(Asked::new(&order(), Path::new("/workspace"), &Expected::default()))
}

fn after(lines: &[&str]) -> Interpreter {
    let mut interpreter = interpreter();
    for line in lines {
        interpreter.read(line.as_bytes());
    }
    interpreter
}

fn denied(tool: &str, message: &str) -> Finding {
    Finding::Report(Report::Denied { tool: tool.to_owned(), message: message.to_owned() })
}

#[test]
fn the_first_init_that_is_as_asked_is_reported_and_later_ones_are_not() {
    let mut interpreter = interpreter();
    let ready = Report::Ready { version: "2.1.330".to_owned(), model: "claude-sonnet-5-5".to_owned() };
    assert_eq!(interpreter.read(INIT.as_bytes()), [Finding::Report(ready)]);
    let forged = INIT.replace("bypassPermissions", "default");
    assert_eq!(interpreter.read(forged.as_bytes()), []);
}

#[test]
fn each_difference_of_the_init_is_named() {
    let cases = [
        ("2.1.330", "2.1.331", "version"),
        ("claude-sonnet-5-5", "claude-opus-5-5", "model"),
        ("0123456789ab\"", "0123456789ac\"", "session"),
        ("bypassPermissions", "default", "permission mode"),
        ("\"/workspace\"", "\"/\"", "folder"),
        (
            "\"mcp_servers\":[]",
            "\"mcp_servers\":[{\"name\":\"x\",\"status\":\"connected\"}]",
            "the MCP server x is there",
        ),
        ("\"Edit\"", "\"ExitPlanMode\"", "without ExitPlanMode"),
        ("\"tools\":[", "\"tools\":[1,", "cannot be read"),
    ];
    for (good, bad, named) in cases {
        let findings = interpreter().read(INIT.replace(good, bad).as_bytes());
        let [Finding::Mismatch(difference)] = &findings[..] else { panic!("{named}: {findings:?}") };
        assert!(difference.contains(named), "{difference}");
    }
}

/// What a library may say of an agent, and an init that is so.
fn expected() -> (Expected, String) {
    let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let expected = Expected {
        tools: Some(list(&["Agent", "Edit", "mcp__db"])),
        denied: list(&["Bash", "mcp__db__drop"]),
        agents: list(&["reader"]),
        agent: Some("own".to_owned()),
        skills: [("review".to_owned(), true), ("unlisted".to_owned(), false)].into(),
        servers: [("db".to_owned(), true), ("docs".to_owned(), false)].into(),
        unknown: std::collections::BTreeSet::new(),
    };
    let init = INIT
        .replace("\"Bash\"", "\"mcp__db__query\"")
        .replace(
            "\"mcp_servers\":[]",
            r#""mcp_servers":[{"name":"db","status":"connected"},{"name":"docs","status":"connected"}],"agents":["Plan","reader","own"],"skills":["review"]"#,
        );
    (expected, init)
}

fn read_with(library: &Expected, trust_repo: bool, init: &str) -> Vec<Finding> {
    let order = WorkOrder { trust_repo, ..order() };
    Interpreter::new(Asked::new(&order, Path::new("/workspace"), library)).read(init.as_bytes())
}

#[test]
fn each_difference_from_the_library_is_named() {
    let (expected, init) = expected();
    assert!(matches!(&read_with(&expected, false, &init)[..], [Finding::Report(Report::Ready { .. })]));
    let server = "\"mcp_servers\":[{\"name\":\"own\",\"status\":\"connected\"},";
    for (good, bad, named) in [
        ("\"Edit\"", "\"Bash\"", "the tool Bash is there, and is denied"),
        ("mcp__db__query", "mcp__db__drop", "the tool mcp__db__drop is there, and is denied"),
        ("\"Edit\"", "\"Read\"", "the tool Read is there, and the agent's list does not have it"),
        (
            "\"mcp__db__query\"",
            "\"mcp__db__query\",\"mcp__db2__query\"",
            "the tool mcp__db2__query is there, and the agent's list",
        ),
        ("\"reader\"", "\"writer\"", "the agent reader is not there"),
        ("\"own\"", "\"claude\"", "the agent own is not there"),
        ("\"review\"", "\"other\"", "the skill review is not there"),
        (
            "\"db\",\"status\":\"connected\"",
            "\"db\",\"status\":\"failed\"",
            "db, which is required, is failed",
        ),
        (
            "\"db\",\"status\":\"connected\"",
            "\"db\",\"status\":\"pending\"",
            "db, which is required, is pending",
        ),
        ("{\"name\":\"db\",\"status\":\"connected\"},", "", "db, which is required, is not there"),
        ("mcp__db__query", "Agent", "db, which is required, is connected and has named no tool in time"),
        ("\"mcp_servers\":[", server, "the MCP server own is there, and was not asked for"),
    ] {
        let findings = read_with(&expected, false, &init.replace(good, bad));
        let [Finding::Mismatch(difference)] = &findings[..] else { panic!("{named}: {findings:?}") };
        assert!(difference.contains(named), "{difference}");
        assert!(!difference.contains("; "), "one difference is told as one: {difference}");
    }
    let own = init.replace("\"mcp_servers\":[", server);
    assert!(matches!(&read_with(&expected, true, &own)[..], [Finding::Report(Report::Ready { .. })]));
}

#[test]
fn a_server_that_need_not_be_there_is_only_told_of() {
    let (expected, init) = expected();
    let failed = init.replace("\"docs\",\"status\":\"connected\"", "\"docs\",\"status\":\"failed\"");
    let findings = read_with(&expected, false, &failed);
    let [Finding::Report(Report::Ready { .. }), Finding::Report(Report::Warning { text })] = &findings[..]
    else {
        panic!("{findings:?}")
    };
    assert_eq!(text, "the MCP server docs is failed: the agent goes on without it");
    let all = Expected { tools: None, ..expected };
    let findings = read_with(&all, false, &init);
    let [Finding::Report(Report::Ready { .. }), Finding::Report(Report::Warning { text })] = &findings[..]
    else {
        panic!("{findings:?}")
    };
    assert_eq!(text, "the MCP server docs is connected and has named no tool in time");
}

/// A server has no tool that is listed where the agent may call none of them.
#[test]
fn a_server_of_which_nothing_may_be_called_need_name_no_tool() {
    let (expected, init) = expected();
    let init = init.replace("mcp__db__query", "Agent");
    let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let is_good = |tools: Option<&[&str]>, denied: &[&str]| {
        let (tools, denied) = (tools.map(list), list(denied));
        let library = Expected { tools, denied, ..expected.clone() };
        matches!(&read_with(&library, false, &init)[0], Finding::Report(Report::Ready { .. }))
    };
    let usual: &[&str] = &["Agent", "Edit"];
    assert!(is_good(Some(usual), &[]));
    for denied in ["mcp__db", "mcp__db__*", "mcp__*"] {
        assert!(is_good(None, &[denied]), "{denied}");
    }
    for listed in ["mcp__db", "mcp__db__query", "mcp__db__q*", "mcp__*", "mcp__d*"] {
        assert!(!is_good(Some(&[usual, &[listed]].concat()), &[]), "{listed}");
    }
    for denied in ["mcp__db__drop", "mcp__d", "mcp__other", "mcp__db__d*"] {
        assert!(!is_good(None, &[denied]), "{denied}");
    }
}

/// A denied tool that nobody has denies nothing, which is said; a name that the CLI knows is one, whatever is known here.
#[test]
fn a_name_that_is_no_tools_is_told_of() {
    let (expected, init) = expected();
    let unknown = ["Bsah(git:*)", "Edit(x)", "mcp__gone__x"].map(str::to_owned).into();
    let findings = read_with(&Expected { unknown, ..expected }, false, &init);
    let texts: Vec<_> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Report(Report::Warning { text }) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        texts,
        [
            "`Bsah(git:*)` is no tool that is known here, and counts for nothing; Bash is one",
            "`mcp__gone__x` is no tool that is known here, and counts for nothing",
        ]
    );
}

#[test]
fn a_model_is_known_by_its_name_or_its_alias() {
    for (asked, said) in [
        ("sonnet", "claude-sonnet-5-5"),
        ("claude-sonnet-5-5", "claude-sonnet-5-5"),
        ("claude-sonnet-5-5", "claude-sonnet-5-5-20260101"),
        ("sonnet[1m]", "claude-sonnet-5-5[1m]"),
        ("Opus", "claude-opus-5-5"),
        ("opusplan", "claude-sonnet-5-5"),
        ("some/gateway:model", "some/gateway:model"),
    ] {
        assert!(is_model(asked, said), "{asked} {said}");
    }
    for (asked, said) in
        [("sonnet", "claude-opus-5-5"), ("claude-sonnet-5-5", "claude-sonnet-5"), ("opus", "")]
    {
        assert!(!is_model(asked, said), "{asked} {said}");
    }
}

#[test]
fn a_result_with_nothing_left_is_rest_and_another_turn_is_not() {
    assert!(!after(&[INIT]).is_answered());
    assert!(after(&[INIT, CALL, RETURN, RESULT]).is_at_rest());
    assert!(!after(&[INIT, RESULT, INIT]).is_answered());
    assert!(after(&[INIT, RESULT, INIT, RESULT]).is_at_rest());
}

/// Covers S34: printed while a tool runs, a result is not the end of the turn.
#[test]
fn a_result_inside_a_tool_call_is_no_rest() {
    assert!(!after(&[INIT, CALL, RESULT]).is_at_rest());
    assert!(after(&[INIT, CALL, RESULT, RETURN, RESULT]).is_at_rest());
}

#[test]
fn a_background_task_keeps_claude_from_rest_until_it_is_over() {
    let started = r#"{"type":"system","subtype":"task_started","task_id":"a2","is_backgrounded":true}"#;
    let inline = r#"{"type":"system","subtype":"task_started","task_id":"b7","is_backgrounded":false}"#;
    let notified = r#"{"type":"system","subtype":"task_notification","task_id":"a2","status":"completed"}"#;
    let some = r#"{"type":"system","subtype":"background_tasks_changed","tasks":[{"task_id":"a2","task_type":"local_bash"}]}"#;
    let none = r#"{"type":"system","subtype":"background_tasks_changed","tasks":[]}"#;
    assert!(!after(&[INIT, started, RESULT]).is_answered());
    assert!(!after(&[INIT, some, RESULT]).is_answered());
    assert!(after(&[INIT, started, notified, RESULT]).is_at_rest());
    assert!(after(&[INIT, some, RESULT, none]).is_at_rest());
    assert!(after(&[INIT, inline, RESULT]).is_at_rest());
}

#[test]
fn a_missing_tool_a_rule_and_a_request_are_each_denied_once() {
    let missing = r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"<tool_use_error>Error: No such tool available: WebFetch. It is disabled.</tool_use_error>","is_error":true,"tool_use_id":"t9"}]}}"#;
    let told = "<tool_use_error>Error: No such tool available: WebFetch. It is disabled.</tool_use_error>";
    assert_eq!(interpreter().read(missing.as_bytes()), [denied("WebFetch", told)]);

    let system = r#"{"type":"system","subtype":"permission_denied","tool_name":"Write","tool_use_id":"t1","message":"not granted"}"#;
    let shown = r#"{"type":"user","message":{"content":[{"type":"tool_result","content":[{"type":"text","text":"not granted"}],"is_error":true,"tool_use_id":"t1"}]},"tool_result_meta":[{"id":"t1","non_execution_kind":"user-rejected","permission_decision":{"decision":"reject","source":"config"}}]}"#;
    let mut interpreter = interpreter();
    assert_eq!(interpreter.read(system.as_bytes()), [denied("Write", "not granted")]);
    assert_eq!(interpreter.read(shown.as_bytes()), []);
    assert_eq!(after(&[CALL]).read(shown.as_bytes()), [denied("Bash", "not granted")]);
}

#[test]
fn a_tool_that_failed_or_was_interrupted_is_not_denied() {
    let failed = r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"Exit code 1","is_error":true,"tool_use_id":"t1"}]}}"#;
    let aborted = r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"The user doesn't want to proceed","is_error":true,"tool_use_id":"t1"}]},"tool_result_meta":[{"id":"t1","non_execution_kind":"user-rejected"}]}"#;
    let quoted = r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"No such tool available: x","is_error":false,"tool_use_id":"t1"}]}}"#;
    for line in [failed, aborted, quoted] {
        assert_eq!(interpreter().read(line.as_bytes()), []);
    }
}

#[test]
fn a_request_that_is_not_served_is_answered_so_that_nobody_waits() {
    let hook = r#"{"type":"control_request","request_id":"h1","request":{"subtype":"hook_callback","callback_id":"c"}}"#;
    assert_eq!(interpreter().read(hook.as_bytes()), [Finding::Answer(input::refuse("h1"))]);
}

#[test]
fn a_usage_limit_is_told_with_its_end_and_kept_with_the_result() {
    let rejected = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":4102444800,"rateLimitType":"five_hour","isUsingOverage":false}}"#;
    let allowed =
        r#"{"type":"rate_limit_event","rate_limit_info":{"status":"allowed","isUsingOverage":false}}"#;
    let result = r#"{"type":"result","subtype":"success","is_error":true,"terminal_reason":"api_error","api_error_status":429,"api_error":"usage_limit_reached","result":"You've hit your 5-hour limit"}"#;
    let mut interpreter = interpreter();
    assert_eq!(interpreter.read(allowed.as_bytes()), []);
    let (kind, limit) = (LimitKind::UsageLimit, "five_hour".to_owned());
    let limit = Report::Limit { kind, limit, resets_at: Some(4_102_444_800) };
    assert_eq!(interpreter.read(rejected.as_bytes()), [Finding::Report(limit)]);
    assert_eq!(interpreter.read(result.as_bytes()), [], "its 429 is no other limit");
    assert!(interpreter.last().is_some_and(|last| last.usage_limit && last.is_error));
    assert_eq!(interpreter.resets_at(), Some(4_102_444_800));
}

#[test]
fn too_many_requests_and_an_overload_are_told_apart_and_once_each() {
    let retry = |status: u64, error: &str| {
        format!(
            r#"{{"type":"system","subtype":"api_retry","attempt":1,"max_retries":2,"retry_delay_ms":557,"error_status":{status},"error":"{error}"}}"#
        )
    };
    let rejected =
        r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","isUsingOverage":false}}"#;
    let result = |status: u64| {
        format!(
            r#"{{"type":"result","is_error":true,"terminal_reason":"api_error","api_error_status":{status},"total_cost_usd":0.5,"result":"no"}}"#
        )
    };
    let limit = |kind, limit: &str| {
        vec![Finding::Report(Report::Limit { kind, limit: limit.to_owned(), resets_at: None })]
    };
    let cost = || Finding::Report(Report::Cost { usd: 0.5 });
    let mut reader = interpreter();
    let mut read = |line: &str| reader.read(line.as_bytes());
    assert_eq!(read(&retry(529, "overloaded")), limit(LimitKind::Overload, "overloaded"));
    assert_eq!(read(&retry(529, "overloaded")), []);
    assert_eq!(read(&retry(429, "rate_limit")), limit(LimitKind::RateLimit, "rate_limit"));
    assert_eq!(read(&retry(500, "server_error")), []);
    assert_eq!(read(rejected), []);
    assert_eq!(read(&result(429)), [cost()]);
    // Also where there was no retry.
    let mut reader = interpreter();
    let told = reader.read(result(529).as_bytes());
    let overload = limit(LimitKind::Overload, "overload");
    assert_eq!(told, [cost()].into_iter().chain(overload).collect::<Vec<_>>());
}

#[test]
fn the_last_result_is_the_one_that_counts() {
    let error = r#"{"type":"result","is_error":true,"subtype":"error_max_turns","terminal_reason":"max_turns","errors":["Reached maximum number of turns (2)"]}"#;
    let last = after(&[INIT, RESULT, error]).last().cloned().expect("a result");
    assert_eq!((last.terminal_reason.as_str(), last.is_error), ("max_turns", true));
    assert_eq!(last.words, "Reached maximum number of turns (2)");
    assert!(!after(&[error, RESULT]).last().expect("a result").is_error);
}

/// Covers S35 and S36: odd JSON around what is known does not hide it.
#[test]
fn half_a_surrogate_pair_deep_nesting_and_new_fields_do_not_hide_a_result() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for odd in
        [r#""result":"cut \ud83d""#, r#""new":{"a":1e400}"#, &format!(r#""deep":{deep}"#), r#""\u2028":1"#]
    {
        let line = format!(r#"{{"type":"result","is_error":false,{odd}}}"#);
        assert!(after(&[&line]).last().is_some(), "{}", &line[..60]);
    }
}

#[test]
fn what_is_no_known_line_changes_nothing() {
    let lines: [&[u8]; 9] = [
        b"",
        b"not JSON",
        b"\xff\xfe{\"type\":\"result\",\"is_error\":false}",
        b"\xef\xbb\xbf{\"type\":\"result\",\"is_error\":false}",
        b"{\"type\":\"result\",\"is_error\":false",
        b"{\"type\":\"result\"}",
        b"{\"type\":\"brand_new\",\"is_error\":false}",
        b"[{\"type\":\"result\",\"is_error\":false}]",
        b"{\"type\":\"system\",\"subtype\":\"brand_new\"}",
    ];
    let mut interpreter = interpreter();
    for line in lines {
        assert_eq!(interpreter.read(line), []);
    }
    assert!(interpreter.last().is_none() && !interpreter.initialised());
}

#[test]
fn what_is_passed_on_is_short_and_never_cut_inside_a_character() {
    let long = "é".repeat(WORDS_MAX * 3);
    let shortened = shorten(&long);
    assert_eq!(shortened.chars().count(), WORDS_MAX + 1);
    assert!(shortened.ends_with("é…"));
}

proptest! {
    /// Covers S35: no bytes make it panic, also not in the middle of what it knows.
    #[test]
    fn no_line_makes_it_panic(
        line in prop_oneof![Just(INIT), Just(CALL), Just(RETURN), Just(RESULT)],
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut line = line.as_bytes().to_vec();
        let at = at.index(line.len());
        line.splice(at..(at + bytes.len()).min(line.len()), bytes);
        interpreter().read(&line);
    }
}

#[test]
fn a_rule_with_stars_is_about_each_tool_that_is_like_it() {
    for (tool, rule, is) in [
        ("Bash", "*", true),
        ("mcp__db__query", "mcp__*", true),
        ("mcp__db__query", "mcp__db__*", true),
        ("mcp__db__query", "mcp__*__drop", false),
        ("Task", "Ag*", true),
        ("WebFetch", "Web*", true),
        ("Bash", "mcp__*", false),
        ("aba", "ab*ba", false),
        ("Read", "R*a*d*", true),
    ] {
        assert_eq!(is_of(tool, rule), is, "{tool} {rule}");
    }
}
