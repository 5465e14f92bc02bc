//! Runs the real CLI against a scripted API: an environment made from nothing, a home and a folder of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mayfly_scripted_api::ScriptedApi;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::client::{TOKEN, api};

/// Longer than any run here takes, many times over.
const RUN_TIME_MAX: Duration = Duration::from_secs(120);

/// A run of the CLI that is over.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<Value>,
    pub(crate) stderr: String,
    /// Where it worked.
    pub(crate) folder: TempDir,
    pub(crate) api: ScriptedApi,
}

/// How a run differs from the usual.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) prompt: &'a str,
    pub(crate) args: &'a [&'a str],
    pub(crate) token: &'a str,
    /// Called with the folder before the start.
    pub(crate) prepare: fn(&Path),
}

impl<'a> Setup<'a> {
    pub(crate) fn new(prompt: &'a str) -> Self {
        Self { prompt, args: &[], token: TOKEN, prepare: |_| {} }
    }
}

/// Runs a prompt, or says that there is no CLI to run.
pub(crate) async fn run(prompt: &str) -> Option<Run> {
    run_with(Setup::new(prompt)).await
}

pub(crate) async fn run_with(setup: Setup<'_>) -> Option<Run> {
    let claude = mayfly_test_needs::claude()?;
    let api = api().await;
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    (setup.prepare)(folder.path());
    let mut command = Command::new(claude);
    command.env_clear().envs([
        ("PATH", "/usr/bin:/bin"),
        ("IS_SANDBOX", "1"),
        ("ANTHROPIC_BASE_URL", &api.base_url()),
        ("CLAUDE_CODE_OAUTH_TOKEN", setup.token),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
        ("CLAUDE_CODE_MAX_RETRIES", "1"),
    ]);
    command.env("HOME", home.path()).env("CLAUDE_CODE_TMPDIR", home.path()).current_dir(folder.path());
    command.args(["-p", "--output-format", "stream-json", "--verbose", "--model", "sonnet"]);
    command.args(["--permission-mode", "bypassPermissions"]).args(setup.args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(setup.prompt.as_bytes()).await.unwrap();
    drop(stdin);
    let output =
        tokio::time::timeout(RUN_TIME_MAX, child.wait_with_output()).await.expect("the CLI hangs").unwrap();
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(Run { code: output.status.code(), lines, stderr, folder, api })
}

impl Run {
    /// The last line that says how it ended.
    pub(crate) fn result(&self) -> &Value {
        let mut results = self.lines.iter().rev().filter(|line| line["type"] == "result");
        results.next().unwrap_or_else(|| panic!("no result: {} {:?}", self.stderr, self.lines))
    }

    /// What went well: exit, result, and that the API took every request as the CLI makes them.
    pub(crate) fn assert_succeeded(&self) {
        let result = self.result();
        assert_eq!(
            (self.code, &result["is_error"]),
            (Some(0), &Value::Bool(false)),
            "{result} {}",
            self.stderr
        );
        assert_eq!(result["terminal_reason"], "completed", "{result}");
        assert!(result["total_cost_usd"].as_f64().unwrap() > 0.001, "{result}");
        let refused: Vec<_> = self.api.requests().into_iter().filter(|seen| seen.status != 200).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// What failed at the API, with this status.
    pub(crate) fn assert_failed(&self, status: impl Into<Value>) {
        let result = self.result();
        assert_eq!(
            (self.code, &result["is_error"]),
            (Some(1), &Value::Bool(true)),
            "{result} {}",
            self.stderr
        );
        assert_eq!(result["terminal_reason"], "api_error", "{result}");
        assert_eq!(result["api_error_status"], status.into(), "{result}");
    }

    /// The blocks of one type, of what the agents and the tools said.
    pub(crate) fn blocks(&self, kind: &str) -> Vec<&Value> {
        let contents = self.lines.iter().filter_map(|line| line["message"]["content"].as_array());
        contents.flatten().filter(|block| block["type"] == kind).collect()
    }

    pub(crate) fn file(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(path)).unwrap()
    }
}
