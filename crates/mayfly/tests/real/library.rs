//! The library, with the real `claude`: what the model is told of each kind, and what holds an agent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::world::{Ended, World};

mod agents;
mod asked;
mod checked;
mod fetched;
mod gate;
mod merged;
mod modes;
mod overrides;
mod reach;
mod rules;
mod scopes;
mod secrets;

/// Puts a file into the library; a script can be run.
fn put(world: &World, path: &str, text: &str) {
    let path = world.dir.path().join("data/library").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let mode = if path.extension().is_some_and(|end| end == "sh" || end == "py") { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn steps(steps: &[Value]) -> String {
    format!("[script: steps list={}]", json!(steps))
}

fn tool(name: &str, input: &Value) -> Value {
    json!({"tools": [{"name": name, "input": input}]})
}

fn bash(command: &str) -> Value {
    tool("Bash", &json!({"command": command}))
}

/// A sub-agent that is to do one step.
fn delegate(agent: &str, step: &Value) -> Value {
    let prompt = steps(std::slice::from_ref(step));
    tool("Agent", &json!({"description": "a part", "subagent_type": agent, "prompt": prompt}))
}

/// What `claude` says of itself first.
fn init(ended: &Ended) -> &Value {
    ended.claude_lines().find(|line| line["subtype"] == "init").unwrap()
}

/// The project's skills that `claude` lists: those whose names begin so.
fn own_skills(ended: &Ended) -> Vec<&str> {
    let mut skills: Vec<_> =
        init(ended)["skills"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    skills.retain(|skill| skill.starts_with("own-"));
    skills.sort_unstable();
    skills
}

/// Puts a skill that the CLI lists into the library.
fn skill(world: &World, path: &str, words: &str) {
    let name = path.rsplit('/').next().unwrap();
    put(
        world,
        &format!("skill/{path}/SKILL.md"),
        &format!("---\nname: {name}\ndescription: {words}\n---\n{words}"),
    );
}

/// All that the model was told.
fn told(world: &World) -> String {
    world.api.requests().iter().map(|request| request.body.to_string()).collect()
}

/// What the CLI puts into requests where it may name more tools later; it is none itself.
const PLACEHOLDER: &str = "DeferredToolPlaceholder";

/// The tools that the model is told of in a request, by name.
fn tools_of(body: &Value) -> Vec<&str> {
    let tools = body["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap());
    let mut tools: Vec<_> = tools.filter(|name| *name != PLACEHOLDER).collect();
    tools.sort_unstable();
    tools
}

/// An MCP server over standard input with one tool, which says what it was given in its environment, or that reversed.
const SERVER: &str = r#"#!/usr/bin/env python3
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    method, answer = asked["method"], {"jsonrpc": "2.0", "id": asked["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                            "serverInfo": {"name": "tiny", "version": "1"}}
    elif method == "tools/list":
        answer["result"] = {"tools": [{"name": "ask", "description": "canary-of-the-server",
                                       "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        mode = os.environ.get("MODE", "")
        mode = mode[::-1] if asked["params"].get("arguments", {}).get("reversed") else mode
        answer["result"] = {"content": [{"type": "text", "text": "answered " + mode}]}
    else:
        answer["error"] = {"code": -32601, "message": "no such method"}
    print(json.dumps(answer), flush=True)
"#;

/// One of each kind.
fn fill(world: &World) {
    put(
        world,
        "skill/_global/canary-skill/SKILL.md",
        "---\nname: canary-skill\ndescription: says canary-of-the-description\n---\ncanary-of-the-skill",
    );
    put(world, "skill/_global/plain/SKILL.md", "It says nothing of itself.");
    let hidden = "---\ndescription: for the model alone\nuser-invocable: false\n---\nHidden.";
    put(world, "skill/_global/hidden/SKILL.md", hidden);
    put(
        world,
        "skill/_global/scoped/SKILL.md",
        "---\ndescription: for some files\npaths: \"*.xyz\"\n---\nScoped.",
    );
    put(world, "rules/_global/style/style.md", "canary-of-the-rule");
    put(
        world,
        "agent/_global/reader/agent.json",
        r#"{"name": "reader", "model": "haiku", "system_prompt": "canary-of-the-agent", "tools": ["Read", "Glob"], "max_tokens": 777}"#,
    );
    put(
        world,
        "mcp/_global/tiny/mcp.json",
        r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py", "env": {"MODE": "canary-of-the-mode"}}"#,
    );
    put(world, "mcp/_global/tiny/server.py", SERVER);
    put(
        world,
        "hooks/_global/note/hooks.json",
        r#"{"hooks": {"PostToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "./note.sh"}]}]}}"#,
    );
    put(world, "hooks/_global/note/note.sh", "#!/bin/sh\necho fired >> /workspace/repo/hooked.txt\n");
    put(
        world,
        "settings/_global/base/settings.json",
        r#"{"env": {"CANARY_OF_SETTINGS": "in-force"}, "permissions": {"deny": ["WebSearch", "Bash(echo denied:*)"]}}"#,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_told_of_each_kind_and_each_works() {
    let Some(world) = World::start(|_| {}).await else { return };
    fill(&world);
    let all = steps(&[
        tool("Skill", &json!({"skill": "canary-skill"})),
        tool("mcp__tiny__ask", &json!({})),
        tool("Bash", &json!({"command": "echo $CANARY_OF_SETTINGS"})),
        tool("Bash", &json!({"command": "echo denied by a rule"})),
        tool(
            "Agent",
            &json!({"description": "look", "subagent_type": "reader", "prompt": "[script: bash command=\"echo no\"]"}),
        ),
    ]);
    let ended = world.outcome_of(&[&all]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = ended.tool_results();
    assert_eq!(said[0], "Launching skill: canary-skill");
    assert!(said[1].contains("answered canary-of-the-mode"), "{said:?}");
    assert_eq!(said[2], "in-force");
    assert!(said[3].starts_with("Permission to use Bash with command echo denied"), "{said:?}");
    assert!(
        said[4].contains("No such tool available: Bash"),
        "the sub-agent has what its definition says: {said:?}"
    );
    assert_eq!(ended.own("denied").count(), 2);
    let requests = world.api.requests();
    let of_reader =
        requests.iter().find(|request| request.header("x-claude-code-agent-id").is_some()).unwrap();
    assert_eq!(tools_of(&of_reader.body), ["Glob", "Read"], "exactly what its definition says");
    let told = told(&world);
    for canary in ["description", "skill", "rule", "agent", "mode"] {
        assert!(told.contains(&format!("canary-of-the-{canary}")), "{canary}");
    }
    assert_eq!(
        init(&ended)["mcp_servers"],
        json!([{"name": "tiny", "source": "dynamic", "status": "connected"}])
    );
    let listed = init(&ended)["skills"].as_array().unwrap();
    for (skill, is_listed) in [("canary-skill", true), ("plain", false), ("hidden", false), ("scoped", false)]
    {
        assert_eq!(listed.contains(&json!(skill)), is_listed, "{skill}: {listed:?}");
    }
    let locked = ended.own("locked").next().unwrap();
    assert_eq!(locked["resources"], 9);
    let branch = world.branches().remove(0);
    assert_eq!(
        world.git(&["show", &format!("{branch}:hooked.txt")]),
        "fired",
        "a call that was denied was none"
    );
    world.end().await;
}

/// A server that `npx` would download is refused until it is locked; then it runs in a machine that has no way out.
#[tokio::test(flavor = "multi_thread")]
async fn what_npx_would_download_is_locked_once_and_runs_in_a_machine() {
    let Some(world) = World::start(|_| {}).await else { return };
    let package = json!({"name": "tiny", "version": "1.0.0", "bin": "main.js"});
    let Some(registry) = mayfly_test_needs::Registry::start(world.dir.path(), &package, JS_SERVER) else {
        return world.end().await;
    };
    put(&world, "mcp/_global/tiny/mcp.json", r#"{"command": "npx", "args": ["-y", "tiny@1.0.0", "here"]}"#);
    let ask = steps(&[tool("mcp__tiny__ask", &json!({}))]);
    let refused = world.outcome_of(&[&ask]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("would download in the machine: `mayfly library lock` fetches it once"),
        "{}",
        refused.stderr
    );

    let mut lock = world.plain_command(&["library", "lock", "--json"]);
    let locked = lock.env("npm_config_registry", registry.url()).stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8_lossy(&locked.stderr);
    assert!(locked.status.success() && said.contains("tiny runs tiny@1.0.0"), "{said}");
    drop(registry);
    let ended = world.outcome_of(&[&ask]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.tool_results()[0].contains("answered here"), "{:?}", ended.tool_results());
    let tools = world.dir.path().join("data/tools");
    let tree =
        fs::read_dir(&tools).unwrap().next().unwrap().unwrap().path().join("node_modules/tiny/main.js");
    assert_eq!(fs::read_to_string(tree).unwrap(), JS_SERVER, "and cannot be changed from inside");
    world.end().await;
}

/// The same server for node; it tries to change itself first.
const JS_SERVER: &str = r#"#!/usr/bin/env node
const fs = require("fs");
try { fs.appendFileSync(__filename, "// changed"); } catch (error) {}
const answers = {
    initialize: (asked) => ({
        protocolVersion: asked.params.protocolVersion, capabilities: { tools: {} },
        serverInfo: { name: "tiny", version: "1" },
    }),
    "tools/list": () => ({ tools: [{ name: "ask", description: "asks", inputSchema: { type: "object" } }] }),
    "tools/call": () => ({ content: [{ type: "text", text: "answered " + process.argv[2] }] }),
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
    const asked = JSON.parse(line);
    if (asked.id === undefined) return;
    const answer = answers[asked.method];
    const said = answer ? { result: answer(asked) } : { error: { code: -32601, message: "no such method" } };
    console.log(JSON.stringify({ jsonrpc: "2.0", id: asked.id, ...said }));
});
"#;

/// A library of the user's machine is handed over by content, and the orchestrator's own has no part in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_library_of_the_user_stands_in_for_that_of_the_orchestrator() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "rules/_global/style/style.md", "canary-of-the-orchestrator");
    let own = world.dir.path().join("own");
    for (path, text) in [
        ("agent/_global/reader/agent.md", "---\ntools: Read\n---\ncanary-of-the-agent"),
        ("rules/_global/style/style.md", "canary-of-the-user"),
    ] {
        let path = own.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::write(own.join("rules/_global/loose.md"), "in no folder").unwrap();
    let attempt = steps(&[tool("Bash", &json!({"command": "echo no"}))]);
    let ended = world.outcome_of(&["--library", own.to_str().unwrap(), "--agent", "reader", &attempt]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("in the library, rules/_global/loose.md: does not count"),
        "{}",
        ended.stderr
    );
    let init = ended.claude_lines().find(|line| line["subtype"] == "init").unwrap();
    assert_eq!(init["tools"], json!(["Read"]));
    assert_eq!(ended.own("denied").count(), 1);
    let told = told(&world);
    assert!(told.contains("canary-of-the-user") && told.contains("canary-of-the-agent"));
    assert!(!told.contains("canary-of-the-orchestrator"));
    world.end().await;
}
