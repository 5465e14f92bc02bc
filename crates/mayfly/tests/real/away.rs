//! An orchestrator that is away for minutes, in real time: the clock of the real `claude` cannot be moved.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::draining::Serving;
use super::service::User;
use super::world::{Run, Said, processes_in};

/// How long nobody is there.
const AWAY: Duration = Duration::from_secs(120);

/// A task that its user leaves to the orchestrator.
struct Left<'a> {
    user: &'a User,
    id: String,
}

impl Left<'_> {
    fn logs(&self, more: &[&str]) -> Run {
        let args = [&["logs", &self.id, "--json"], more].concat();
        Run::start(self.user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &args))
    }

    /// The number that `claude` has on this host, as soon as it has said its first word.
    async fn claude(&self) -> BTreeSet<u32> {
        let init = self.logs(&["--follow"]).until_event(|event| event["line"]["subtype"] == "init").await;
        let session = init["line"]["session_id"].as_str().unwrap().to_owned();
        processes_in(Path::new(&session))
    }
}

async fn leave<'a>(user: &'a User, prompt: &str) -> Left<'a> {
    let command = &mut user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["run", "--detach", prompt]);
    let said = Said::from(command.output().await.unwrap()).text();
    Left { user, id: said.split_once(' ').unwrap().0.to_owned() }
}

/// R01, R03, G10: the orchestrator is killed in the middle of a model call, and nobody starts another for two minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_call_outlives_two_minutes_without_an_orchestrator() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let killed = Serving::start(&user, &claude, &[]).await;
    let task = leave(&user, "[script: hold name=call text=answered]").await;
    user.api.held("call", 1).await;
    let process = task.claude().await;
    assert_eq!(process.len(), 1);
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().await.0, None);

    // This time is what the test is about, and nothing is expected in it: no event can stand for it.
    tokio::time::sleep(AWAY).await;
    assert_eq!(user.api.requests().len(), 1, "nobody could ask the model");

    let next = Serving::start(&user, &claude, &[]).await;
    // What `claude` asked meanwhile was held in its machine, and comes now.
    user.api.held("call", 2).await;
    assert_eq!(task.claude().await, process);
    user.api.release("call");
    let ended = task.logs(&["--follow"]).end().await;
    assert_eq!(ended.outcome(), ("succeeded", ""), "{}", ended.stderr);
    ended.assert_whole();
    assert_eq!(ended.own("started").count(), 1);
    let lines = |kind: &str| ended.claude_lines().filter(|line| line["subtype"] == kind).count();
    assert_eq!((lines("init"), lines("api_retry")), (1, 1));
    let asked: Vec<Value> =
        user.api.requests().iter().map(|request| request.body["messages"].clone()).collect();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
    next.signal(Signal::TERM);
    assert_eq!(next.end().await.0, Some(0));
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}
