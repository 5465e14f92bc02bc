//! `mayfly run` with an orchestrator that answers as the test says, or not at all.

use std::future::pending;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::User;

/// Serves the data folder of `user`: well, and with this answer to each task, told of by a permit each.
fn stand_in(user: &User, answers: bool) -> (PathBuf, Arc<Semaphore>) {
    let data = user.home().join("data");
    std::fs::create_dir(&data).unwrap();
    let asked = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&asked);
    let submit = async move || {
        told.add_permits(1);
        // One that dies while it is asked breaks the connection off.
        assert!(answers, "the stand-in ends here");
        pending::<()>().await;
    };
    let router = Router::new().route("/healthz", get(async || ())).route("/v1/tasks", post(submit));
    let listener = UnixListener::bind(data.join("api.sock")).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (data, asked)
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
