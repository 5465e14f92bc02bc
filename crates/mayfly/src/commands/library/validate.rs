//! What the CLI itself finds in skills and agents: `claude plugin validate`, where a `claude` is there already.
//!
//! ```text
//! skills/{number}/…       each skill as it is            ─►  claude plugin validate --json --strict  ─►  problems, by the
//! agents/{number}.md      each agent as the CLI gets it      in an empty home, asking nobody             library's own paths
//! ```
//!
//! Bounds: [`ANSWER_MAX`] for the answer, [`ANSWER_BYTES_MAX`] of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mayfly_library::kinds::What;
use mayfly_library::kinds::agent::Agent;
use mayfly_library::{Library, Problem, Resource, matter};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::printer::Shown;

/// The longest that it may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The longest answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How much of each of its sentences is told.
const WORDS_CHARS_MAX: usize = 600;
/// What it needs of an environment, so that it asks nobody for anything.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/bin:/bin"), ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")];

/// What this `claude` finds in the good skills and agents of a library.
pub(super) async fn validate(library: &Library, claude: &Path) -> anyhow::Result<Vec<Problem>> {
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    // It names files by their whole paths, with all links resolved.
    let top = fs::canonicalize(home.path())?.join(".claude");
    let good = library.ids().into_iter().flatten().filter_map(|id| library.read(&id).ok());
    let written = good.enumerate().map(|(number, resource)| write(&top, number, &resource));
    let written: Vec<Written> = written.filter_map(Result::transpose).collect::<io::Result<_>>()?;
    if written.is_empty() {
        return Ok(Vec::new());
    }
    let answer = timeout(ANSWER_MAX, ask(claude, home.path(), &top)).await;
    let answer = answer.with_context(|| format!("{} did not answer in {ANSWER_MAX:?}", claude.display()))?;
    read(&answer.with_context(|| format!("{} cannot be run", claude.display()))?, &written)
        .with_context(|| format!("`{} plugin validate` gave no report", claude.display()))
}

/// A file or a folder that it is shown, and what that is in the library.
struct Written {
    at: PathBuf,
    own: String,
}

/// Shows it a resource, if it is of a kind that it knows.
fn write(top: &Path, number: usize, resource: &Resource) -> io::Result<Option<Written>> {
    match &resource.what {
        What::Skill { .. } => {
            let at = top.join("skills").join(number.to_string());
            for file in &resource.files {
                put(&at.join(&file.path), &file.bytes)?;
            }
            Ok(Some(Written { at, own: resource.id.to_string() }))
        }
        What::Agent(agent) => {
            let at = top.join("agents").join(format!("{number}.md"));
            put(&at, as_markdown(agent).as_bytes())?;
            let json = resource.files.iter().any(|file| file.path == "agent.json");
            let own = format!("{}/{}", resource.id, if json { "agent.json" } else { "agent.md" });
            Ok(Some(Written { at, own }))
        }
        _ => Ok(None),
    }
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, bytes)
}

/// An agent as the CLI is told of it, in the form that its validator reads.
fn as_markdown(agent: &Agent) -> String {
    let Value::Object(mut told) = agent.for_cli(false) else { return String::new() };
    told.remove("prompt");
    told.insert("name".to_owned(), agent.name.clone().into());
    let settings: Vec<(&str, Value)> =
        told.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    matter::join(&settings, &agent.prompt)
}

async fn ask(claude: &Path, home: &Path, top: &Path) -> io::Result<Vec<u8>> {
    let mut command = Command::new(claude);
    command.args(["plugin", "validate", "--json", "--strict"]).arg(top);
    command.env_clear().envs(ENVIRONMENT).env("HOME", home).current_dir(home).kill_on_drop(true);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut answer = Vec::new();
    let stdout = child.stdout.take().expect("its standard output is a pipe");
    stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    child.kill().await?;
    Ok(answer)
}

/// What is known of its report.
#[derive(Deserialize)]
struct Report {
    success: bool,
    manifest: Option<OfFile>,
    contents: Vec<OfFile>,
}

#[derive(Deserialize)]
struct OfFile {
    file: PathBuf,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    path: String,
    message: String,
}

fn read(answer: &[u8], written: &[Written]) -> anyhow::Result<Vec<Problem>> {
    let report: Report = serde_json::from_slice(answer).context("what it printed is no report")?;
    let mut problems = Vec::new();
    for OfFile { file, errors, warnings } in report.contents.into_iter().chain(report.manifest) {
        let own = own_path(&file, written);
        problems.extend(errors.into_iter().chain(warnings).map(|Finding { path, message }| {
            let [path, message] = [path, message].map(|text| Shown::line(&text, WORDS_CHARS_MAX).to_string());
            Problem::new(&own, format!("claude says of `{path}`: {message}"))
        }));
    }
    if !report.success && problems.is_empty() {
        bail!("it found something wrong and did not say what");
    }
    problems.sort();
    Ok(problems)
}

/// What a file that it was shown is called in the library.
fn own_path(file: &Path, written: &[Written]) -> String {
    let found = written.iter().find_map(|one| Some((file.strip_prefix(&one.at).ok()?, &one.own)));
    match found {
        Some((below, own)) if below.as_os_str().is_empty() => own.clone(),
        Some((below, own)) => format!("{own}/{}", below.display()),
        None => "the library".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mayfly_library::File;

    use super::*;

    #[test]
    fn what_it_finds_is_told_by_the_librarys_own_paths() {
        let written = |at: &str, own: &str| Written { at: at.into(), own: own.to_owned() };
        let written =
            [written("/t/skills/1", "skill/_global/a"), written("/t/agents/12.md", "agent/p/b/agent.md")];
        let finding =
            |path: &str, message: &str| serde_json::json!({"path": path, "message": message, "code": null});
        let of_file = |file: &str, errors: Vec<Value>, warnings: Vec<Value>| serde_json::json!({"file": file, "type": "x", "errors": errors, "warnings": warnings});
        let report = serde_json::json!({"success": false, "manifest": null, "new": 1, "contents": [
            of_file("/t/skills/1/SKILL.md", vec![finding("allowed-tools", "must be\u{1b}[2J a string")], vec![]),
            of_file("/t/agents/12.md", vec![], vec![finding("color", "is none")]),
            of_file("/elsewhere", vec![finding("x", "y")], vec![]),
        ]});
        let told = read(report.to_string().as_bytes(), &written).expect("a report");
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn what_is_no_report_is_not_as_good_as_none() {
        for text in ["", "{}", r#"{"success": false, "manifest": null, "contents": []}"#] {
            assert!(read(text.as_bytes(), &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn an_agent_is_shown_to_it_as_the_cli_gets_it() {
        let file = File {
            path: "agent.md".to_owned(),
            executable: false,
            bytes: b"allowedTools: Read\nLook. Then say.".to_vec(),
        };
        let agent = Resource::read("agent/_global/a".parse().expect("an id"), vec![file]).expect("an agent");
        let What::Agent(agent) = agent.what else { panic!("{agent:?}") };
        insta::assert_snapshot!(as_markdown(&agent));
    }
}
