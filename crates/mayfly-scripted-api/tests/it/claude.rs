//! The scenarios with the real CLI: it has to take the answers as it would take the real API's.

use serde_json::{Value, json};

use crate::runs::{Setup, run, run_with};

#[tokio::test]
async fn claude_says_the_text() {
    let Some(run) = run("Say it [script: text text=\"Hi there.\"]").await else { return };
    run.assert_succeeded();
    assert_eq!(run.result()["result"], "Hi there.");
    let [seen] = run.api.requests().try_into().unwrap();
    assert_eq!((seen.path.as_str(), seen.scenario.as_deref()), ("/v1/messages?beta=true", Some("text")));
    assert_eq!(seen.body["stream"], true);
}

#[tokio::test]
async fn claude_writes_a_file_where_it_works() {
    let Some(run) = run("[script: write path=made.txt content=\"made\\n\"]").await else { return };
    run.assert_succeeded();
    assert_eq!(run.file("made.txt"), "made\n");
}

#[tokio::test]
async fn claude_runs_a_command() {
    let Some(run) = run("[script: bash command=\"echo out-$((40 + 2))\"]").await else { return };
    run.assert_succeeded();
    assert_eq!(run.blocks("tool_result")[0]["content"], "out-42");
}

#[tokio::test]
async fn claude_goes_on_after_a_command_that_fails() {
    let Some(run) = run("[script: bash-fail code=7]").await else { return };
    run.assert_succeeded();
    let result = run.blocks("tool_result")[0];
    assert_eq!(result["is_error"], true);
    assert!(result["content"].as_str().unwrap().starts_with("Exit code 7"), "{result}");
}

#[tokio::test]
async fn claude_stores_a_big_output() {
    let Some(run) = run("[script: bash-big megabytes=3]").await else { return };
    run.assert_succeeded();
    assert!(run.blocks("tool_result")[0]["content"].as_str().unwrap().contains("too large"));
}

#[tokio::test]
async fn claude_runs_two_tools_of_one_message() {
    let Some(run) = run("[script: two-tools]").await else { return };
    run.assert_succeeded();
    assert_eq!((run.blocks("tool_use").len(), run.blocks("tool_result").len()), (2, 2));
    assert_eq!(run.file("out.txt"), "second\n");
}

#[tokio::test]
async fn claude_shows_thinking() {
    let Some(run) = run("[script: thinking thinking=\"Let me see.\"]").await else { return };
    run.assert_succeeded();
    assert_eq!(run.blocks("thinking")[0]["thinking"], "Let me see.");
}

#[tokio::test]
async fn claude_refuses_a_tool_that_it_does_not_have() {
    let Some(run) = run("[script: tool name=AskUserQuestion]").await else { return };
    run.assert_succeeded();
    let result = run.blocks("tool_result")[0];
    assert_eq!(result["is_error"], true);
    assert!(result["content"].as_str().unwrap().contains("No such tool available"), "{result}");
}

#[tokio::test]
async fn claude_runs_a_sub_agent_with_a_script_of_its_own() {
    let prompt = "[script: agent prompt=\"Do it. [script: write path=below.txt content=below]\"]";
    let Some(run) = run(prompt).await else { return };
    run.assert_succeeded();
    assert_eq!(run.file("below.txt"), "below");
    assert_eq!(run.result()["result"], "The sub-agent has reported.");
    let asked: Vec<_> = run.api.requests().into_iter().filter_map(|seen| seen.scenario).collect();
    assert_eq!(asked, ["agent", "write", "write", "agent"]);
}

#[tokio::test]
async fn claude_uses_a_skill() {
    let prepare = |folder: &std::path::Path| {
        let skill = folder.join(".claude/skills/greet");
        std::fs::create_dir_all(&skill).unwrap();
        std::fs::write(skill.join("SKILL.md"), "---\nname: greet\ndescription: Greets.\n---\nBe kind.\n")
            .unwrap();
    };
    let setup = Setup { prepare, ..Setup::new("[script: skill name=greet args=you]") };
    let Some(run) = run_with(setup).await else { return };
    run.assert_succeeded();
    assert!(run.blocks("tool_result")[0]["content"].as_str().unwrap().contains("greet"));
}

#[tokio::test]
async fn claude_calls_a_tool_of_an_mcp_server() {
    let setup = Setup {
        args: &["--strict-mcp-config", "--mcp-config", "mcp.json"],
        prepare: |folder| {
            std::fs::write(folder.join("server.sh"), include_str!("mcp.sh")).unwrap();
            let servers = json!({"mcpServers": {"tiny": {"command": "bash", "args": ["server.sh"]}}});
            std::fs::write(folder.join("mcp.json"), servers.to_string()).unwrap();
        },
        ..Setup::new("[script: mcp tool=mcp__tiny__echo input={\"text\":\"ping\"}]")
    };
    let Some(run) = run_with(setup).await else { return };
    run.assert_succeeded();
    assert_eq!(run.blocks("tool_result")[0]["content"][0]["text"], "pong");
}

#[tokio::test]
async fn claude_loops_until_its_turns_are_used_up() {
    let setup = Setup { args: &["--max-turns", "3"], ..Setup::new("[script: loop]") };
    let Some(run) = run_with(setup).await else { return };
    assert_eq!(run.result()["terminal_reason"], "max_turns");
    let outputs: Vec<_> = run.blocks("tool_result").iter().map(|block| block["content"].clone()).collect();
    assert_eq!(outputs, ["round 1", "round 2", "round 3"]);
}

#[tokio::test]
async fn claude_with_a_wrong_token_cannot_authenticate() {
    let setup = Setup { token: "other-token", ..Setup::new("[script: text]") };
    let Some(run) = run_with(setup).await else { return };
    run.assert_failed(401);
}

#[tokio::test]
async fn claude_reports_a_usage_limit_as_one() {
    let Some(run) = run("[script: usage-limit]").await else { return };
    run.assert_failed(429);
    assert_eq!(run.result()["api_error"], "usage_limit_reached");
    let limit = run.lines.iter().find(|line| line["type"] == "rate_limit_event").unwrap();
    assert_eq!(limit["rate_limit_info"]["resetsAt"], 4_102_444_800_u64);
    assert_eq!(run.api.requests().len(), 1, "it must not be tried again");
}

#[tokio::test]
async fn claude_tries_again_when_the_api_is_overloaded() {
    let Some(run) = run("[script: status code=529]").await else { return };
    run.assert_failed(529);
    assert_eq!(run.api.requests().len(), 2);
}

#[tokio::test]
async fn claude_fails_on_an_error_inside_the_stream() {
    let Some(run) = run("[script: stream-error]").await else { return };
    run.assert_failed(529);
}

#[tokio::test]
async fn claude_asks_without_a_stream_once_two_were_cut() {
    let Some(run) = run("[script: cut-stream]").await else { return };
    run.assert_succeeded();
    let streamed: Vec<_> = run.api.requests().iter().map(|seen| seen.body["stream"] == true).collect();
    assert_eq!(streamed, [true, true, false]);
    assert!(run.result()["result"].as_str().unwrap().contains("whole"));
}

#[tokio::test]
async fn claude_goes_on_at_the_token_limit_and_then_gives_up() {
    let Some(run) = run("[script: max-tokens]").await else { return };
    run.assert_failed(Value::Null);
    assert_eq!(run.result()["api_error"], "max_output_tokens");
    assert_eq!(run.api.requests().len(), 4);
}

#[tokio::test]
async fn claude_takes_a_refusal_for_one() {
    let Some(run) = run("[script: refusal]").await else { return };
    run.assert_failed(Value::Null);
    assert_eq!(run.result()["stop_reason"], "refusal");
}

#[tokio::test]
async fn claude_asks_again_for_an_answer_that_is_not_empty() {
    let Some(run) = run("[script: empty]").await else { return };
    run.assert_succeeded();
    assert_eq!(run.api.requests().len(), 2);
}

#[tokio::test]
async fn claude_prints_a_text_of_megabytes_on_one_line() {
    let Some(run) = run("[script: big-text megabytes=2]").await else { return };
    run.assert_succeeded();
    assert_eq!(run.result()["result"].as_str().unwrap().len(), 2_000_000);
}

#[tokio::test]
async fn claude_follows_steps_of_any_kind() {
    let steps = json!([
        {"text": "first", "tools": [{"name": "Bash", "input": {"command": "pwd >where.txt"}}]},
        {"tools": [{"name": "Read", "input": {"file_path": "{cwd}/where.txt"}}], "pause_ms": 1},
        {"thinking": "hm", "text": "last"},
    ]);
    let Some(run) = run(&format!("[script: steps list={steps}]")).await else { return };
    run.assert_succeeded();
    assert_eq!(run.result()["result"], "last");
    assert_eq!(run.file("where.txt").trim(), run.folder.path().to_str().unwrap());
}
