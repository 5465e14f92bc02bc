//! What mayfly itself is told beside a resource: `mayfly.toml` in its folder.
//!
//! ```toml
//! allow = ["api.example.com"]            # agent, mcp, settings: where the machines of its tasks may go
//! credential = "work"                    # agent, settings: the credential for the model, by its name in the pool
//! required = false                       # mcp: whether a server that fails ends the task
//! secrets = { TOKEN = "example" }        # mcp: what ${TOKEN} is, by its name in the pool
//! allow-secret-in-machine = true         # mcp: without it, no secret goes into a machine
//! ```

use std::collections::BTreeMap;

use mayfly_core::host::Rule;
use serde::Deserialize;

use super::Source;
use crate::id::{Kind, ResourceId};
use crate::problem::{Problem, Problems};
use crate::tree::File;

/// The file's name.
pub const FILE: &str = "mayfly.toml";

/// What is said there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Own {
    /// Where the machines of its tasks may go, as `HOST[:PORT]`.
    pub allow: Vec<String>,
    /// The credential for the model.
    pub credential: Option<String>,
    /// Whether a server that fails ends the task.
    pub required: Option<bool>,
    /// Variables of a server, and the names in the pool of what they are.
    pub secrets: BTreeMap<String, String>,
    /// Whether these may be in a machine.
    pub allow_secret_in_machine: bool,
}

pub(crate) fn read(id: &ResourceId, files: &[File]) -> Result<Own, Problems> {
    let Some(file) = files.iter().find(|file| file.path == FILE) else { return Ok(Own::default()) };
    let source = Source::of(id, file)?;
    let own: Own =
        toml::from_str(source.text).map_err(|error| Problem::toml(&source.file, source.text, &error))?;
    let is = |kinds: &[Kind]| kinds.contains(&id.kind);
    let misplaced = [
        ("allow", !own.allow.is_empty() && !is(&[Kind::Agent, Kind::Mcp, Kind::Settings])),
        ("credential", own.credential.is_some() && !is(&[Kind::Agent, Kind::Settings])),
        ("required", own.required.is_some() && !is(&[Kind::Mcp])),
        ("secrets", !own.secrets.is_empty() && !is(&[Kind::Mcp])),
        ("allow-secret-in-machine", own.allow_secret_in_machine && !is(&[Kind::Mcp])),
    ];
    let misplaced = misplaced.into_iter().filter(|(_, wrong)| *wrong);
    let misplaced = misplaced
        .map(|(key, _)| source.near(key, format!("`{key}` says nothing beside {} resource", a(id.kind))));
    let rules = own.allow.iter().filter_map(|rule| {
        let error = rule.parse::<Rule>().err()?;
        Some(source.near(rule, format!("`{}`: {error}", rule.escape_debug())))
    });
    let problems: Vec<Problem> = misplaced.chain(rules).collect();
    if problems.is_empty() { Ok(own) } else { Err(Problems(problems)) }
}

fn a(kind: Kind) -> String {
    format!("{} {kind}", if kind == Kind::Agent { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(id: &str, text: &str) -> Result<Own, String> {
        let file = File { path: FILE.to_owned(), executable: false, bytes: text.as_bytes().to_vec() };
        read(&id.parse().expect("an id"), &[file]).map_err(|problems| problems.to_string())
    }

    #[test]
    fn what_is_said_beside_a_server_reads() {
        let text = "required = false\nallow = [\"x.example\"]\nallow-secret-in-machine = true\n[secrets]\nT = \"gh\"\n";
        let own = own("mcp/_global/x", text).expect("its words");
        assert!(own.allow_secret_in_machine && own.required == Some(false) && own.secrets["T"] == "gh");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (id, text, words) in [
            ("mcp/a/b", "\nallows = []", "mcp/a/b/mayfly.toml:2:1: unknown field `allows`"),
            ("mcp/a/b", "allow = [\"10.0.0.1\"]", "mayfly.toml:1:11: `10.0.0.1`: an address is none"),
            (
                "agent/a/b",
                "required = true",
                "mayfly.toml:1:1: `required` says nothing beside an agent resource",
            ),
        ] {
            let said = own(id, text).expect_err(text);
            assert!(said.contains(words), "{said}");
        }
    }
}
