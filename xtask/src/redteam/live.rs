//! One machine, with a repository that means harm and a canary for a credential: what its agent can do, and what is
//! left of the canary afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, ensure};
use mayfly_scripted_api::{ScriptedApi, Seen};
use mayfly_test_needs::hostile;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use super::hunt::Hunt;
use super::{Row, probes};
use crate::machines::Left;
use crate::model::scripted_model;
use crate::orchestrator::Place;

/// What the CLI's environment holds, and no model may be told.
const ENVIRONMENT: &str = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1";

/// What a run left to look at.
struct Ran {
    task: String,
    output: Output,
    events: Vec<Value>,
    /// What the model was asked.
    requests: Vec<Seen>,
    /// All that it was told.
    told: String,
}

/// Runs it, and reads what came of it.
pub(super) async fn run(place: &Place, provider: &str) -> anyhow::Result<Vec<Row>> {
    let (api, credential) = scripted_model().await?;
    let canary = credential.secret.expose();
    let repo = repository(place).await?;
    let sink = TcpListener::bind("127.0.0.1:0")?;
    sink.set_nonblocking(true)?;
    let serving = place.serve(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let prompt = prompt(&probes::script(canary, sink.local_addr()?.port()));
    let ran = ran(place, &repo, (&api, canary), &prompt).await?;

    let mut rows = probes::rows(&last_result(&ran.events), provider);
    rows.extend(told(&ran, provider));
    let nobody = sink.accept().is_err();
    rows.push(Row::of(provider, "S20", "the listener on the host", nobody, ("nobody came", "somebody came")));
    let hunt = Hunt::for_canary(canary, provider);
    rows.extend(while_it_serves(place, &repo, &ran, &hunt).await?);
    serving.end(Signal::TERM).await?;
    rows.extend(afterwards(place, &repo, &hunt).await?);
    api.stop().await;

    let left = Left::of(place, &[&ran.task], &BTreeSet::new()).await?;
    let nothing = left.machines + left.cgroups + left.mounts + left.processes == 0;
    let words = ("no process, cgroup, mount or machine is left", &*format!("{left:?}"));
    rows.push(Row::of(provider, "S52", "what an agent leaves behind", nothing, words));
    Ok(rows)
}

/// `mayfly run`, with the canary in its environment, to its end.
async fn ran(
    place: &Place,
    repo: &Path,
    (api, canary): (&ScriptedApi, &str),
    prompt: &str,
) -> anyhow::Result<Ran> {
    let mut run = mayfly(place, repo, &["run", "--json"]);
    run.env("CLAUDE_CODE_OAUTH_TOKEN", canary).env("ANTHROPIC_BASE_URL", api.base_url());
    let output = run.arg(prompt).output().await?;
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let events: Vec<Value> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let task = events.first().and_then(|event| event["task"].as_str()).context(complaint)?.to_owned();
    let requests = api.requests();
    let told = requests.iter().map(|request| request.body.to_string()).collect();
    Ok(Ran { task, output, events, requests, told })
}

/// What the user and the model were told of the repository.
fn told(ran: &Ran, provider: &str) -> Vec<Row> {
    let row = |case, tried, good, held, failed: &str| Row::of(provider, case, tried, good, (held, failed));
    let unnamed = unnamed(&ran.events);
    let words = hostile::WORDS.iter().chain(&hostile::WORDS_LATER);
    let lost: Vec<_> = words.filter(|words| !ran.told.contains(**words)).collect();
    let inside = !ran.told.contains(ENVIRONMENT);
    let answered = ran.requests.iter().any(|request| request.status == 200);
    vec![
        row(
            "S05",
            "what does not count",
            unnamed.is_empty(),
            "events name each",
            &format!("none names {unnamed:?}"),
        ),
        row(
            "S01-S05",
            "words that count",
            lost.is_empty(),
            "the model was told each",
            &format!("not {lost:?}"),
        ),
        row(
            "S06",
            "imports that leave the repository",
            inside,
            "none was followed",
            "an environment was imported",
        ),
        row("S19", "the credential itself", answered, "the gateway put it in", "no request had it"),
    ]
}

/// The search in what can be had of an orchestrator, and in its folder while it is there.
async fn while_it_serves(place: &Place, repo: &Path, ran: &Ran, hunt: &Hunt) -> anyhow::Result<Vec<Row>> {
    let raw = mayfly(place, repo, &["logs", "--raw", &ran.task]).output().await?;
    let transcript = mayfly(place, repo, &["result", &ran.task, "--transcript"]).output().await?;
    Ok(vec![
        hunt.bytes("what the model was told", ran.told.as_bytes()),
        hunt.bytes("events", &ran.output.stdout),
        hunt.bytes("what was printed for people", &ran.output.stderr),
        hunt.bytes("logs --raw", &raw.stdout),
        hunt.bytes("result --transcript", &transcript.stdout),
        hunt.folder("the data folder: database, journal, results, spool", &place.data())?,
    ])
}

/// The search in what stays.
async fn afterwards(place: &Place, repo: &Path, hunt: &Hunt) -> anyhow::Result<Vec<Row>> {
    // Its objects are packed: git unpacks them.
    let objects = git(repo, &["cat-file", "--batch", "--batch-all-objects"]).await?;
    Ok(vec![
        hunt.folder("the data folder, once nobody serves", &place.data())?,
        hunt.bytes("the orchestrator's own log", &fs::read(place.log())?),
        hunt.folder("the user's repository", repo)?,
        hunt.bytes("every object of it", &objects),
    ])
}

/// What gives everything in the repository an occasion to run, and then the probes.
fn prompt(script: &str) -> String {
    let tool = |name: &str, input: Value| json!({"tools": [{"name": name, "input": input}]});
    let agent = json!({"description": "try", "subagent_type": "bad", "prompt": "[script: bash command=\"echo sub\"]"});
    let steps = json!([
        tool("Read", json!({"file_path": "/workspace/repo/sub/file.txt"})),
        tool("Skill", json!({"skill": "bad"})),
        tool("Skill", json!({"skill": "worse"})),
        tool("Agent", agent),
        tool("Bash", json!({"command": script})),
    ]);
    format!("[script: steps list={steps}]")
}

/// The user's repository.
async fn repository(place: &Place) -> anyhow::Result<PathBuf> {
    let repo = place.home.join("repo");
    fs::create_dir(&repo)?;
    hostile::write(&repo, true);
    git(&repo, &["init", "-q", "-b", "main"]).await?;
    git(&repo, &["add", "-A"]).await?;
    let name = ["-c", "user.name=somebody", "-c", "user.email=somebody@mayfly.invalid"];
    git(&repo, &[&name[..], &["commit", "-q", "-m", "hostile"]].concat()).await?;
    Ok(repo)
}

async fn git(repo: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new("git");
    command.env_remove("GIT_DIR").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.current_dir(repo).args(args).output().await.context("cannot run `git`")?;
    ensure!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// A verb, in the user's repository.
fn mayfly(place: &Place, repo: &Path, args: &[&str]) -> Command {
    let mut command = place.command();
    command.current_dir(repo).args(args).arg("--data").arg(place.data());
    command
}

/// The last result of a tool, as a text.
fn last_result(events: &[Value]) -> String {
    let contents = events.iter().filter_map(|event| event["line"]["message"]["content"].as_array()).flatten();
    let mut results = contents.filter(|block| block["type"] == "tool_result");
    let text = |block: &Value| block["content"].as_str().map_or(block["content"].to_string(), str::to_owned);
    results.next_back().map(text).unwrap_or_default()
}

/// Files and parts of files that do not count, and that no event names.
fn unnamed(events: &[Value]) -> Vec<String> {
    let named: BTreeSet<(String, String)> = events
        .iter()
        .map(|event| &event["event"])
        .filter(|event| event["type"] == "ignored")
        .flat_map(|event| {
            let file = event["file"].as_str().unwrap_or_default().to_owned();
            let parts = event["parts"].as_array().into_iter().flatten().filter_map(Value::as_str);
            parts.chain([""]).map(move |part| (file.clone(), part.to_owned())).collect::<Vec<_>>()
        })
        .collect();
    let all = hostile::IGNORED
        .iter()
        .flat_map(|(file, parts)| parts.iter().chain([&""]).map(move |part| (*file, *part)));
    let missing = all.filter(|(file, part)| !named.contains(&((*file).to_owned(), (*part).to_owned())));
    missing.map(|(file, part)| format!("{file} {part}")).collect()
}
