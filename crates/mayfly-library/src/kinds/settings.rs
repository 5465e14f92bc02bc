//! Settings: `settings.json` of the CLI's own. What would lead the model's requests elsewhere, or run a program for a
//! credential, is refused: that is the gateway's part.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::beside::{OWN_FOLDER, program_of};
use super::hooks::{Table, places};
use super::{Source, own};
use crate::id::ResourceId;
use crate::problem::{Problem, Problems};
use crate::tree::File;

/// The file's name.
const FILE: &str = "settings.json";

/// Settings by which the CLI gets a credential, or has one sent.
const CREDENTIALS: [&str; 6] = [
    "apiKeyHelper",
    "awsAuthRefresh",
    "awsCredentialExport",
    "forceLoginMethod",
    "otelHeadersHelper",
    "gcpAuthRefresh",
];
/// What the names of variables begin with that lead its requests, or say who sends them.
const LEADING: [&str; 9] = [
    "ANTHROPIC_",
    "CLAUDE_CODE_API",
    "CLAUDE_CODE_HTTP",
    "CLAUDE_CODE_OAUTH",
    "CLAUDE_CODE_RUNNER",
    "CLAUDE_CODE_USE_",
    "CLAUDE_CONFIG_DIR",
    "AWS_",
    "GOOGLE_",
];
/// Variables that would do so for all its connections.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// What is known of settings.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Shape {
    permissions: Permissions,
    env: BTreeMap<String, String>,
    hooks: Table,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Permissions {
    allow: Vec<String>,
    deny: Vec<String>,
    ask: Vec<String>,
}

pub(super) fn read(id: &ResourceId, files: &[File]) -> Result<Map<String, Value>, Problems> {
    let source = Source::called(id, files, FILE)?;
    let (shape, whole): (Shape, _) = source.json()?;
    let helpers = whole.keys().filter(|key| CREDENTIALS.contains(&key.as_str()));
    let leading = shape.env.keys().filter(|name| leads_elsewhere(name));
    let refused = |key: &String| {
        let words = format!(
            "`{}` is not for a library: the gateway alone has the credential and the way to the model",
            key.escape_debug()
        );
        source.near(&format!("\"{key}\""), words)
    };
    let hooks = shape.hooks.values().flatten().flat_map(|matched| &matched.hooks);
    let commands =
        hooks.zip(places(&source)).filter_map(|(hook, place)| Some((hook.command.as_ref()?, place)));
    let of_files =
        commands.filter(|(command, _)| command.contains(OWN_FOLDER) || program_of(command).starts_with("./"));
    let of_files = of_files.map(|(command, place)| {
        let words = "settings have no files of their own, and the CLI would run the repository's: make it a `hooks` resource";
        source.near_in(&place, &Value::from(command.as_str()).to_string(), words)
    });
    let beside = files.iter().filter(|file| ![FILE, own::FILE].contains(&file.path.as_str()));
    let beside = beside.map(|file| {
        let words = "settings have no files of their own: a `hooks` resource has, or a skill";
        Problem::new(format!("{id}/{}", file.path.escape_debug()), words)
    });
    let problems: Vec<Problem> = helpers.chain(leading).map(refused).chain(of_files).chain(beside).collect();
    if problems.is_empty() { Ok(whole) } else { Err(Problems(problems)) }
}

/// The rules that settings allow, ask about or deny.
pub(crate) fn rules(settings: &Map<String, Value>) -> impl Iterator<Item = &str> {
    ["allow", "ask", "deny"].into_iter().flat_map(|list| rules_of(settings, list))
}

/// Those of one list.
pub(crate) fn rules_of<'a>(settings: &'a Map<String, Value>, list: &str) -> impl Iterator<Item = &'a str> {
    let rules = settings.get("permissions").and_then(|permissions| permissions.get(list));
    rules.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn leads_elsewhere(name: &str) -> bool {
    LEADING.iter().any(|start| name.starts_with(start))
        || PROXIES.contains(&name.to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Map<String, Value>, String> {
        let file =
            File { path: "settings.json".to_owned(), executable: false, bytes: text.as_bytes().to_vec() };
        let id: ResourceId = "settings/_global/base".parse().expect("an id");
        read(&id, &[file]).map_err(|problems| problems.to_string())
    }

    #[test]
    fn settings_have_no_files_of_their_own() {
        let hook = |command: &str| {
            format!(
                r#"{{"hooks": {{"Stop": [{{"hooks": [{{"type": "command", "command": "{command}"}}]}}]}}}}"#
            )
        };
        for command in ["${CLAUDE_PLUGIN_ROOT}/x.sh", "./x.sh a", "sh ${CLAUDE_PLUGIN_ROOT}/x.sh"] {
            let said = settings(&hook(command)).expect_err(command);
            assert!(said.contains("settings.json:1:63: settings have no files"), "{said}");
        }
        assert!(settings(&hook("date")).is_ok());
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            executable: false,
            bytes: text.as_bytes().to_vec(),
        };
        let files = [file("mayfly.toml", ""), file("settings.json", "{}"), file("x.sh", "")];
        let said = read(&"settings/_global/base".parse().expect("an id"), &files).expect_err("refused");
        assert!(said.to_string().starts_with("settings/_global/base/x.sh: settings have no files"), "{said}");
    }

    #[test]
    fn what_is_not_known_stays() {
        let read =
            settings(r#"{"permissions": {"deny": ["Read(.env)"]}, "env": {"CI": "1"}, "newer": {"a": 1}}"#);
        assert_eq!(read.expect("settings")["newer"]["a"], 1);
    }

    /// Covers S03 and S04 for settings of the library.
    #[test]
    fn the_way_to_the_model_is_no_setting() {
        let said = settings(
            "{\n \"apiKeyHelper\": \"x\",\n \"env\": {\"ANTHROPIC_BASE_URL\": \"x\", \"https_proxy\": \"y\"}}",
        );
        let said = said.expect_err("refused");
        for words in
            ["settings.json:2:2: `apiKeyHelper`", ":3:10: `ANTHROPIC_BASE_URL`", ":3:37: `https_proxy`"]
        {
            assert!(said.contains(words), "{said}");
        }
        let said = settings("{\"permissions\": {\"deny\": \"Bash\"}}").expect_err("refused");
        assert!(
            said.contains("settings.json:1:31: invalid type: string \"Bash\", expected a sequence"),
            "{said}"
        );
    }
}
