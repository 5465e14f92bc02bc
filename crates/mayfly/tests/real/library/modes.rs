//! What is denied is denied in every permission mode that a definition or a setting asks for, and each project has its own.
//! The CLI itself is always asked for the one mode; what holds in its others is tried by the worker's own tests.

use futures_util::future::join_all;
use mayfly_library::known::TOOLS;
use serde_json::{Value, json};

use super::super::world::World;
use super::{SERVER, bash, delegate, init, own_skills, put, skill, steps, told, tool};

const MODES: [&str; 5] = ["default", "acceptEdits", "dontAsk", "plan", "bypassPermissions"];

/// Five projects side by side, each with a mode of its own in its settings and in the agent that its task is run by.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_denied_in_every_mode_and_each_project_sees_its_own() {
    let Some(world) = World::start(|_| {}).await else { return };
    for mode in MODES {
        let permissions =
            json!({"defaultMode": mode, "allow": ["Bash", "Write"], "deny": ["Write", "Bash(touch:*)"]});
        let settings = json!({"permissions": permissions});
        put(&world, &format!("settings/{mode}/base/settings.json"), &settings.to_string());
        let lead = json!({
            "name": "lead", "system_prompt": format!("canary-of-{mode}."), "permissionMode": mode,
            "deniedTools": ["WebSearch"]
        });
        put(&world, &format!("agent/{mode}/lead/agent.json"), &lead.to_string());
        let helper = format!("---\npermissionMode: {mode}\ntools: Bash, Write\n---\nHelp.");
        put(&world, &format!("agent/{mode}/helper/agent.md"), &helper);
        put(&world, &format!("rules/{mode}/own/own.md"), &format!("rule-of-{mode}."));
        skill(&world, &format!("{mode}/own-{mode}"), "words");
    }
    let touch = bash("touch ran.txt");
    let write = tool("Write", &json!({"file_path": "/workspace/repo/ran.txt", "content": "x"}));
    let prompt = steps(&[
        bash("echo allowed"),
        touch.clone(),
        write.clone(),
        delegate("general-purpose", &touch),
        delegate("helper", &touch),
        delegate("helper", &write),
    ]);
    let run = async |mode: &str| world.outcome_of(&["--project", mode, "--agent", "lead", &prompt]).await;
    let all = join_all(MODES.map(run)).await;
    for (ended, mode) in all.iter().zip(MODES) {
        assert_eq!(ended.code, Some(0), "{mode}: {:?} {}", ended.outcome(), ended.stderr);
        assert_eq!(own_skills(ended), [format!("own-{mode}")]);
        assert_eq!(init(ended)["permissionMode"], "bypassPermissions", "{mode}");
        let tools = init(ended)["tools"].as_array().unwrap();
        for denied in ["Write", "WebSearch"] {
            assert!(!tools.contains(&json!(denied)), "{mode}: {tools:?}");
        }
        let said = ended.tool_results();
        assert_eq!(said[0], "allowed", "{mode}");
        let touched = "Permission to use Bash with command touch ran.txt has been denied";
        assert!(said[1].starts_with(touched), "{mode}: {said:?}");
        let absent = "<tool_use_error>Error: No such tool available: Write";
        assert!(said[2].starts_with(absent), "{mode}: {said:?}");
        let refused = |words: &str| said.iter().filter(|said| said.starts_with(words)).count();
        assert_eq!((refused(touched), refused(absent)), (3, 2), "{mode}: {said:?}");
    }
    for request in world.api.requests() {
        let body = request.body.to_string();
        let of =
            |what: &str| MODES.iter().filter(|mode| body.contains(&format!("{what}-of-{mode}."))).count();
        assert_eq!(of("rule"), 1, "each has the rules of its own project");
        assert!(of("canary") <= 1);
    }
    assert!(MODES.iter().all(|mode| told(&world).contains(&format!("canary-of-{mode}."))));
    assert_eq!(world.branches(), [""; 0], "nothing was written");
    world.end().await;
}

/// A name that is no tool's denies nothing: the task's log says so. All that the CLI has itself is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_denied_tool_that_nobody_has_is_told_of() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(
        &world,
        "settings/_global/base/settings.json",
        r#"{"permissions": {"deny": ["WebFech", "NotebookEdit"]}}"#,
    );
    put(&world, "agent/_global/lead/agent.md", "---\ndeniedTools: Bsah, mcp__gone\n---\nLead.");
    let ended = world.outcome_of(&["--agent", "lead", "[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let told: Vec<_> = ended.own("warning").map(|warning| warning["text"].as_str().unwrap()).collect();
    assert_eq!(
        told,
        [
            "`Bsah` is no tool that is known here, and counts for nothing; Bash is one",
            "`WebFech` is no tool that is known here, and counts for nothing; WebFetch is one",
            "`mcp__gone` is no tool that is known here, and counts for nothing",
        ]
    );
    let tools = init(&ended)["tools"].as_array().unwrap();
    for tool in tools.iter().filter_map(Value::as_str) {
        assert!(TOOLS.contains(&tool), "{tool} is a tool of the CLI's and not known");
    }
    world.end().await;
}

/// A pattern takes the tools of servers away as a server's name does, from sub-agents too; what it leaves is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_denies_the_tools_of_servers_that_are_like_it() {
    let Some(world) = World::start(|_| {}).await else { return };
    let one = r#"{"name": "ask", "#;
    let two =
        SERVER.replace(one, &format!(r#"{{"name": "tell", "inputSchema": {{"type": "object"}}}}, {one}"#));
    assert_ne!(two, SERVER);
    put(&world, "mcp/_global/tiny/mcp.json", r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py"}"#);
    put(&world, "mcp/_global/tiny/server.py", &two);
    let ask = tool("mcp__tiny__ask", &json!({}));
    let prompt = steps(&[ask.clone(), delegate("general-purpose", &ask)]);
    for (number, (rule, left)) in
        [("mcp__*", &[][..]), ("mcp__tiny", &[]), ("mcp__t*", &[]), ("mcp__*__ask", &["mcp__tiny__tell"])]
            .into_iter()
            .enumerate()
    {
        let project = format!("p{number}");
        let settings = json!({"permissions": {"deny": [rule]}});
        put(&world, &format!("settings/{project}/base/settings.json"), &settings.to_string());
        let ended = world.outcome_of(&["--project", &project, &prompt]).await;
        assert_eq!(ended.code, Some(0), "{rule}: {:?} {}", ended.outcome(), ended.stderr);
        assert_eq!(init(&ended)["mcp_servers"][0]["status"], "connected", "{rule}");
        let tools = init(&ended)["tools"].as_array().unwrap();
        let of_server = tools.iter().filter_map(Value::as_str).filter(|tool| tool.starts_with("mcp__"));
        assert_eq!(of_server.collect::<Vec<_>>(), left, "{rule}");
        let said = ended.tool_results();
        let absent = "<tool_use_error>Error: No such tool available: mcp__tiny__ask";
        assert_eq!(said.iter().filter(|said| said.starts_with(absent)).count(), 2, "{rule}: {said:?}");
        assert_eq!(ended.own("warning").count(), 0, "{rule} is about a server that there is");
    }
    world.end().await;
}
