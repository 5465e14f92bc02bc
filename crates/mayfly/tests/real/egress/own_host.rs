//! An orchestrator of the real program, whose owner lets agents reach this very host.

use std::fs;
use std::path::Path;

use axum::Router;
use rustix::process::Signal;
use serde_json::json;

use super::super::service::{User, end};
use super::super::world::{Run, Said, processes_in};
use super::sites::serve;

/// A host that is allowed while the task runs is so at once, and stays so for the orchestrator that follows one that was
/// killed; what `allow_private` does not name, or nobody allowed, is not reached.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_while_a_task_runs_outlives_its_orchestrator() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let site = serve(Router::new().fallback(async || "here\n")).await;
    let other = serve(Router::new().fallback(async || "leak\n")).await;
    let user = User::new().await;
    let file = user.dir.path().join(".config/mayfly/mayfly.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = format!("claude = \"{}\"\n[serve]\nallow_private = \"localhost\"\n", claude.display());
    fs::write(&file, text).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mayfly"));
    let verb = async |args: &[&str]| Said::from(user.command(program, args).output().await.unwrap());
    let (port, other) = (site.port(), other.port());
    let command =
        format!("for p in {port} {other}; do curl -s -m 20 --noproxy '' http://localhost:$p/; done");
    let call = json!({"name": "Bash", "input": {"command": command}});
    let steps = json!([{"tools": [call]}, {"hold": "go", "tools": [call]}, {"text": "done"}]);
    let mut run =
        Run::start(user.command(program, &["run", "--json", &format!("[script: steps list={steps}]")]));
    let task = run.until("ready").await["task"].as_str().unwrap().to_owned();
    user.api.held("go", 1).await;
    let host = format!("localhost:{port}");
    assert_eq!(verb(&["allow", &task, &host]).await.text(), format!("allowed: {host}\n"));
    end(user.orchestrator(), Signal::KILL);
    user.api.release("go");
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    let results = ended.tool_results();
    assert_eq!(results.len(), 2, "{results:?}");
    assert!(!results[0].contains("here") && results[1].starts_with("here\n"), "{results:?}");
    assert!(!results.concat().contains("leak"), "{results:?}");
    let said = verb(&["allow", &task]).await.text();
    assert!(said.contains(&format!("allowed  {host}  ")), "{said}");
    assert!(said.contains(&format!("denied   localhost:{other}  not-listed")), "{said}");
    let over = verb(&["allow", &task, "a.test"]).await;
    assert_eq!(over.code, Some(2), "{}", over.stderr);
    assert!(over.stderr.contains("is over"), "{}", over.stderr);
    end(user.orchestrator(), Signal::TERM);
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}
