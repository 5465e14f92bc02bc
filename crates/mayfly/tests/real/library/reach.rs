//! Where a task may go and with which credential, as the library's owner says; and servers that are elsewhere.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Json, Router};
use mayfly_core::host::Target;
use mayfly_server::{Network, Resolve};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::super::world::{CANARY, Run, Said, World};
use super::gate::{INIT_SECONDS_MAX, assert_goes_on_without, assert_stopped, seconds_to_init};
use super::{bash, init, put, steps, tool};

/// Every name of these is this address.
#[derive(Debug)]
struct Here(SocketAddr);

#[async_trait::async_trait]
impl Resolve for Here {
    async fn resolve(&self, _: &Target) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0])
    }
}

async fn serve(site: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, site).await.unwrap() });
    address
}

/// An orchestrator in whose network these names are at `site`.
async fn world(site: Router, names: &[&str]) -> Option<World> {
    let at = serve(site).await;
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    let network = Network::new(Arc::new(Here(at)), names);
    Some(World::configured(mayfly_test_needs::claude()?, |config| config.network = network).await)
}

/// S20: what is said beside settings, servers and the agent that the task is run by joins its list, and nothing that is
/// said beside another agent.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_says_where_a_task_may_go() {
    let site = Router::new().fallback(async || "here\n");
    let Some(world) = world(site, &["flag.test", "s.test", "m.test", "a.test", "other.test"]).await else {
        return;
    };
    put(&world, "settings/_global/base/settings.json", "{}");
    put(&world, "settings/_global/base/mayfly.toml", "allow = [\"s.test\"]\n");
    put(&world, "mcp/_global/tiny/mcp.json", r#"{"command": "${CLAUDE_PLUGIN_ROOT}/server.py"}"#);
    put(&world, "mcp/_global/tiny/server.py", super::SERVER);
    put(&world, "mcp/_global/tiny/mayfly.toml", "allow = [\"m.test:8080\"]\n");
    for agent in ["chosen", "other"] {
        put(&world, &format!("agent/_global/{agent}/agent.md"), "Go.");
        let host = if agent == "chosen" { "a" } else { agent };
        put(&world, &format!("agent/_global/{agent}/mayfly.toml"), &format!("allow = [\"{host}.test\"]\n"));
    }
    let get = |host: &str| format!("curl -s -m 20 http://{host}/ || true");
    let hosts = ["flag.test", "s.test", "m.test:8080", "a.test", "other.test", "m.test"];
    let command = hosts.map(get).join("; ");
    let ended =
        world.outcome_of(&["--allow", "flag.test", "--agent", "chosen", &steps(&[bash(&command)])]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(ended.tool_results().concat().matches("here").count(), 4, "{:?}", ended.tool_results());
    let denied: Vec<_> =
        ended.own("denied").map(|denied| denied["host"].as_str().unwrap_or_default()).collect();
    assert_eq!(denied, ["other.test:80", "m.test:80"]);
    let task = ended.events[0]["task"].as_str().unwrap();
    let said: Value = serde_json::from_str(&world.mayfly(&["allow", task, "--json"]).await.text()).unwrap();
    let mut allowed: Vec<_> =
        said["hosts"].as_array().unwrap().iter().map(|rule| rule.as_str().unwrap()).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["a.test", "flag.test", "m.test:8080", "s.test"]);
    world.end().await;
}

/// The agent's word counts before that of settings, and the task's own before both.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_says_which_credential_of_the_pool_a_task_uses() {
    let Some(world) = World::start(|_| {}).await else { return };
    for (name, secret) in [("good", CANARY), ("bad", "sk-ant-oat01-none"), ("default", "sk-ant-oat01-none")] {
        let mut command =
            world.plain_command(&["credential", "add", name, "--base-url", &world.api.base_url()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(secret.as_bytes()).await.unwrap();
        let added = Said::from(child.wait_with_output().await.unwrap());
        assert_eq!(added.code, Some(0), "{}", added.stderr);
    }
    put(&world, "settings/_global/base/settings.json", "{}");
    put(&world, "settings/_global/base/mayfly.toml", "credential = \"bad\"\n");
    put(&world, "agent/_global/chosen/agent.md", "Go.");
    put(&world, "agent/_global/chosen/mayfly.toml", "credential = \"good\"\n");
    let run = async |args: &[&str]| {
        let mut command = world.command(args);
        command.env_remove("CLAUDE_CODE_OAUTH_TOKEN").env_remove("ANTHROPIC_BASE_URL");
        Run::start(command).end().await
    };
    let ended = run(&["--agent", "chosen", "[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let ended = run(&["[script: text]"]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "api-error"), "{}", ended.stderr);
    let told = ended
        .own("warning")
        .any(|one| one["text"].as_str().unwrap().contains("refused the credential `bad`"));
    assert!(told, "{:?}", ended.own("warning").collect::<Vec<_>>());
    let ended = run(&["--credential", "good", "[script: text]"]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    world.end().await;
}

/// What a server elsewhere answers to one message.
fn answer(asked: &Value) -> Option<Value> {
    let result = match asked["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "far", "version": "1"}
        }),
        "tools/list" => {
            json!({"tools": [{"name": "ask", "description": "d", "inputSchema": {"type": "object"}}]})
        }
        "tools/call" => json!({"content": [{"type": "text", "text": "answered from elsewhere"}]}),
        _ => {
            let error = json!({"code": -32601, "message": "no such method"});
            return Some(json!({"jsonrpc": "2.0", "id": asked.get("id")?, "error": error}));
        }
    };
    Some(json!({"jsonrpc": "2.0", "id": asked.get("id")?, "result": result}))
}

/// A server elsewhere that takes a request and never answers is one that failed, within the time that `init` may take.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_elsewhere_that_never_answers_is_one_that_failed() {
    let silent = Router::new().fallback(async || std::future::pending::<()>().await);
    let Some(world) = world(silent, &["far.test"]).await else { return };
    put(&world, "mcp/_global/far/mcp.json", r#"{"type": "http", "url": "http://far.test/mcp"}"#);
    put(&world, "mcp/_global/far/mayfly.toml", "allow = [\"far.test\"]\n");
    let ended = world.outcome_of(&["[script: text]"]).await;
    assert_goes_on_without(&ended, "far");

    put(&world, "mcp/_global/far/mayfly.toml", "allow = [\"far.test\"]\nrequired = true\n");
    let ended = world.outcome_of(&[&steps(&[bash("touch ran.txt")])]).await;
    assert_stopped(&world, &ended, "the MCP server far, which is required, is ");
    assert!(seconds_to_init(&ended) < INIT_SECONDS_MAX, "{}", seconds_to_init(&ended));
    world.end().await;
}

/// S20: a server elsewhere is reached by the proxy, where its owner lets it be, and else is a server that failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_elsewhere_is_reached_by_the_way_out() {
    let messages = post(async |Json(asked): Json<Value>| match answer(&asked) {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    });
    let Some(world) = world(Router::new().route("/mcp", messages), &["far.test"]).await else { return };
    put(&world, "mcp/_global/far/mcp.json", r#"{"type": "http", "url": "http://far.test/mcp"}"#);
    let ask = steps(&[tool("mcp__far__ask", &json!({}))]);
    let ended = world.outcome_of(&[&ask]).await;
    assert_ne!(init(&ended)["mcp_servers"][0]["status"], "connected", "nobody has allowed it");
    assert!(ended.own("denied").any(|denied| denied["host"] == "far.test:80"));

    put(&world, "mcp/_global/far/mayfly.toml", "allow = [\"far.test\"]\nrequired = true\n");
    let ended = world.outcome_of(&[&ask]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert!(ended.tool_results()[0].contains("answered from elsewhere"), "{:?}", ended.tool_results());
    world.end().await;
}
