//! What is denied is denied in every permission mode that a definition or a setting asks for, and each project has its own.

use futures_util::future::join_all;
use mayfly_library::known::TOOLS;
use serde_json::{Value, json};

use super::super::world::World;
use super::{bash, delegate, init, own_skills, put, skill, steps, told, tool};

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
        put(&world, &format!("rules/{mode}/own/own.md"), &format!("rule-of-{mode}."));
        skill(&world, &format!("{mode}/own-{mode}"), "words");
    }
    let touch = bash("touch ran.txt");
    let write = tool("Write", &json!({"file_path": "/workspace/repo/ran.txt", "content": "x"}));
    let prompt =
        steps(&[bash("echo allowed"), touch.clone(), write.clone(), delegate("general-purpose", &touch)]);
    let run = async |mode: &str| world.outcome_of(&["--project", mode, "--agent", "lead", &prompt]).await;
    let all = join_all(MODES.map(run)).await;
    for (ended, mode) in all.iter().zip(MODES) {
        assert_eq!(ended.code, Some(0), "{mode}: {:?} {}", ended.outcome(), ended.stderr);
        assert_eq!(own_skills(ended), [format!("own-{mode}")]);
        let tools = init(ended)["tools"].as_array().unwrap();
        for denied in ["Write", "WebSearch"] {
            assert!(!tools.contains(&json!(denied)), "{mode}: {tools:?}");
        }
        let said = ended.tool_results();
        assert_eq!(said[0], "allowed", "{mode}");
        let touched = "Permission to use Bash with command touch ran.txt has been denied";
        assert!(said[1].starts_with(touched), "{mode}: {said:?}");
        assert!(said[2].contains("No such tool available: Write"), "{mode}: {said:?}");
        assert!(said.iter().filter(|said| said.starts_with(touched)).count() == 2, "{mode}: {said:?}");
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
