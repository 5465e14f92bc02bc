//! What servers would download, fetched once by their owner.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use super::{SERVER, World, put, steps, tool};

/// A server that `uvx` would download runs in a machine that has no way out, from what was fetched of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_uvx_would_download_is_locked_once_and_runs_in_a_machine() {
    let Some(world) = World::start(|_| {}).await else { return };
    let packages = world.dir.path().join("packages");
    fs::create_dir(&packages).unwrap();
    let body = SERVER.replace("\nfor line", "\ndef main():\n  for line").replace("\n    ", "\n      ");
    let Some(pip) = mayfly_test_needs::wheel(&packages, &body) else { return world.end().await };
    let server =
        json!({"command": "uvx", "args": ["--from", "tiny-server", "serve"], "env": {"MODE": "here"}});
    put(&world, "mcp/_global/tiny/mcp.json", &server.to_string());
    let ask = steps(&[tool("mcp__tiny__ask", &json!({}))]);
    let refused = world.outcome_of(&[&ask]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("`uvx tiny-server` would download in the machine"), "{}", refused.stderr);

    let mut lock = world.plain_command(&["library", "lock", "--json"]);
    let locked = lock.env("PIP_CONFIG_FILE", pip).stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8_lossy(&locked.stderr);
    assert!(locked.status.success() && said.contains("tiny runs tiny-server==1.2.3"), "{said}");
    fs::remove_dir_all(&packages).unwrap();
    let ended = world.outcome_of(&[&ask]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.tool_results()[0].contains("answered here"), "{:?}", ended.tool_results());
    world.end().await;
}
