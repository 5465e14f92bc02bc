//! What a task asks for itself: more, less, a content by name; and which project its repository means.

use serde_json::{Value, json};

use super::super::world::World;
use super::{SERVER, bash, init, own_skills, put, skill, steps, told, tool};

/// What is added comes from wherever it is; what is left out has no part in the task.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_gets_what_it_adds_and_not_what_it_leaves_out() {
    let Some(world) = World::start(|_| {}).await else { return };
    skill(&world, "other/own-extra", "more");
    put(&world, "mcp/other/tiny/mcp.json", r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py"}"#);
    put(&world, "mcp/other/tiny/server.py", SERVER);
    skill(&world, "_global/own-usual", "less");
    put(&world, "rules/_global/loud/loud.md", "canary-of-the-rule");
    put(&world, "agent/_global/reader/agent.md", "Read.");
    put(&world, "mcp/_global/gone/mcp.json", r#"{"command": "/nonexistent/server"}"#);
    put(
        &world,
        "hooks/_global/note/hooks.json",
        r#"{"PostToolUse": [{"hooks": [{"type": "command", "command": "touch /workspace/repo/hooked.txt"}]}]}"#,
    );
    put(&world, "settings/_global/base/settings.json", r#"{"env": {"CANARY_OF_SETTINGS": "in-force"}}"#);
    let prompt = steps(&[tool("mcp__tiny__ask", &json!({})), bash("echo x$CANARY_OF_SETTINGS")]);
    let add = ["--skill", "other/own-extra", "--mcp", "other/tiny"];
    let without = [
        ["--no-skill", "own-usual"],
        ["--no-rules", "loud"],
        ["--no-agent", "reader"],
        ["--no-mcp", "_global/gone"],
        ["--no-hooks", "note"],
        ["--no-settings", "base"],
    ];
    let flags = [&add[..], without.as_flattened(), &[prompt.as_str()]].concat();
    let ended = world.outcome_of(&flags).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(ended.own("locked").next().unwrap()["resources"], 2);
    assert_eq!(own_skills(&ended), ["own-extra"]);
    let servers = json!([{"name": "tiny", "source": "dynamic", "status": "connected"}]);
    assert_eq!(init(&ended)["mcp_servers"], servers);
    assert!(!init(&ended)["agents"].as_array().unwrap().contains(&json!("reader")));
    let said = ended.tool_results();
    assert!(said[0].contains("answered "), "{said:?}");
    assert_eq!(said[1], "x");
    assert!(!told(&world).contains("canary-of-the-rule"));
    assert_eq!(world.branches(), [""; 0], "the hook did not fire");

    let asked = world.api.requests().len();
    let refused = world.outcome_of(&["--skill", "own-none", "--no-mcp", "none", "[script: text]"]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for words in [
        "skill/own-none: is not in the library: `mayfly library ls` lists what is",
        "mcp/none: is to be left out and is not in the library",
    ] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    assert_eq!(world.api.requests().len(), asked, "nothing was started");
    world.end().await;
}

/// A content that a task once had can be asked for by its name, whatever the library has become; one that nobody had is
/// refused before anything is started.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_is_asked_for_by_its_name() {
    let Some(world) = World::start(|_| {}).await else { return };
    skill(&world, "_global/own-pinned", "words-of-before");
    put(&world, "agent/_global/lead/agent.md", "canary-of-the-lead");
    let listed: Value =
        serde_json::from_str(&world.mayfly(&["library", "ls", "--json"]).await.text()).unwrap();
    let content = |id: &str| {
        let resources = listed["resources"].as_array().unwrap();
        let found = resources.iter().find(|one| one["id"] == id).unwrap();
        found["sha256"].as_str().unwrap()[..12].to_owned()
    };
    let (pinned, lead) = (content("skill/_global/own-pinned"), content("agent/_global/lead"));
    let before = world.outcome_of(&["[script: text]"]).await;
    assert_eq!(before.code, Some(0), "{:?} {}", before.outcome(), before.stderr);
    skill(&world, "_global/own-pinned", "words-of-after");
    put(&world, "agent/_global/lead/agent.md", "canary-of-another");

    let asked = world.api.requests().len();
    let prompt = steps(&[tool("Skill", &json!({"skill": "own-pinned"}))]);
    let (skill_flag, agent_flag) = (format!("own-pinned@{pinned}"), format!("_global/lead@{lead}"));
    let ended = world.outcome_of(&["--skill", &skill_flag, "--agent", &agent_flag, &prompt]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let told: String = world.api.requests()[asked..].iter().map(|request| request.body.to_string()).collect();
    assert!(told.contains("words-of-before") && !told.contains("words-of-after"));
    assert!(told.contains("canary-of-the-lead") && !told.contains("canary-of-another"));

    let asked = world.api.requests().len();
    let refused = world.outcome_of(&["--skill", "own-pinned@0123456789ab", &prompt]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let words = "skill/_global/own-pinned: is not 0123456789ab any more, and nothing of that content is kept beside the \
                 library: `mayfly library ls` shows what it is now";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    let refused = world.outcome_of(&["--skill", "own-pinned@latest", &prompt]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert_eq!(world.api.requests().len(), asked, "nothing was started");
    world.end().await;
}

/// A repository is of the project that the configuration says, else of the one that is called as it is; a task's own word
/// counts before both.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_of_the_project_that_the_configuration_names() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let world = World::configured(claude, |config| {
        config.projects = [("repo".to_owned(), "site".parse().unwrap())].into();
    })
    .await;
    for project in ["site", "repo", "_global"] {
        skill(&world, &format!("{project}/own-of-{project}"), "words");
    }
    let ended = world.outcome_of(&["[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(own_skills(&ended), ["own-of-_global", "own-of-site"]);
    let ended = world.outcome_of(&["--project", "repo", "[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(own_skills(&ended), ["own-of-_global", "own-of-repo"]);
    world.end().await;
}
