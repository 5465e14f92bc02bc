//! An agent that a task is run by: its tools, its model, the length of its answers.

use serde_json::{Value, json};

use super::super::world::World;
use super::{bash, delegate, init, put, steps, tool, tools_of};

fn system(body: &Value) -> String {
    body["system"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_has_the_tools_of_its_list_and_its_model_unless_the_task_names_one() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(
        &world,
        "agent/_global/reader/agent.json",
        r#"{"name": "reader", "model": "haiku", "system_prompt": "canary-of-the-agent", "tools": ["Read", "Glob", "Grep"]}"#,
    );
    let prompt =
        steps(&[bash("touch ran.txt"), tool("Read", &json!({"file_path": "/workspace/repo/a.txt"}))]);
    let ended = world.outcome_of(&["--agent", "reader", &prompt]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(init(&ended)["tools"], json!(["Read", "Glob", "Grep"]));
    let said = ended.tool_results();
    assert!(said[0].contains("No such tool available: Bash"), "{said:?}");
    assert!(said[1].contains("two"), "{said:?}");
    assert_eq!(ended.own("denied").next().unwrap()["tool"], "Bash");
    assert_eq!(world.branches(), [""; 0]);
    let body = world.api.requests().remove(0).body;
    assert_eq!(tools_of(&body), ["Glob", "Grep", "Read"]);
    assert!(body["model"].as_str().unwrap().contains("haiku"), "{}", body["model"]);
    assert!(system(&body).contains("canary-of-the-agent"));

    let before = world.api.requests().len();
    let ended = world.outcome_of(&["--agent", "reader", "--model", "sonnet", "[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let body = world.api.requests().remove(before).body;
    assert!(body["model"].as_str().unwrap().contains("sonnet"), "{}", body["model"]);
    world.end().await;
}

/// What the CLI knows of agents and mayfly does not goes on to it, also where it is more than words.
#[tokio::test(flavor = "multi_thread")]
async fn an_agents_own_hooks_fire_though_they_stand_in_its_markdown() {
    let Some(world) = World::start(|_| {}).await else { return };
    let hook = "hooks:\n  PostToolUse:\n    - matcher: Bash\n      hooks:\n        - type: command\n          command: touch /workspace/repo/hooked.txt\n";
    put(&world, "agent/_global/helper/agent.md", &format!("---\n{hook}---\nHelp."));
    let ended = world.outcome_of(&[&steps(&[delegate("helper", &bash("echo on"))])]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let branch = world.branches().remove(0);
    assert_eq!(world.git(&["show", &format!("{branch}:hooked.txt")]), "");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_of_tools_allows_none() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "agent/_global/sage/agent.md", "---\ntools: []\n---\nThink.");
    let ended = world.outcome_of(&["--agent", "sage", &steps(&[bash("touch ran.txt")])]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(init(&ended)["tools"], json!([]));
    assert!(ended.tool_results()[0].contains("No such tool available: Bash"), "{:?}", ended.tool_results());
    let bodies = world.api.requests();
    assert!(bodies.iter().all(|request| request.body["tools"].as_array().is_none_or(Vec::is_empty)));
    assert_eq!(world.branches(), [""; 0]);
    world.end().await;
}

/// What the agent is denied, nobody in its session may do, whatever mode a sub-agent's definition asks for.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_is_denied_no_sub_agent_may_do() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(
        &world,
        "agent/_global/lead/agent.json",
        r#"{"name": "lead", "system_prompt": "Lead.", "deniedTools": ["Write", "Bash(touch:*)"]}"#,
    );
    let modes = ["default", "acceptEdits", "dontAsk", "plan", "bypassPermissions"];
    for mode in modes {
        let agent = json!({
            "name": mode, "system_prompt": "Help.", "permissionMode": mode, "tools": ["Bash", "Write"]
        });
        put(&world, &format!("agent/_global/{mode}/agent.json"), &agent.to_string());
    }
    let touch = bash("touch ran.txt");
    let write = tool("Write", &json!({"file_path": "/workspace/repo/ran.txt", "content": "x"}));
    let mut all = vec![bash("echo allowed"), touch.clone(), write.clone()];
    for agent in modes.into_iter().chain(["general-purpose"]) {
        all.extend([delegate(agent, &touch), delegate(agent, &write)]);
    }
    let ended = world.outcome_of(&["--agent", "lead", &steps(&all)]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(ended.tool_results()[0], "allowed");
    let refused = |words: &str| ended.tool_results().iter().filter(|said| said.starts_with(words)).count();
    assert_eq!(refused("Permission to use Bash with command touch ran.txt has been denied"), 7);
    assert_eq!(refused("<tool_use_error>Error: No such tool available: Write"), 7);
    assert_eq!(world.branches(), [""; 0], "nothing was written");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_long_for_an_agent_ends_its_task() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "agent/_global/brief/agent.md", "---\nmax_tokens: 777\n---\nBe brief.");
    let ended = world.outcome_of(&["--agent", "brief", "[script: max-tokens]"]).await;
    let (outcome, detail) = ended.outcome();
    assert_eq!((ended.code, outcome), (Some(1), "max-tokens"), "{}", ended.stderr);
    assert!(detail.contains("777"), "{detail}");
    assert!(world.api.requests().iter().all(|request| request.body["max_tokens"] == 777));
    world.end().await;
}

/// A sub-agent's answers are bounded by the gateway: the CLI has no word for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agents_answers_are_bounded_outside_of_the_machine() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "agent/_global/brief/agent.md", "---\nmax_tokens: 777\n---\nBe brief.");
    put(&world, "agent/_global/long/agent.md", "Be long.");
    let step = json!({"text": "done"});
    let all = steps(&[delegate("brief", &step), delegate("long", &step), delegate("general-purpose", &step)]);
    let ended = world.outcome_of(&[&all]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let requests = world.api.requests();
    let of_agents = requests.iter().filter(|request| request.header("x-claude-code-agent-id").is_some());
    let bounds: Vec<_> = of_agents.map(|request| request.body["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(bounds.len(), 3, "{bounds:?}");
    assert!(bounds[0] == 777 && bounds[1..].iter().all(|tokens| *tokens > 777), "{bounds:?}");
    let of_main = requests.iter().filter(|request| request.header("x-claude-code-agent-id").is_none());
    assert!(of_main.map(|request| request.body["max_tokens"].as_u64().unwrap()).all(|tokens| tokens > 777));
    world.end().await;
}
