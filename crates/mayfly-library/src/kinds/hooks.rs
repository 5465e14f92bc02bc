//! Hooks: `hooks.json` has the CLI's table of events, bare or below `hooks`, and scripts stand beside it.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Source;
use super::beside::{OWN_FOLDER, own_files, program_of, unfit_own};
use crate::id::ResourceId;
use crate::problem::{Problem, Problems};
use crate::tree::File;

/// What is known of the hooks of one matcher.
#[derive(Deserialize)]
pub(super) struct Matched {
    #[expect(dead_code, reason = "that it is a text is what is checked")]
    matcher: Option<String>,
    pub(super) hooks: Vec<Hook>,
}

#[derive(Deserialize)]
pub(super) struct Hook {
    #[serde(rename = "type")]
    kind: String,
    pub(super) command: Option<String>,
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
    let problems =
        hooks.zip(places(&source)).filter_map(|(hook, place)| wrong((&source, &place), hook, files));
    let problems: Vec<Problem> = problems.collect();
    if problems.is_empty() { Ok(whole) } else { Err(Problems(problems)) }
}

/// Where each hook of a table is, which stands bare or below `hooks`.
pub(super) fn places(source: &Source<'_>) -> Vec<Range<usize>> {
    #[derive(Deserialize)]
    struct Matched<'a> {
        #[serde(borrow)]
        hooks: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Below<'a> {
        #[serde(borrow)]
        hooks: BTreeMap<String, Vec<Matched<'a>>>,
    }
    let below = serde_json::from_str(source.text).map(|Below { hooks }| hooks);
    let table = below.or_else(|_| serde_json::from_str(source.text)).unwrap_or_default();
    let hooks = table.values().flatten().flat_map(|matched| &matched.hooks);
    hooks.map(|hook| source.place(hook)).collect()
}

/// What is wrong with a hook: above all, a script of the resource that is not there, or that cannot be run.
fn wrong((source, place): (&Source<'_>, &Range<usize>), hook: &Hook, files: &[File]) -> Option<Problem> {
    let Some(command) = &hook.command else {
        let words = "a hook of the type `command` has a command";
        return (hook.kind == "command").then(|| source.near_in(place, "\"command\"", words));
    };
    let words = unfit_own(&program_of(&own_files(command, OWN_FOLDER, files)), files)?;
    Some(source.near_in(place, &Value::from(command.as_str()).to_string(), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, executable: bool, text: &str) -> File {
        File { path: path.to_owned(), executable, bytes: text.as_bytes().to_vec() }
    }

    fn hooks(text: &str, run: bool) -> Result<Map<String, Value>, String> {
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

    /// However its command is written, what is run is the resource's own, or nothing.
    #[test]
    fn a_script_is_never_the_repositorys_of_that_name() {
        let with = |command: &str, run| {
            let text = BARE.replace("\"${CLAUDE_PLUGIN_ROOT}/bin/run x\"", &Value::from(command).to_string());
            hooks(&text, run).map(|_| own_files(command, "/own", &[file("bin/run", run, "")]))
        };
        for command in ["./bin/run x", "\"./bin/run\" x", "'./bin/run'", "./bin/run\tx", "./bin/run;true"] {
            assert_eq!(program_of(&with(command, true).expect(command)), "/own/bin/run", "{command}");
            assert!(with(command, false).expect_err(command).contains("chmod +x it"), "{command}");
        }
        for (command, words) in [
            ("./bin/none", "there is no `bin/none` beside it"),
            ("\"./bin/my run\"", "there is no `bin/my` beside it"),
            ("./bin\"/run\"", "the CLI would run the repository's: write ${CLAUDE_PLUGIN_ROOT}/bin/run"),
        ] {
            let said = with(command, true).expect_err(command);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, words) in [
            ("{\"Stop\": 7}", "hooks.json:1:10: invalid type: integer `7`, expected a sequence"),
            (
                "{\"Stop\": [{\"hooks\": [{\"type\": \"command\"}]}]}",
                "hooks.json:1:31: a hook of the type `command`",
            ),
            (
                "{\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"true\"},\n {\"type\": \"command\"}]}]}",
                "hooks.json:2:11: a hook of the type `command`",
            ),
            (
                "{\"Stop\": [{\"matcher\": \"./x\", \"hooks\": [{\"type\": \"command\",\n \"command\": \"./x\"}]}]}",
                "hooks.json:2:13: there is no `x` beside it",
            ),
            ("[]", "hooks.json:1:1: invalid type: sequence, expected a map"),
        ] {
            let said = hooks(text, true).expect_err(text);
            assert!(said.contains(words), "{said}");
        }
    }
}
