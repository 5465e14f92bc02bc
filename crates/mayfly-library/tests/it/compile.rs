//! What the CLI is given of a library.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mayfly_library::{Compiled, Library, Wishes, compile};

fn put(top: &Path, path: &str, text: &str) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let mode = if path.extension().is_some_and(|end| end == "sh") { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn shown(compiled: &Compiled) -> String {
    let files = compiled.files.iter().map(|file| {
        let run = if file.executable { "*" } else { "" };
        format!("{}{run}\n    {}\n", file.path, file.text().unwrap().replace('\n', "\n    "))
    });
    let settings = serde_json::to_string_pretty(&compiled.settings).unwrap();
    let servers = serde_json::to_string_pretty(&compiled.servers).unwrap();
    let Compiled { agents, agent, model, max_tokens, expected, .. } = compiled;
    format!(
        "{}--agents {agents:?} --agent {agent:?}\nmodel {model:?}, max_tokens {max_tokens:?}\n--settings {settings}\n--mcp-config {servers}\n{expected:#?}",
        files.collect::<String>()
    )
}

/// One of each kind, in both layers, as the CLI gets it.
#[test]
fn each_kind_becomes_what_the_cli_reads() {
    let top = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| put(top.path(), path, text);
    put("skill/_global/review/SKILL.md", "---\nname: review\ndescription: Looks.\n---\nLook.");
    put("skill/_global/review/list.txt", "a list");
    put("skill/_global/unlisted/SKILL.md", "It says nothing of itself.");
    put("rules/_global/style/style.md", "Be brief.");
    put(
        "agent/_global/reviewer/agent.json",
        r#"{"name": "reviewer", "model": "haiku", "system_prompt": "Review.", "tools": ["Read", "mcp__db__query"], "max_tokens": 900}"#,
    );
    put("agent/tally/fixer/agent.md", "deniedTools: WebFetch\nFix it.");
    put(
        "mcp/tally/db/mcp.json",
        r#"{"command": "${CLAUDE_PLUGIN_ROOT}/run.sh", "args": ["./schema.sql", "./of-the-repository", "${TOKEN:-none}"], "env": {"TOKEN": "${TOKEN}", "MODE": "${MODE:-ro}", "OTHER": "x${TOKEN:-none}"}}"#,
    );
    put("mcp/tally/db/run.sh", "#!/bin/sh\n");
    put("mcp/tally/db/schema.sql", "select 1");
    put("mcp/tally/db/mayfly.toml", "secrets = { TOKEN = \"db\" }\nallow-secret-in-machine = true\n");
    put(
        "mcp/_global/py/mcp.json",
        r#"{"command": "uvx", "args": ["--from", "py-server", "serve", "./here"], "env": {"PYTHONPATH": "/own"}}"#,
    );
    let tool = serde_json::json!({"py": {"package": "py-server", "named": "serve", "resolved": "py-server==1",
        "sha256": "0".repeat(64), "program": "/usr/bin/python3", "path": "bin/serve"}});
    put("mcp/_global/py/tools.json", &tool.to_string());
    put("mcp/_global/docs/mcp.json", r#"{"type": "http", "url": "https://docs.example/mcp"}"#);
    put(
        "hooks/_global/fmt/hooks.json",
        r#"{"hooks": {"PostToolUse": [{"matcher": "Edit", "hooks": [{"type": "command", "command": "./fmt.sh --all"}]}]}}"#,
    );
    put("hooks/_global/fmt/fmt.sh", "#!/bin/sh\n");
    put(
        "settings/_global/base/settings.json",
        r#"{"env": {"CI": "1", "A": "g"}, "permissions": {"deny": ["WebSearch"]}}"#,
    );
    put(
        "settings/tally/more/settings.json",
        r#"{"env": {"A": "p"}, "permissions": {"deny": ["WebSearch", "Read(.env)"]}}"#,
    );
    let wishes =
        Wishes { project: "tally".parse().ok(), agent: "reviewer".parse().ok(), ..Wishes::default() };
    let resolution = Library::at(top.path()).resolve(&wishes, &|_| None).unwrap();
    let secrets =
        BTreeMap::from([("db".to_owned(), BTreeMap::from([("TOKEN".to_owned(), "s3".to_owned())]))]);
    insta::assert_snapshot!(shown(&compile(&resolution, "/home/agent/.claude", &secrets)));
}

#[test]
fn an_empty_library_gives_nothing() {
    let resolution = Library::at("/nonexistent").resolve(&Wishes::default(), &|_| None).unwrap();
    assert_eq!(compile(&resolution, "/c", &BTreeMap::new()), Compiled::default());
}

/// What the agent that the task is run by is denied, nobody in its session may do: whole tools are not there, and parts of
/// tools are denied call by call. As a sub-agent's bound a part is all that the CLI can hold to: the whole tool.
#[test]
fn what_the_main_agent_is_denied_is_denied_to_all() {
    let top = tempfile::tempdir().unwrap();
    for name in ["lead", "helper"] {
        put(
            top.path(),
            &format!("agent/_global/{name}/agent.md"),
            "deniedTools: [Write, Bash(git push:*)]\nWork.",
        );
    }
    let wishes = Wishes { agent: "lead".parse().ok(), ..Wishes::default() };
    let resolution = Library::at(top.path()).resolve(&wishes, &|_| None).unwrap();
    let compiled = compile(&resolution, "/c", &BTreeMap::new());
    let settings = serde_json::json!({"permissions": {"deny": ["Write", "Bash(git push:*)"]}});
    assert_eq!(serde_json::Value::from(compiled.settings), settings);
    assert_eq!(compiled.expected.denied, ["Write"]);
    let agents: serde_json::Value = serde_json::from_slice(&compiled.files[0].bytes).unwrap();
    assert_eq!(agents["lead"]["disallowedTools"], serde_json::json!(["Write"]));
    assert_eq!(agents["helper"]["disallowedTools"], serde_json::json!(["Write", "Bash(git push:*)"]));
}

/// Covers S05: whatever has hooks keeps them: nobody else's settings switch them off, and its owner's may.
#[test]
fn hooks_of_the_library_stay_on() {
    let hooks = r#"{"Stop": [{"hooks": [{"type": "command", "command": "true"}]}]}"#;
    let off = |path: &str, text: &str| {
        let top = tempfile::tempdir().unwrap();
        put(top.path(), path, text);
        let resolution = Library::at(top.path()).resolve(&Wishes::default(), &|_| None).unwrap();
        compile(&resolution, "/c", &BTreeMap::new()).settings.remove("disableAllHooks")
    };
    for (path, text) in [
        ("hooks/_global/x/hooks.json", hooks.to_owned()),
        ("settings/_global/x/settings.json", format!("{{\"hooks\": {hooks}}}")),
        ("agent/_global/x/agent.md", format!("---\nhooks: {hooks}\n---\nWork.")),
        ("skill/_global/x/SKILL.md", format!("---\nhooks: {hooks}\n---\nWork.")),
    ] {
        assert_eq!(off(path, &text), Some(false.into()), "{path}");
    }
    assert_eq!(off("rules/_global/x/x.md", "Be brief."), None);
    let own = format!("{{\"hooks\": {hooks}, \"disableAllHooks\": true}}");
    assert_eq!(off("settings/_global/x/settings.json", &own), Some(true.into()));
}

/// The agent to be run by may be one of the repository's, and must be there all the same.
#[test]
fn an_agent_that_is_not_the_librarys_must_be_there_too() {
    let wishes = Wishes { agent: "theirs".parse().ok(), ..Wishes::default() };
    let resolution = Library::at("/nonexistent").resolve(&wishes, &|_| None).unwrap();
    let compiled = compile(&resolution, "/c", &BTreeMap::new());
    assert_eq!(
        (compiled.agent.as_deref(), compiled.expected.agent.as_deref()),
        (Some("theirs"), Some("theirs"))
    );
    assert_eq!(compiled.expected.agents, [""; 0], "it is not the library's");
}
