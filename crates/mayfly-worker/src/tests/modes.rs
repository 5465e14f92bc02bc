//! What a library denies is refused in every permission mode of the real CLI. No task runs in another than the one that we ask
//! for, and `claude` that says that it does is stopped: here it is started as for a task, but for the mode.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mayfly_library::{Compiled, Library, Wishes, compile};
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_wire::worker::WorkOrder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::claude::command::{Launch, PERMISSION_MODE, config_dir, prepare, tests::order};
use crate::claude::input::opening;
use crate::library;

/// The modes that the CLI has.
const MODES: [&str; 6] = ["default", "acceptEdits", "auto", "dontAsk", "plan", PERMISSION_MODE];
/// The one in which it starts no sub-agent before its maker has been asked.
const ASKING: &str = "auto";

const TOUCHED: &str = "Permission to use Bash with command touch ran has been denied";
const WRITTEN: &str = "<tool_use_error>Error: No such tool available: Write";
const NOT_STARTED: &str = "Auto mode is unavailable";

/// A library that allows much and denies some, with an agent for each mode.
fn policy(top: &Path) -> Library {
    let put = |path: &str, text: &str| {
        let path = top.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let permissions = json!({"allow": ["Bash", "Write", "Agent"], "deny": ["Write", "Bash(touch:*)"]});
    // Else a plan would need its maker's word for each sub-agent too.
    let settings = json!({"useAutoModeDuringPlan": false, "permissions": permissions});
    put("settings/_global/base/settings.json", &settings.to_string());
    for mode in MODES {
        let agent = format!("---\npermissionMode: {mode}\ntools: Bash, Write\n---\nHelp.");
        put(&format!("agent/_global/{mode}/agent.md"), &agent);
    }
    Library::at(top)
}

fn steps(steps: &[Value]) -> String {
    format!("[script: steps list={}]", json!(steps))
}

fn tool(name: &str, input: &Value) -> Value {
    json!({"tools": [{"name": name, "input": input}]})
}

/// What is allowed and what is not, by the main agent and by each of the others.
fn prompt(cwd: &Path) -> String {
    let bash = |command: &str| tool("Bash", &json!({"command": command}));
    let write = tool("Write", &json!({"file_path": cwd.join("ran"), "content": "x"}));
    let denied = [bash("touch ran"), write];
    let delegated = MODES.map(|mode| {
        let input = json!({"description": "a part", "subagent_type": mode, "prompt": steps(&denied)});
        tool("Agent", &input)
    });
    steps(&[&[bash("echo allowed")], &denied[..], &delegated].concat())
}

/// The command of a task, in another mode.
fn in_mode(command: &Command, mode: &str) -> tokio::process::Command {
    let mut other = tokio::process::Command::new(command.get_program());
    other.env_clear().current_dir(command.get_current_dir().unwrap());
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut before = "".as_ref();
    for word in command.get_args() {
        other.arg(if before == "--permission-mode" { mode.as_ref() } else { word });
        before = word;
    }
    other.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    other
}

/// What `claude` says in this mode, to its end.
async fn said(cli: &Path, api: &ScriptedApi, library: &Compiled, home: &Path, mode: &str) -> Vec<Value> {
    let cwd = home.join("work");
    fs::create_dir_all(&cwd).unwrap();
    let port = api.base_url().rsplit(':').next().unwrap().parse().unwrap();
    let order = WorkOrder { max_turns: None, max_budget_usd: None, ..order() };
    let launch = Launch { binary: cli, home, cwd: &cwd, port, egress_port: None, order: &order, library };
    let mut claude = in_mode(&launch.command().unwrap().0, mode).spawn().unwrap();
    claude.stdin.take().unwrap().write_all(&opening(&prompt(&cwd))).await.unwrap();
    let output = claude.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{mode}: {}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(fs::read_dir(&cwd).unwrap().count(), 0, "{mode}: nothing was written");
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The results of tools, as texts.
fn results(lines: &[Value]) -> Vec<&str> {
    let contents = lines.iter().filter_map(|line| line["message"]["content"].as_array()).flatten();
    contents
        .filter(|block| block["type"] == "tool_result")
        .filter_map(|block| block["content"].as_str())
        .collect()
}

/// S05, for what asks before it runs a tool, or does not.
#[tokio::test]
async fn what_is_denied_is_denied_in_every_mode_to_everybody() {
    let Some(cli) = mayfly_test_needs::claude() else { return };
    let accepted = Accepted::Oauth("canary-model".to_owned());
    let api = ScriptedApi::start_paced("127.0.0.1:0".parse().unwrap(), accepted, 0.0).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let resolution = policy(&place.path().join("library")).resolve(&Wishes::default(), &|_| None).unwrap();
    for mode in MODES {
        let home = place.path().join(mode);
        prepare(&home).unwrap();
        let library = compile(&resolution, config_dir(&home).to_str().unwrap(), &[].into());
        for file in &library.files {
            library::write(&config_dir(&home).join(&file.path), &file.bytes, file.executable).unwrap();
        }
        let lines = said(&cli, &api, &library, &home, mode).await;
        let init = lines.iter().find(|line| line["subtype"] == "init").unwrap();
        assert_eq!(init["permissionMode"], mode);
        assert!(!init["tools"].as_array().unwrap().contains(&json!("Write")), "{mode}: {init}");
        let results = results(&lines);
        assert_eq!(results[0], "allowed", "{mode}: {results:?}");
        let count = |words: &str| results.iter().filter(|said| said.starts_with(words)).count();
        let all = 1 + if mode == ASKING { 0 } else { MODES.len() };
        assert_eq!((count(TOUCHED), count(WRITTEN)), (all, all), "{mode}: {results:?}");
        assert_eq!(count(NOT_STARTED), MODES.len() + 1 - all, "{mode}: {results:?}");
    }
    api.stop().await;
}
