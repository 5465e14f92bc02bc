//! What `claude` says of itself is compared with what the library says before the model's first answer reaches it.

use serde_json::Value;

use super::super::world::{Ended, World};
use super::{init, put, steps};

/// A call that would run at once, and leave a file.
fn instant() -> String {
    steps(&[super::bash("touch ran.txt")])
}

/// The task ended by this difference, and neither a tool nor a word of the model got as far as `claude`.
pub(super) fn assert_stopped(world: &World, ended: &Ended, difference: &str) {
    let (outcome, detail) = ended.outcome();
    assert_eq!((ended.code, outcome), (Some(1), "init-mismatch"), "{detail} {}", ended.stderr);
    assert!(detail.contains(difference), "{detail}");
    assert!(ended.stderr.contains(difference), "{}", ended.stderr);
    let spoken = |kind: &&serde_json::Value| kind["type"] == "assistant" || kind["type"] == "user";
    assert_eq!(ended.claude_lines().filter(spoken).count(), 0, "the answer must not have come through");
    assert_eq!(world.branches(), [""; 0], "no tool may have run");
    assert!(!super::told(world).contains("tool_result"));
}

/// S61: the CLI gives an agent with a memory tools to write it, whatever its list says.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_beyond_the_agents_list_ends_the_task_before_any_has_run() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(
        &world,
        "agent/_global/reader/agent.json",
        r#"{"name": "reader", "system_prompt": "Read.", "tools": ["Read", "Bash"], "memory": "project"}"#,
    );
    let ended = world.outcome_of(&["--agent", "reader", &instant()]).await;
    assert_stopped(&world, &ended, "the tool Edit is there, and the agent's list does not have it");
    world.end().await;
}

/// S61: the CLI goes on with an agent of its own where nobody has the one that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_nobody_has_ends_the_task_before_any_tool_has_run() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["--agent", "nobody", &instant()]).await;
    assert_stopped(&world, &ended, "the agent nobody is not there");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_ends_the_task_where_it_is_required() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "mcp/repo/gone/mcp.json", r#"{"command": "/nonexistent/server"}"#);
    let ended = world.outcome_of(&[&instant()]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let told: Vec<_> = ended.own("warning").map(|warning| warning["text"].as_str().unwrap()).collect();
    assert_eq!(told, ["the MCP server gone is failed: the agent goes on without it"]);
    assert_eq!(world.branches().len(), 1, "the agent went on");
    world.git(&["branch", "-q", "-D", &world.branches().remove(0)]);

    put(&world, "mcp/repo/gone/mayfly.toml", "required = true\n");
    let ended = world.outcome_of(&[&instant()]).await;
    assert_eq!(ended.outcome().0, "init-mismatch");
    assert!(ended.outcome().1.contains("the MCP server gone, which is required, is failed"));
    assert_eq!(ended.tool_results(), [""; 0]);

    // An agent that names its tools cannot do without it, unless its owner has said so.
    std::fs::remove_file(world.dir.path().join("data/library/mcp/repo/gone/mayfly.toml")).unwrap();
    put(&world, "agent/repo/asker/agent.md", "allowedTools: [Bash, mcp__gone__ask]\nAsk.");
    let ended = world.outcome_of(&["--agent", "asker", &instant()]).await;
    assert!(
        ended.outcome().1.contains("the MCP server gone, which is required, is failed"),
        "{}",
        ended.stderr
    );
    assert_eq!((ended.tool_results(), world.branches()), (vec![], vec![]));

    // So it is for one of the repository's, trusted or not.
    let folder = world.repo().join(".claude/agents");
    std::fs::create_dir_all(&folder).unwrap();
    let own = "---\nname: own\ndescription: d\ntools: Bash, mcp__gone__ask\n---\nAsk.";
    std::fs::write(folder.join("own.md"), own).unwrap();
    for trust in [&[][..], &["--trust-repo"]] {
        let ended = world.outcome_of(&[trust, &["--agent", "own", &instant()]].concat()).await;
        let (outcome, detail) = ended.outcome();
        assert_eq!(outcome, "init-mismatch", "{detail}");
        assert!(detail.contains("the MCP server gone, which is required, is failed"), "{detail}");
        assert_eq!((ended.tool_results(), world.branches()), (vec![], vec![]));
    }
    world.end().await;
}

/// Seconds within which `init` is there though a server says nothing: `MCP_TIMEOUT` and what else a start takes. Without
/// that limit the CLI waits for 30.
pub(super) const INIT_SECONDS_MAX: f64 = 20.0;

/// How long it took from the start of `claude` to its first message.
pub(super) fn seconds_to_init(ended: &Ended) -> f64 {
    let at = |event: &Value| event["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let running = ended.events.iter().find(|event| event["event"]["type"] == "running").unwrap();
    let init = ended.events.iter().find(|event| event["line"]["subtype"] == "init").unwrap();
    at(init).duration_since(at(running)).as_secs_f64()
}

/// One that begins well, and does not say which tools it has: the CLI waits no longer for it, and calls it pending or, as two
/// times end at once, connected, with no tool of its own. Neither is good enough where it is required.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_says_what_it_has_is_one_that_failed() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "mcp/_global/mute/mcp.json", r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py"}"#);
    let lists = "method == \"tools/list\":";
    let mute =
        super::SERVER.replace(lists, &format!("{lists}\n        continue\n    elif method == \"none\":"));
    assert_ne!(mute, super::SERVER);
    put(&world, "mcp/_global/mute/server.py", &mute);
    put(&world, "mcp/_global/mute/mayfly.toml", "required = true\n");
    let ended = world.outcome_of(&[&instant()]).await;
    assert!(seconds_to_init(&ended) < INIT_SECONDS_MAX, "{}", seconds_to_init(&ended));
    let said = init(&ended);
    assert!(!said["tools"].to_string().contains("mcp__mute"), "{said}");
    let status = said["mcp_servers"][0]["status"].as_str().unwrap();
    let words = if status == "connected" { "connected and has named no tool in time" } else { "pending" };
    assert_stopped(&world, &ended, &format!("the MCP server mute, which is required, is {words}"));
    world.end().await;
}

/// The CLI calls a server connected that has no tools to name: where it is required, that is no better.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_tool_is_told_of_and_is_not_enough_where_it_is_required() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "mcp/_global/bare/mcp.json", r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py"}"#);
    let bare = super::SERVER.replace(r#""capabilities": {"tools": {}}"#, r#""capabilities": {}"#);
    assert_ne!(bare, super::SERVER);
    put(&world, "mcp/_global/bare/server.py", &bare);
    let ended = world.outcome_of(&["[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(init(&ended)["mcp_servers"][0]["status"], "connected");
    let told: Vec<_> = ended.own("warning").map(|warning| warning["text"].as_str().unwrap()).collect();
    assert_eq!(told, ["the MCP server bare is connected and has named no tool in time"]);

    put(&world, "mcp/_global/bare/mayfly.toml", "required = true\n");
    let ended = world.outcome_of(&[&instant()]).await;
    let words = "the MCP server bare, which is required, is connected and has named no tool in time";
    assert_stopped(&world, &ended, words);
    world.end().await;
}

/// The agent has begun in time and come to its end, and its owner is told that it had not this server.
pub(super) fn assert_goes_on_without(ended: &Ended, server: &str) {
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert!(seconds_to_init(ended) < INIT_SECONDS_MAX, "{}", seconds_to_init(ended));
    let status = init(ended)["mcp_servers"][0]["status"].as_str().unwrap();
    assert!(["failed", "pending"].contains(&status), "{status}");
    let told: Vec<_> = ended.own("warning").map(|warning| warning["text"].as_str().unwrap()).collect();
    assert_eq!(told, [format!("the MCP server {server} is {status}: the agent goes on without it")]);
}

/// A server that reads and says nothing is waited for as long as `MCP_TIMEOUT` says, and has failed then, or is as good as
/// that.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_one_that_failed() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "mcp/_global/mute/mcp.json", r#"{"command": "${CLAUDE_PLUGIN_ROOT}/mute.sh"}"#);
    put(&world, "mcp/_global/mute/mute.sh", "#!/bin/sh\nwhile read -r line; do :; done\n");
    let ended = world.outcome_of(&["[script: text]"]).await;
    assert_goes_on_without(&ended, "mute");

    put(&world, "mcp/_global/mute/mayfly.toml", "required = true\n");
    let ended = world.outcome_of(&[&instant()]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "init-mismatch"), "{}", ended.stderr);
    assert!(ended.outcome().1.contains("the MCP server mute, which is required, is "), "{}", ended.stderr);
    assert_eq!((ended.tool_results(), world.branches()), (vec![], vec![]));
    world.end().await;
}
