//! `mayfly tunnel` and the verbs beside it, with nobody at the other end, or one that answers as the test says.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::User;
use super::stand_in::problem;

const ID: &str = "0193b2c4-0000-7000-8000-01231a2b3c4d";

/// A data folder where a tunnel to nobody is remembered.
fn remembered(user: &User) -> PathBuf {
    let data = user.home().join("data");
    std::fs::create_dir(&data).unwrap();
    let file = data.join("tunnel.json");
    std::fs::write(&file, r#"{"to":"http://127.0.0.1:1","token":"mayfly-owner-old"}"#).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    data
}

fn start(user: &User, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.env_clear().env("HOME", user.home()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.current_dir(user.cwd()).args(args).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Reads standard error until a line has `words`, and gives that line.
async fn until(stderr: &mut (impl tokio::io::AsyncBufRead + Unpin), words: &str) -> String {
    let mut lines = stderr.lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains(words) {
            return line;
        }
    }
    panic!("nothing said: {words}");
}

/// S30: a token is not sent in the clear to another machine unasked, and nothing is remembered of it.
#[test]
fn a_token_goes_to_another_machine_by_tls_or_by_the_word() {
    let user = User::new();
    std::fs::write(user.cwd().join("token"), "mayfly-owner-canary\n").unwrap();
    for to in ["http://box.example:6293", "http://192.0.2.1", "http://[2001:db8::1]:1"] {
        let said = user.said(user.mayfly(&["tunnel", "--to", to, "--token-file", "token"]));
        assert!(said.starts_with("exit 2\n") && said.contains("say --to-without-tls"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
    assert!(user.untouched());
}

/// An orchestrator that is away is dialled until it is there; a new token needs no address.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_to_one_who_is_away_waits_for_him_and_takes_a_new_token() {
    let user = User::new();
    std::fs::write(user.cwd().join("token"), "mayfly-owner-new\n").unwrap();
    let data = user.home().join("data");
    let data_arg = data.to_str().unwrap().to_owned();
    let saved = || -> Value {
        serde_json::from_str(&std::fs::read_to_string(data.join("tunnel.json")).unwrap()).unwrap()
    };
    let first = ["tunnel", "--to", "http://127.0.0.1:1", "--token-file", "token"];
    for (more, token) in [(&first[..], "mayfly-owner-new"), (&["tunnel", "--token-file", "other"], "other")] {
        std::fs::write(user.cwd().join("other"), "other\n").unwrap();
        let args = [more, &["--listen", "127.0.0.1:0", "--data", &data_arg]].concat();
        let mut tunnel = start(&user, &args);
        let mut stderr = BufReader::new(tunnel.stderr.take().unwrap());
        let line = until(&mut stderr, "no link to http://127.0.0.1:1: ").await;
        assert!(line.ends_with("; dialling again") && line.matches("refused").count() == 1, "{line}");
        assert_eq!((&saved()["to"], &saved()["token"]), (&json!("http://127.0.0.1:1"), &json!(token)));
        kill_process(Pid::from_raw(tunnel.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
        assert_eq!(tunnel.wait().await.unwrap().code(), Some(0));
    }
}

/// Those of the orchestrator are its machine's business, and those here open nothing there.
#[test]
fn tokens_are_not_managed_through_a_tunnel() {
    let user = User::new();
    let data = remembered(&user);
    for verb in [&["token", "ls"][..], &["token", "add", "laptop"], &["token", "revoke", "local"]] {
        let args = [verb, &["--data", data.to_str().unwrap()]].concat();
        let said = user.said(user.mayfly(&args));
        assert!(said.starts_with("exit 2\n") && said.contains("run `mayfly token` there"), "{said}");
    }
}

/// Where a tunnel is remembered, it is what is missing, and no orchestrator.
#[test]
fn who_asks_while_the_tunnel_does_not_run_is_told_so() {
    let user = User::new();
    let data = remembered(&user);
    for verb in ["ps", "logs"] {
        let task: &[&str] = if verb == "logs" { &["1a2b3c4d"] } else { &[] };
        let said = user.said(user.mayfly(&[&[verb], task, &["--data", data.to_str().unwrap()]].concat()));
        assert!(
            said.starts_with("exit 3\n") && said.contains("does not run: start it with `mayfly tunnel`"),
            "{said}"
        );
        assert!(!said.contains("serve"), "{said}");
    }
}

fn line(seq: u64, event: &Value) -> String {
    let line = json!({
        "task": ID, "attempt": 1, "seq": seq, "at": "2026-01-01T00:00:00Z", "source": "mayfly", "event": event,
    });
    format!("{line}\n")
}

fn log() -> [String; 2] {
    let finished = json!({"type": "finished", "outcome": {"name": "succeeded"}});
    [line(1, &json!({"type": "queued"})), line(2, &finished)]
}

/// Serves one task, and the first `lines` of its log; breaks off there, unless it is all.
fn serve(data: &std::path::Path, lines: usize, asked: Arc<Notify>) -> JoinHandle<()> {
    let task = async || {
        let task = json!({
            "id": ID, "short": "1a2b3c4d", "title": "fix it", "state": "running", "attempt": 1, "last_seq": 1,
            "created_at": "2026-01-01T00:00:00Z",
        });
        ([("connection", "close")], task.to_string())
    };
    let events = async move |Query(query): Query<HashMap<String, String>>| {
        let after: usize = query["after"].parse().unwrap();
        asked.notify_one();
        let given = log()[after.min(lines)..lines].iter().map(|line| Ok(line.clone())).collect::<Vec<_>>();
        let cut = (lines < log().len()).then(|| Err(io::Error::other("gone")));
        ([("connection", "close")], Body::from_stream(stream::iter(given.into_iter().chain(cut))))
    };
    let router = Router::new()
        .route("/healthz", get(async || [("connection", "close")]))
        .route("/v1/tasks/{id}", get(task))
        .route("/v1/tasks/{id}/events", get(events));
    let listener = UnixListener::bind(data.join("api.sock")).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

/// R04: what is away is named, waited for, and gone on with; nothing is started here instead.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_goes_on_when_the_tunnel_is_back() {
    let user = User::new();
    let data = remembered(&user);
    let asked = Arc::new(Notify::new());
    let tunnel = serve(&data, 1, asked.clone());
    let args = ["logs", "1a2b3c4d", "--follow", "--json", "--data", data.to_str().unwrap()];
    let mut logs = start(&user, &args);
    asked.notified().await;
    tunnel.abort();
    std::fs::remove_file(data.join("api.sock")).unwrap();
    let mut stderr = BufReader::new(logs.stderr.take().unwrap());
    let said = until(&mut stderr, "waiting for it").await;
    assert!(
        said.contains("the tunnel to http://127.0.0.1:1 does not run: start it with `mayfly tunnel"),
        "{said}"
    );
    let _tunnel = serve(&data, 2, asked);
    let ended = logs.wait_with_output().await.unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stdout).unwrap()), (Some(0), log().concat()));
}

/// The same where the tunnel runs and says that the orchestrator is away.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_goes_on_when_the_orchestrator_is_back() {
    const AWAY: u32 = 10;
    let user = User::new();
    let calls = Arc::new(AtomicU32::new(0));
    let events = async move || -> Response {
        match calls.fetch_add(1, Ordering::Relaxed) {
            0..AWAY => problem(502, "orchestrator-away", "the tunnel has no link to the box"),
            _ => log().concat().into_response(),
        }
    };
    let task = async || {
        let task = json!({
            "id": ID, "short": "1a2b3c4d", "title": "fix it", "state": "running", "attempt": 1, "last_seq": 1,
            "created_at": "2026-01-01T00:00:00Z",
        });
        task.to_string()
    };
    let router = Router::new().route("/v1/tasks/{id}", get(task)).route("/v1/tasks/{id}/events", get(events));
    let data = super::stand_in::serve(&user, router);
    let args = ["logs", "1a2b3c4d", "--follow", "--json", "--data", data.to_str().unwrap()];
    let ended = start(&user, &args).wait_with_output().await.unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(
        (ended.status.code(), String::from_utf8(ended.stdout).unwrap()),
        (Some(0), log().concat()),
        "{stderr}"
    );
    let told = "the tunnel has no link to the box; waiting for it";
    assert_eq!(stderr.matches(told).count(), 1, "{stderr}");
}
