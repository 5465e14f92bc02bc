//! Settings and hooks that are said twice: what the library makes of them is what the CLI makes of its own files.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::super::world::{CANARY, Ended, PATH, World};
use super::{bash, put, steps};

/// A file of settings with an environment, a rule of what is denied and a hook of its own.
fn settings(env: &Value, denied: &str, said: &str) -> Value {
    let hook = json!({"type": "command", "command": format!("echo {said} >> hooked.txt")});
    json!({
        "env": env, "permissions": {"deny": [denied]},
        "hooks": {"PostToolUse": [{"matcher": "Bash", "hooks": [hook]}]}
    })
}

/// `claude` by itself, with these settings of its user's and of a project's.
async fn by_itself(
    world: &World,
    claude: &std::path::Path,
    of_user: &Value,
    of_project: &Value,
    prompt: &str,
) -> Ended {
    let (home, project) = (world.dir.path().join("own-home"), world.dir.path().join("own-project"));
    for (folder, settings) in [(&home, of_user), (&project, of_project)] {
        fs::create_dir_all(folder.join(".claude")).unwrap();
        fs::write(folder.join(".claude/settings.json"), settings.to_string()).unwrap();
    }
    let mut command = tokio::process::Command::new(claude);
    command.env_clear().env("PATH", PATH).env("HOME", &home).env("IS_SANDBOX", "1").current_dir(&project);
    command.env("CLAUDE_CODE_OAUTH_TOKEN", CANARY).env("ANTHROPIC_BASE_URL", world.api.base_url());
    command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1").env("DISABLE_AUTOUPDATER", "1");
    command.args(["-p", prompt, "--verbose", "--output-format", "stream-json", "--model", "sonnet"]);
    command.args(["--permission-mode", "bypassPermissions", "--setting-sources", "user,project"]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let event =
        |line: &str| json!({"source": "claude", "line": serde_json::from_str::<Value>(line).unwrap()});
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ended { code: output.status.code(), events: told.lines().map(event).collect(), stderr }
}

/// Which hooks have run; the CLI runs those of one moment at once.
fn sorted(hooked: &str) -> Vec<&str> {
    let mut lines: Vec<_> = hooked.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_twice_is_merged_as_the_cli_merges_its_own_files() {
    let Some(world) = World::start(|_| {}).await else { return };
    let Some(claude) = mayfly_test_needs::claude() else { return world.end().await };
    let for_all = settings(&json!({"A": "of-all", "B": "of-all"}), "Bash(echo one:*)", "all");
    let own = settings(&json!({"A": "of-the-project"}), "Bash(echo two:*)", "own");
    put(&world, "settings/_global/base/settings.json", &for_all.to_string());
    put(&world, "settings/repo/base-of-it/settings.json", &own.to_string());
    let prompt = steps(&[bash("echo $A $B"), bash("echo one"), bash("echo two")]);

    let ended = world.outcome_of(&[&prompt]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let said = ended.tool_results();
    assert_eq!(said[0], "of-the-project of-all");
    for (said, words) in said[1..].iter().zip(["echo one", "echo two"]) {
        assert!(said.starts_with(&format!("Permission to use Bash with command {words}")), "{said}");
    }
    let branch = world.branches().remove(0);
    let hooked = world.git(&["show", &format!("{branch}:hooked.txt")]);
    assert_eq!(sorted(&hooked), ["all", "own"]);
    let alone = by_itself(&world, &claude, &for_all, &own, &prompt).await;
    assert_eq!(alone.code, Some(0), "{}", alone.stderr);
    assert_eq!(alone.tool_results(), said);
    let alone = fs::read_to_string(world.dir.path().join("own-project/hooked.txt")).unwrap();
    assert_eq!(sorted(&alone), sorted(&hooked));

    let merged = &ended.own("locked").next().unwrap()["merged"];
    let (by, over) = ("settings/repo/base-of-it", "settings/_global/base");
    assert_eq!(merged["settings"], json!([{"key": "env.A", "by": by, "over": over}]));
    let hooks: Vec<_> = merged["hooks"].as_array().unwrap().iter().map(|hook| &hook["of"]).collect();
    assert_eq!(hooks, [over, by]);
    let task = ended.events[0]["task"].as_str().unwrap();
    let told = world.mayfly(&["logs", task]).await.text();
    let listed = world.mayfly(&["library", "ls", "--project", "repo"]).await.text();
    for words in [format!("setting env.A: {by} before {over}"), format!("hook PostToolUse (Bash): {over}")] {
        assert!(told.contains(&words) && listed.contains(&words), "{words}: {told} {listed}");
    }
    world.end().await;
}
