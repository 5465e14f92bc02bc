//! Secrets of the library's servers: from the pool into the environment of one server, and nowhere else.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::super::world::{CANARY, Run, Said, World};
use super::{SERVER, bash, put, steps, tool};

/// What the server is given, which the agent has only if the server tells it.
const TOKEN: &str = "tracker-canary-77c1-0f";

async fn add(world: &World, name: &str, secret: &str, flags: &[&str]) -> Said {
    let mut command = world.plain_command(&[&["credential", "add", name], flags].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(secret.as_bytes()).await.unwrap();
    Said::from(child.wait_with_output().await.unwrap())
}

fn put_server(world: &World, own: &str) {
    put(
        world,
        "mcp/_global/tracker/mcp.json",
        r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py", "env": {"MODE": "${TOKEN}"}}"#,
    );
    put(world, "mcp/_global/tracker/server.py", SERVER);
    put(world, "mcp/_global/tracker/mayfly.toml", own);
}

/// S14, S32 for secrets of servers: the one server has it, `claude` and what it runs have not, and nothing that is told
/// or kept shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_its_server_and_nothing_else() {
    let Some(world) = World::start(|_| {}).await else { return };
    let added = add(&world, "tracker", TOKEN, &["--kind", "secret"]).await;
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    assert!(added.stderr.contains("to be used by `secrets` of the library's servers"), "{}", added.stderr);
    put_server(&world, "secrets = { TOKEN = \"tracker\" }\nallow-secret-in-machine = true\n");
    // A pattern that does not match itself.
    let search = "tr '\\0' '\\n' </proc/$PPID/environ | cat - <(env) | grep -c 'tracker-[c]anary' || true";
    let prompt = steps(&[
        // Masking would hide that the server has it.
        tool("mcp__tracker__ask", &json!({"reversed": true})),
        tool("mcp__tracker__ask", &json!({})),
        bash(search),
    ]);
    let ended = world.outcome_of(&[&prompt]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let said = ended.tool_results();
    let reversed: String = TOKEN.chars().rev().collect();
    assert!(said[0].contains(&format!("answered {reversed}")), "{said:?}");
    assert!(said[1].contains("answered ") && !said[1].contains("canary"), "{said:?}");
    assert_eq!(said[2], "0");
    assert!(!json!(ended.events).to_string().contains(TOKEN));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_bound_let_in_or_kept_is_refused_at_the_submit() {
    let Some(world) = World::start(|_| {}).await else { return };
    let refused = async |own: &str| {
        put_server(&world, own);
        let ended = world.outcome_of(&["[script: text]"]).await;
        assert!(ended.code != Some(0) && ended.events.is_empty(), "{}", ended.stderr);
        ended.stderr
    };
    let said = refused("").await;
    assert!(said.contains("mcp/_global/tracker/mayfly.toml: says nothing of ${TOKEN}"), "{said}");
    let said = refused("secrets = { TOKEN = \"tracker\" }\n").await;
    assert!(said.contains("only if you write allow-secret-in-machine = true"), "{said}");
    let bound = "secrets = { TOKEN = \"tracker\" }\nallow-secret-in-machine = true\n";
    let said = refused(bound).await;
    assert!(
        said.contains("the pool has no secret of this name: `mayfly credential add tracker --kind secret`"),
        "{said}"
    );
    // A credential for the model is none for a server.
    let added = add(&world, "tracker", CANARY, &["--base-url", &world.api.base_url()]).await;
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    assert!(refused(bound).await.contains("the pool has no secret of this name"));
    assert_eq!(world.api.requests(), []);
    world.end().await;
}

/// A secret is never used for the model: not by its name, and not because it is the only one.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_no_credential_for_the_model() {
    let Some(world) = World::start(|_| {}).await else { return };
    let added = add(&world, "tracker", TOKEN, &["--kind", "secret"]).await;
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    for flags in [&["--credential", "tracker", "[script: text]"][..], &["[script: text]"]] {
        let mut command = world.command(flags);
        command.env_remove("CLAUDE_CODE_OAUTH_TOKEN").env_remove("ANTHROPIC_BASE_URL");
        let ended = Run::start(command).end().await;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("credential"), "{}", ended.stderr);
    }
    let listed = world.mayfly(&["credential", "ls"]).await.text();
    assert!(listed.contains("tracker  secret  broker"), "{listed}");
    let tried = world.mayfly(&["credential", "test", "tracker"]).await;
    assert_eq!(tried.code, Some(1), "{}", tried.stderr);
    assert!(String::from_utf8_lossy(&tried.stdout).contains("no model API is ever asked about it"));
    assert_eq!(world.api.requests(), []);
    world.end().await;
}
