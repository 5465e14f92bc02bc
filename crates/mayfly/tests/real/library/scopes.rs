//! Which task sees what: projects side by side, a repository's own beside the library's, and what a lock keeps.

use std::fs;

use serde_json::json;

use super::super::world::{Ended, World};
use super::{SERVER, init, own_skills, put, skill, steps, tool};

/// Each of two tasks at once has what is its project's, which stands before what is for all.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_two_projects_side_by_side_see_their_own() {
    let Some(world) = World::start(|_| {}).await else { return };
    skill(&world, "_global/own-all", "words for all");
    for project in ["one", "two"] {
        skill(&world, &format!("{project}/own-all"), &format!("words of {project}"));
        skill(&world, &format!("{project}/own-{project}"), "more");
    }
    let run = async |project: &str| {
        let prompt = "[script: steps list=[{\"hold\": \"both\", \"tools\": [{\"name\": \"Skill\", \"input\": {\"skill\": \"own-all\"}}]}]]";
        world.run(&["--project", project, prompt]).end().await
    };
    let both = async {
        world.api.held("both", 2).await;
        world.api.release("both");
    };
    let (one, two, ()) = tokio::join!(run("one"), run("two"), both);
    for (ended, project) in [(&one, "one"), (&two, "two")] {
        assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
        assert_eq!(own_skills(ended), ["own-all".to_owned(), format!("own-{project}")]);
        let locked = ended.own("locked").next().unwrap();
        assert_eq!(locked["shadowed"], json!(["skill/_global/own-all"]));
    }
    for request in world.api.requests() {
        let body = request.body.to_string();
        assert!(body.contains("words of one") != body.contains("words of two"), "each has its own");
        assert!(!body.contains("words for all"));
    }
    world.end().await;
}

/// A repository that is trusted has its servers beside the library's, which stand before those of the same name.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_repositorys_servers_are_beside_the_librarys() {
    let Some(world) = World::start(|_| {}).await else { return };
    let server = |mode: &str| json!({"command": "python3", "args": ["/workspace/repo/server.py"], "env": {"MODE": mode}});
    fs::write(world.repo().join("server.py"), SERVER).unwrap();
    let own =
        json!({"mcpServers": {"own": server("of-the-repository"), "both": server("of-the-repository")}});
    fs::write(world.repo().join(".mcp.json"), own.to_string()).unwrap();
    put(
        &world,
        "mcp/_global/both/mcp.json",
        r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py", "env": {"MODE": "of-the-library"}}"#,
    );
    put(&world, "mcp/_global/both/server.py", SERVER);
    let ask = steps(&[tool("mcp__own__ask", &json!({})), tool("mcp__both__ask", &json!({}))]);
    let ended = world.outcome_of(&["--trust-repo", &ask]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let said = ended.tool_results();
    assert!(said[0].contains("answered of-the-repository"), "{said:?}");
    assert!(said[1].contains("answered of-the-library"), "{said:?}");

    let ended = world.outcome_of(&[&ask]).await;
    assert_eq!(init(&ended)["mcp_servers"].as_array().unwrap().len(), 1, "else the library's alone");
    world.end().await;
}

/// An agent of a repository that is not trusted may be what the task is run by: its words and bounds count.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_run_by_an_agent_of_its_repository() {
    let Some(world) = World::start(|_| {}).await else { return };
    let folder = world.repo().join(".claude/agents");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("x.md"), "---\nname: x\ndescription: d\ntools: Read, Glob\n---\ncanary-of-x")
        .unwrap();
    let ended = world.outcome_of(&["--agent", "x", &steps(&[super::bash("touch ran.txt")])]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(init(&ended)["tools"], json!(["Read", "Glob"]));
    assert!(super::told(&world).contains("canary-of-x"));
    assert!(ended.tool_results()[0].contains("No such tool available: Bash"));
    world.end().await;
}

/// S05: so it is of one that is trusted, where the CLI reads the agent itself: what that is denied no sub-agent may do, and
/// bounds that the CLI does not read so end the task.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_a_trusted_repository_is_held_to_its_bounds() {
    let Some(world) = World::start(|_| {}).await else { return };
    let folder = world.repo().join(".claude/agents");
    fs::create_dir_all(&folder).unwrap();
    let own = |name: &str, bounds: &str| {
        let text = format!("---\nname: {name}\ndescription: d\n{bounds}\n---\ncanary-of-{name}");
        fs::write(folder.join(format!("{name}.md")), text).unwrap();
    };
    own("wide", "tools: Bash");
    own("x", "tools: Read, Agent\ndisallowedTools: Bash(touch:*)");
    let touch = super::bash("touch ran.txt");
    let all = steps(&[touch.clone(), super::delegate("wide", &touch)]);
    let ended = world.outcome_of(&["--trust-repo", "--agent", "x", &all]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let said = ended.tool_results();
    assert!(said[0].contains("No such tool available: Bash"), "{said:?}");
    let denied = "Permission to use Bash with command touch ran.txt has been denied";
    assert!(said.iter().any(|said| said.starts_with(denied)), "{said:?}");
    assert!(super::told(&world).contains("canary-of-x"));
    assert_eq!(world.branches(), [""; 0], "nothing was written");

    own("x", "allowedTools: Read");
    let ended = world.outcome_of(&["--trust-repo", "--agent", "x", &all]).await;
    assert_eq!(ended.outcome().0, "init-mismatch", "{}", ended.stderr);
    assert!(
        ended.outcome().1.contains("is there, and the agent's list does not have it"),
        "{}",
        ended.stderr
    );
    own("x", "tools: {Read: Bash}");
    let ended = world.outcome_of(&["--trust-repo", "--agent", "x", &all]).await;
    let words = "what bounds the agent x cannot be told: .claude/agents/x.md: all of it: what bounds its tools cannot be read";
    assert!(ended.outcome().1.ends_with(words), "{:?}", ended.outcome());
    // Nobody else is held to that.
    let ended = world.outcome_of(&["--trust-repo", "[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    world.end().await;
}

/// A task that is run again has what it had, whatever has become of the library.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_run_again_has_what_it_had() {
    let Some(world) = World::start(|_| {}).await else { return };
    skill(&world, "_global/own-all", "words of before");
    let prompt = steps(&[tool("Skill", &json!({"skill": "own-all"}))]);
    let ended = world.outcome_of(&[&prompt]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let before = world.api.requests().len();
    skill(&world, "_global/own-all", "words of after");
    skill(&world, "_global/own-new", "new");
    let task = ended.events[0]["task"].as_str().unwrap();
    let said = world.mayfly(&["retry", task, "--json"]).await.text();
    let events = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let again = Ended { code: Some(0), events, stderr: String::new() };
    let lock = |ended: &Ended| ended.own("locked").next().unwrap()["lock"].clone();
    assert_eq!(lock(&again), lock(&ended));
    assert_eq!(own_skills(&again), ["own-all"]);
    let told: String =
        world.api.requests()[before..].iter().map(|request| request.body.to_string()).collect();
    assert!(told.contains("words of before") && !told.contains("words of after"));

    let ended = world.outcome_of(&[&prompt]).await;
    assert_ne!(lock(&ended), lock(&again));
    assert_eq!(own_skills(&ended), ["own-all", "own-new"]);
    world.end().await;
}

/// What was kept and is spoiled once a task is accepted is told of, and nothing has run.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_spoiled_ends_the_task_before_claude_starts() {
    let Some(world) = World::start(|rules| rules.policy.machines_max = 1.try_into().unwrap()).await else {
        return;
    };
    skill(&world, "_global/own-all", "words");
    let first = world.run(&["[script: hold name=one text=done]"]);
    world.api.held("one", 1).await;
    let mut second = world.run(&["[script: bash command=\"touch ran.txt\"]"]);
    second.until("locked").await;
    let archives = world.dir.path().join("data/resources");
    let archive = fs::read_dir(&archives).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    world.api.release("one");
    let ended = first.end().await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let before = world.api.requests().len();
    let ended = second.end().await;
    let (outcome, detail) = ended.outcome();
    assert_eq!((ended.code, outcome), (Some(1), "startup"), "{}", ended.stderr);
    assert!(detail.contains("skill/_global/own-all is not what was locked"), "{detail}");
    assert_eq!((ended.claude_lines().count(), world.api.requests().len()), (0, before));
    world.end().await;
}

/// What the library has, a repository does not have another of: neither by its folder nor by what it says that it is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_repositorys_skills_do_not_stand_in_for_the_librarys() {
    let Some(world) = World::start(|_| {}).await else { return };
    skill(&world, "_global/own-listed", "canary-of-the-listed");
    put(&world, "skill/_global/own-plain/SKILL.md", "canary-of-the-plain");
    let own = |path: &str, name: &str| {
        let path = world.repo().join(".claude").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("---\nname: {name}\ndescription: words\n---\ncanary-theirs")).unwrap();
    };
    for name in ["own-listed", "own-plain"] {
        own(&format!("skills/{name}/SKILL.md"), name);
        own(&format!("skills/a-{name}/SKILL.md"), name);
        own(&format!("commands/{name}.md"), name);
    }
    let used = |name: &str| tool("Skill", &json!({"skill": name}));
    let prompt = steps(&[used("own-listed"), used("own-plain")]);
    for flags in [&[prompt.as_str()][..], &["--trust-repo", &prompt]] {
        let asked = world.api.requests().len();
        let ended = world.outcome_of(flags).await;
        assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
        assert_eq!(ended.tool_results(), ["Launching skill: own-listed", "Launching skill: own-plain"]);
        let requests = &world.api.requests()[asked..];
        let told: String = requests.iter().map(|request| request.body.to_string()).collect();
        for canary in ["canary-of-the-listed", "canary-of-the-plain"] {
            assert!(told.contains(canary), "{flags:?}: {canary}");
        }
        assert!(!told.contains("canary-theirs"), "{flags:?}");
    }
    world.end().await;
}
