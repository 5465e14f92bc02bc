//! Hooks: `hooks.json` has the CLI's table of events, bare or below `hooks`, and scripts stand beside it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::mcp::OWN_FOLDER;
use super::{Source, unfit_program};
use crate::id::ResourceId;
use crate::problem::{Problem, Problems};
use crate::tree::File;

/// What is known of the hooks of one matcher.
#[derive(Deserialize)]
pub(super) struct Matched {
    #[expect(dead_code, reason = "that it is a text is what is checked")]
    matcher: Option<String>,
    hooks: Vec<Hook>,
}

#[derive(Deserialize)]
struct Hook {
    #[serde(rename = "type")]
    kind: String,
    command: Option<String>,
}

/// What is known of a table of hooks.
pub(super) type Table = BTreeMap<String, Vec<Matched>>;

#[derive(Deserialize)]
struct Below {
    hooks: Table,
}

pub(super) fn read(id: &ResourceId, files: &[File]) -> Result<Map<String, Value>, Problems> {
    let source = Source::called(id, files, "hooks.json")?;
    let (_, whole): (Map<String, Value>, _) = source.json()?;
    let (table, whole) = match whole.contains_key("hooks") {
        true => {
            let (Below { hooks }, mut whole): (Below, _) = source.json()?;
            let below = whole.get_mut("hooks").and_then(Value::as_object_mut).map(std::mem::take);
            (hooks, below.unwrap_or_default())
        }
        false => source.json::<Table>()?,
    };
    let hooks = table.values().flatten().flat_map(|matched| &matched.hooks);
    let problems: Vec<Problem> = hooks.filter_map(|hook| wrong(&source, hook, files)).collect();
    if problems.is_empty() { Ok(whole) } else { Err(Problems(problems)) }
}

/// What is wrong with a hook: above all, a script of the resource that is not there, or that cannot be run.
fn wrong(source: &Source<'_>, hook: &Hook, files: &[File]) -> Option<Problem> {
    let Some(command) = &hook.command else {
        let words = "a hook of the type `command` has a command";
        return (hook.kind == "command").then(|| source.near("\"command\"", words));
    };
    let first = command.split_whitespace().next().unwrap_or_default().trim_matches(['"', '\'']);
    let path =
        first.strip_prefix(OWN_FOLDER).and_then(|path| path.strip_prefix('/')).or(first.strip_prefix("./"))?;
    let words = unfit_program(path, files)?;
    Some(source.near(&Value::from(command.as_str()).to_string(), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(text: &str, run: bool) -> Result<Map<String, Value>, String> {
        let file = |path: &str, executable, text: &str| File {
            path: path.to_owned(),
            executable,
            bytes: text.as_bytes().to_vec(),
        };
        let id: ResourceId = "hooks/_global/fmt".parse().expect("an id");
        let files = [file("hooks.json", false, text), file("bin/run", run, "#!/bin/sh\n")];
        read(&id, &files).map_err(|problems| problems.to_string())
    }

    const BARE: &str =
        r#"{"Stop": [{"hooks": [{"type": "command", "command": "${CLAUDE_PLUGIN_ROOT}/bin/run x"}]}]}"#;

    #[test]
    fn a_table_may_stand_bare_or_below_its_name() {
        let bare = hooks(BARE, true).expect("hooks");
        assert_eq!(Ok(bare), hooks(&format!("{{\"hooks\": {BARE}, \"description\": \"x\"}}"), true));
    }

    #[test]
    fn a_script_that_cannot_be_run_is_named() {
        assert_eq!(
            hooks(BARE, false),
            Err("hooks/_global/fmt/hooks.json:1:53: `bin/run` is to be run and cannot be: chmod +x it"
                .to_owned())
        );
        let said = hooks(&BARE.replace("bin/run", "bin/none"), true).expect_err("not there");
        assert!(said.contains("hooks.json:1:53: there is no `bin/none` beside it"), "{said}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, words) in [
            ("{\"Stop\": 7}", "hooks.json:1:10: invalid type: integer `7`, expected a sequence"),
            (
                "{\"Stop\": [{\"hooks\": [{\"type\": \"command\"}]}]}",
                "hooks.json:1:31: a hook of the type `command`",
            ),
            ("[]", "hooks.json:1:1: invalid type: sequence, expected a map"),
        ] {
            let said = hooks(text, true).expect_err(text);
            assert!(said.contains(words), "{said}");
        }
    }
}
