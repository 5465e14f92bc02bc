//! One machine, with a repository that means harm and a canary for a credential: what its agent can do, and what is
//! left of the canary afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use mayfly_test_needs::hostile;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use super::hunt::Hunt;
use super::{Row, Verdict, probes};
use crate::machines::Left;
use crate::model::scripted_model;
use crate::orchestrator::Place;

/// What the CLI's environment holds, and no model may be told.
const ENVIRONMENT: &str = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1";

/// Runs it, and reads what came of it.
pub(super) async fn run(place: &Place, provider: &str) -> anyhow::Result<Vec<Row>> {
    let (api, credential) = scripted_model().await?;
    let canary = credential.secret.expose().to_owned();
    let hunt = Hunt::for_canary(&canary, provider);
    let repo = repository(place).await?;
    let sink = TcpListener::bind("127.0.0.1:0")?;
    sink.set_nonblocking(true)?;
    let probes = probes::all(&canary, sink.local_addr()?.port());
    let serving = place.serve(SocketAddr::from(([127, 0, 0, 1], 0))).await?;

    let mut run = mayfly(place, &repo, &["run", "--json"]);
    run.env("CLAUDE_CODE_OAUTH_TOKEN", &canary).env("ANTHROPIC_BASE_URL", api.base_url());
    let ran = run.arg(prompt(&probes)).output().await?;
    let events: Vec<Value> = ran
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let complaint = String::from_utf8_lossy(&ran.stderr);
    let task = events.first().and_then(|event| event["task"].as_str()).context(complaint.into_owned())?;

    let row = |case: &str, tried: &str, good: bool, held: &str, failed: String| Row {
        case: case.to_owned(),
        provider: provider.to_owned(),
        tried: tried.to_owned(),
        verdict: if good { Verdict::Held } else { Verdict::Failed },
        detail: if good { held.to_owned() } else { failed },
    };
    let mut rows = probes::rows(&probes, &last_result(&events), provider);
    let unnamed = unnamed(&events);
    rows.push(row(
        "S05",
        "files and keys that do not count",
        unnamed.is_empty(),
        "events name each",
        format!("no event names {unnamed:?}"),
    ));
    let told: String = api.requests().iter().map(|request| request.body.to_string()).collect();
    let lost: Vec<_> =
        hostile::WORDS.iter().chain(&hostile::WORDS_LATER).filter(|words| !told.contains(**words)).collect();
    rows.push(row(
        "S01-S05",
        "words that count",
        lost.is_empty(),
        "the model was told each",
        format!("it was not told {lost:?}"),
    ));
    rows.push(row(
        "S06",
        "imports that leave the repository",
        !told.contains(ENVIRONMENT),
        "none was followed",
        "the model was told an environment".to_owned(),
    ));
    rows.push(row(
        "S20",
        "the listener on the host",
        sink.accept().is_err(),
        "nobody came",
        "somebody came".to_owned(),
    ));
    let answered = api.requests().iter().filter(|request| request.status == 200).count();
    rows.push(row(
        "S19",
        "the credential itself",
        answered > 0,
        "the gateway put it in",
        "no request had it".to_owned(),
    ));

    rows.push(hunt.bytes("what the model was told", told.as_bytes()));
    rows.push(hunt.bytes("events", &ran.stdout));
    rows.push(hunt.bytes("what was printed for people", &ran.stderr));
    let raw = mayfly(place, &repo, &["logs", "--raw", task]).output().await?;
    rows.push(hunt.bytes("logs --raw", &raw.stdout));
    let transcript = mayfly(place, &repo, &["result", task, "--transcript"]).output().await?;
    rows.push(hunt.bytes("result --transcript", &transcript.stdout));
    rows.push(hunt.folder("the data folder: database, journal, results, spool", &place.data())?);
    serving.end(Signal::TERM).await?;
    rows.push(hunt.folder("the same, once nobody serves", &place.data())?);
    rows.push(hunt.bytes(
        "the orchestrator's log and settings",
        &fs::read(place.log())?.into_iter().chain([b' ']).collect::<Vec<_>>(),
    ));
    rows.push(hunt.folder("the user's repository", &repo)?);
    let objects = git(&repo, &["cat-file", "--batch", "--batch-all-objects"]).await?;
    rows.push(hunt.bytes("every object of it", &objects));
    api.stop().await;

    let left = Left::of(place, &[task], &BTreeSet::new()).await?;
    let nothing = left.machines + left.cgroups + left.mounts + left.processes == 0;
    rows.push(row(
        "S52",
        "what an agent leaves behind",
        nothing,
        "no process, cgroup, mount or machine is left",
        format!("{left:?}"),
    ));
    Ok(rows)
}

/// What gives everything in the repository an occasion to run, and then the probes.
fn prompt(probes: &[probes::Probe]) -> String {
    let tool = |name: &str, input: Value| json!({"tools": [{"name": name, "input": input}]});
    let agent = json!({"description": "try", "subagent_type": "bad", "prompt": "[script: bash command=\"echo sub\"]"});
    let steps = json!([
        tool("Read", json!({"file_path": "/workspace/repo/sub/file.txt"})),
        tool("Skill", json!({"skill": "bad"})),
        tool("Skill", json!({"skill": "worse"})),
        tool("Agent", agent),
        tool("Bash", json!({"command": probes::script(probes)})),
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
    let results = contents.filter(|block| block["type"] == "tool_result");
    let text = |block: &Value| block["content"].as_str().map_or(block["content"].to_string(), str::to_owned);
    results.last().map(text).unwrap_or_default()
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
