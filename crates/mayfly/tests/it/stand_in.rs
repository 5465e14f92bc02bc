//! The verbs with an orchestrator that answers as the test says, or not at all.

use std::future::pending;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::User;

/// Serves the data folder of `user`: well, and with this answer to each task, told of by a permit each.
fn stand_in(user: &User, answers: bool) -> (PathBuf, Arc<Semaphore>) {
    let asked = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&asked);
    let submit = async move || {
        told.add_permits(1);
        // One that dies while it is asked breaks the connection off.
        assert!(answers, "the stand-in ends here");
        pending::<()>().await;
    };
    (serve(user, Router::new().route("/v1/tasks", post(submit))), asked)
}

/// Serves these routes in the data folder of `user`, which it returns.
pub(crate) fn serve(user: &User, router: Router) -> PathBuf {
    let data = user.home().join("data");
    std::fs::create_dir(&data).unwrap();
    let listener = UnixListener::bind(data.join("api.sock")).unwrap();
    let router = router.route("/healthz", get(async || ()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    data
}

pub(crate) fn problem(status: u16, kind: &str, detail: &str) -> Response {
    let problem = json!({"type": kind, "status": status, "detail": detail});
    (StatusCode::from_u16(status).unwrap(), problem.to_string()).into_response()
}

/// A task that has ended, and what is else with it.
fn task(more: &Value) -> Response {
    let mut task = json!({
        "id": "0193b2c4-0000-7000-8000-01231a2b3c4d", "short": "1a2b3c4d", "title": "fix\u{1b}[2J it",
        "state": "finished", "attempt": 1, "last_seq": 9, "created_at": "2026-01-01T00:00:00Z",
        "outcome": {"name": "succeeded"},
    });
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    task.to_string().into_response()
}

/// What verbs say to answers that are no success, with their exit codes.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_had_is_named_with_the_next_step() {
    let user = User::new();
    let head = "a".repeat(40);
    let answer = async move |Path(id): Path<String>| match id.as_str() {
        "aaaa" => problem(
            409,
            "ambiguous-task",
            "the ids of several tasks end so: give more digits (…1aaaa, …2aaaa)",
        ),
        "bbbb" => problem(404, "no-such-task", "no such thing"),
        "cccc" => problem(500, "internal", "the database did not answer"),
        "dddd" => "<html>".into_response(),
        "0001" => task(&json!({"state": "queued", "outcome": null})),
        "0002" => task(&json!({"outcome": {"name": "lost", "detail": "its machine is gone\r"}})),
        "0003" => task(&json!({"result": {"head": head, "bundle": false}})),
        "0004" => {
            task(&json!({"result": {"unsaved": ["big.bin: no room"], "notes": ["the session file: none"]}}))
        }
        _ => task(&json!({"result": {"notes": ["the session file: none"]}})),
    };
    let router =
        Router::new().route("/v1/tasks/{id}", get(answer)).route("/v1/tasks/{id}/events", get(async || ""));
    let data = serve(&user, router);
    let said = |args: &[&str]| {
        let args = [args, &["--data", data.to_str().unwrap()]].concat();
        format!("$ mayfly {}\n{}", args[..args.len() - 2].join(" "), user.said(user.with_token(&args)))
    };
    let mut all = String::new();
    for id in ["aaaa", "bbbb", "cccc", "dddd"] {
        all.push_str(&said(&["logs", id]));
    }
    for verb in ["cancel", "retry", "result"] {
        all.push_str(&said(&[verb, "bbbb"]));
    }
    for args in
        [&["retry", "0001"][..], &["result", "0001", "--apply", "--repo", "plain"], &["result", "0001"]]
    {
        all.push_str(&said(args));
    }
    for id in ["0002", "0003", "0004", "0005"] {
        all.push_str(&said(&["result", id]));
        all.push_str(&said(&["result", id, "--diff"]));
    }
    all.push_str(&said(&["result", "0004", "--transcript"]));
    insta::assert_snapshot!(all);
}

/// All or none: those that were taken are cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_refused_takes_the_detached_ones_before_it_along() {
    let user = User::new();
    let cancelled = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&cancelled);
    let submit = async |body: String| match body.contains("second") {
        true => problem(507, "disk-full", "free some space"),
        false => task(&json!({"state": "queued", "outcome": null})),
    };
    let cancel = async move || {
        told.add_permits(1);
        task(&json!({}))
    };
    let router = Router::new().route("/v1/tasks", post(submit)).route("/v1/tasks/{id}/cancel", post(cancel));
    let data = serve(&user, router);
    let args = ["run", "--detach", "first one", "second one", "--data", data.to_str().unwrap()];
    insta::assert_snapshot!(user.said(user.with_token(&args)));
    assert_eq!(cancelled.available_permits(), 1);
}

fn run(user: &User, data: &std::path::Path) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.env_clear().env("HOME", user.home()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-made-up").current_dir(user.cwd());
    command.args(["run", "--data"]).arg(data).arg("fix it").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// R32: before there is a task to cancel.
#[tokio::test]
async fn an_interrupt_ends_a_submit_that_is_not_answered() {
    let user = User::new();
    let (data, asked) = stand_in(&user, true);
    let child = run(&user, &data);
    asked.acquire().await.unwrap().forget();
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("has not said whether it took the last task"), "{text}");
}

/// R01: one that ends again and again is not started for ever.
#[tokio::test]
async fn an_orchestrator_that_goes_away_at_every_call_is_given_up_with_what_to_type() {
    let user = User::new();
    let (data, asked) = stand_in(&user, false);
    let output = run(&user, &data).wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("3 times in a row") && text.contains("`mayfly serve --data /"), "{text}");
    assert_eq!(asked.available_permits(), 4, "the first call, and one after each of three restarts: {text}");
}
