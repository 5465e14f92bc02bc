//! MCP servers: `mcp.json` has one, or `{"mcpServers": {…}}`, as the CLI reads it.
//!
//! `${VAR}` is something that the owner binds in `mayfly.toml` beside it; `${VAR:-text}` needs no binding. A path of a
//! file of the resource begins with [`OWN_FOLDER`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Source;
use super::beside::{OWN_FOLDER, own_files, unfit_own};
use crate::id::{Name, ResourceId};
use crate::pack;
use crate::problem::Problems;
use crate::tool::{self, Download, Tool};
use crate::tree::{File, is_plain};

/// What of [`OWN_FOLDER`] looks like a variable.
const OWN_FOLDER_NAME: &str = "CLAUDE_PLUGIN_ROOT";

/// One server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// What its tools are called by.
    pub name: String,
    /// What the CLI is told of it, as it stands in the file.
    pub spec: Map<String, Value>,
    /// Where it runs.
    pub transport: Transport,
    /// The variables that its owner has to bind.
    pub variables: BTreeSet<String>,
    /// What it runs instead of a download, once its owner has locked it.
    pub tool: Option<Tool>,
}

impl Server {
    /// What it would download.
    pub fn download(&self) -> Option<Download<'_>> {
        match &self.transport {
            Transport::Stdio { command, args } => Download::of(command, args),
            Transport::Http { .. } => None,
        }
    }

    /// What it would download in a machine, where nothing is downloaded: it is to be locked first.
    pub fn unlocked(&self) -> Option<Download<'_>> {
        let download = self.download()?;
        let is_locked = self.tool.as_ref().is_some_and(|tool| tool.is_of(&download));
        (!is_locked).then_some(download)
    }
}

/// Where a server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// In the machine.
    Stdio {
        /// Its program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// Elsewhere.
    Http {
        /// Its address.
        url: String,
    },
}

impl Transport {
    /// The part of a server that no other process is told of: where what its owner binds may stand.
    pub fn private(&self) -> &'static str {
        match self {
            Self::Stdio { .. } => "env",
            Self::Http { .. } => "headers",
        }
    }
}

/// What is known of a server.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "type")]
    kind: Option<String>,
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "that it is a table of texts is what is checked")]
    env: BTreeMap<String, String>,
    url: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "that it is a table of texts is what is checked")]
    headers: BTreeMap<String, String>,
}

/// A file of several.
#[derive(Deserialize)]
struct Several<S> {
    #[serde(rename = "mcpServers")]
    servers: BTreeMap<String, S>,
}

pub(super) fn read(id: &ResourceId, files: &[File]) -> Result<Vec<Server>, Problems> {
    let tools = tools(id, files)?;
    let tool = |server: Server| Server { tool: tools.get(&server.name).cloned(), ..server };
    Ok(servers(id, files)?.into_iter().map(tool).collect())
}

/// What their owner has locked.
fn tools(id: &ResourceId, files: &[File]) -> Result<BTreeMap<String, Tool>, Problems> {
    if !files.iter().any(|file| file.path == tool::FILE) {
        return Ok(BTreeMap::new());
    }
    let source = Source::called(id, files, tool::FILE)?;
    let (tools, _): (BTreeMap<String, Tool>, _) = source.json()?;
    // It becomes the name of a folder of the host's, which a machine is shown.
    match tools.values().find(|tool| !pack::is_sha256(&tool.sha256) || !is_plain(&tool.path)) {
        None => Ok(tools),
        Some(tool) => {
            let place = if is_plain(&tool.path) { &tool.sha256 } else { &tool.path };
            let words =
                "is no tree that `mayfly library lock` has fetched: delete this file, and lock it again";
            Err(source.near(place, words).into())
        }
    }
}

fn servers(id: &ResourceId, files: &[File]) -> Result<Vec<Server>, Problems> {
    let source = Source::called(id, files, "mcp.json")?;
    let (_, whole): (Map<String, Value>, _) = source.json()?;
    if !whole.contains_key("mcpServers") {
        let (shape, spec): (Shape, _) = source.json()?;
        let place = 0..source.text.len();
        return Ok(vec![server((&source, place), files, id.name.to_string(), (shape, spec))?]);
    }
    let (Several { servers }, _): (Several<Shape>, _) = source.json()?;
    let places: BTreeMap<String, &RawValue> =
        serde_json::from_str(source.text).map(|Several { servers }| servers).unwrap_or_default();
    let spec = |name: &str| whole["mcpServers"][name].as_object().cloned().unwrap_or_default();
    let place = |name: &str| {
        let value = source.place(places[name]);
        // Its name stands right before it.
        let name = source.text[..value.start].rfind(&Value::from(name).to_string());
        name.unwrap_or(value.start)..value.end
    };
    let server = |(name, shape): (String, Shape)| {
        let (spec, place) = (spec(&name), place(&name));
        server((&source, place), files, name, (shape, spec))
    };
    servers.into_iter().map(server).collect()
}

fn server(
    (source, place): (&Source<'_>, Range<usize>),
    files: &[File],
    name: String,
    (shape, spec): (Shape, Map<String, Value>),
) -> Result<Server, Problems> {
    let near = |words: &str| source.near_in(&place, &Value::from(name.as_str()).to_string(), words);
    if name.parse::<Name>().is_err() || name.contains('.') {
        return Err(near("a server's name is 1 to 64 of A-Z a-z 0-9 _ -").into());
    }
    if name.contains("__") || name.ends_with('_') {
        let words = "two _ end a server's name in those of its tools: have no __ in it, and no _ at its end";
        return Err(near(words).into());
    }
    let transport = match (shape.kind.as_deref(), shape.command, shape.url) {
        (None | Some("stdio"), Some(command), None) => Transport::Stdio { command, args: shape.args },
        (Some("http" | "sse"), None, Some(url))
            if url.starts_with("https://") || url.starts_with("http://") =>
        {
            Transport::Http { url }
        }
        _ => {
            let words = format!(
                "the server `{name}` is neither {{\"command\": …}} nor {{\"type\": \"http\", \"url\": \"https://…\"}}"
            );
            return Err(near(&words).into());
        }
    };
    if let Transport::Stdio { command, args } = &transport
        && let Some(flag) = Download::unread(command, args)
    {
        let words = format!(
            "`{}` is no flag that is known here before what is to be fetched: write npx -y PACKAGE ARGUMENTS, or uvx \
             [--from PACKAGE] NAME ARGUMENTS",
            flag.escape_debug()
        );
        return Err(source.near_in(&place, flag, words).into());
    }
    if let Transport::Stdio { command, .. } = &transport
        && let Some(words) = unfit_own(&own_files(command, OWN_FOLDER, files), files)
    {
        return Err(source.near_in(&place, &Value::from(command.as_str()).to_string(), words).into());
    }
    let (mut others, private) = (spec.clone(), transport.private());
    let variables_of_private = others.remove(private).map(|value| variables(&value));
    if let Some(name) = variables(&Value::from(others)).into_iter().next() {
        let words =
            format!("`${{{name}}}` may stand in `{private}` alone: what else there is others can read");
        return Err(source.near_in(&place, &format!("${{{name}}}"), words).into());
    }
    let variables = variables_of_private.unwrap_or_default();
    Ok(Server { name, spec, transport, variables, tool: None })
}

/// The variables in a value's texts that have no text of their own instead.
fn variables(value: &Value) -> BTreeSet<String> {
    match value {
        Value::String(text) => {
            let opened = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
            let names =
                opened.map(|(name, _)| name).filter(|name| !name.contains(":-") && *name != OWN_FOLDER_NAME);
            names.map(str::to_owned).collect()
        }
        Value::Array(items) => items.iter().flat_map(variables).collect(),
        Value::Object(entries) => entries.values().flat_map(variables).collect(),
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Result<Vec<Server>, String> {
        let file = File { path: "mcp.json".to_owned(), executable: false, bytes: text.as_bytes().to_vec() };
        let id: ResourceId = "mcp/_global/github".parse().expect("an id");
        read(&id, &[file]).map_err(|problems| problems.to_string())
    }

    #[test]
    fn one_server_is_called_as_its_folder_and_several_as_they_say() {
        let one = servers(
            r#"{"command": "node", "args": ["${CLAUDE_PLUGIN_ROOT}/x.js"], "env": {"T": "${TOKEN}"}, "new": 1}"#,
        );
        let one = one.expect("a server").remove(0);
        assert_eq!(
            (one.name.as_str(), one.variables.iter().map(String::as_str).collect()),
            ("github", vec!["TOKEN"])
        );
        assert_eq!(one.spec["new"], 1);
        let two = servers(
            r#"{"mcpServers": {"b": {"type": "http", "url": "https://x/${A:-b}"}, "a": {"command": "c"}}}"#,
        );
        let names: Vec<_> =
            two.expect("servers").into_iter().map(|one| (one.name, one.variables.len())).collect();
        assert_eq!(names, [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    }

    /// Covers S06 and S46: what a resource of others names is no folder of the host's.
    #[test]
    fn a_tree_is_named_by_its_content_and_leads_nowhere_else() {
        let read_with = |sha256: &str, path: &str| {
            let tool = serde_json::json!({"github": {"package": "p", "resolved": "p@1", "sha256": sha256, "program": "node", "path": path}});
            let file = |path: &str, text: String| File {
                path: path.to_owned(),
                executable: false,
                bytes: text.into_bytes(),
            };
            let files = [
                file("mcp.json", r#"{"command": "npx", "args": ["p"]}"#.to_owned()),
                file(tool::FILE, tool.to_string()),
            ];
            read(&"mcp/_global/github".parse().expect("an id"), &files)
                .map_err(|problems| problems.to_string())
        };
        let good = "0123456789abcdef".repeat(4);
        assert!(read_with(&good, "bin/x.js").is_ok());
        for (sha256, path) in [
            ("/etc", "x"),
            ("../../key", "x"),
            ("", "x"),
            (&good.to_uppercase(), "x"),
            (&good, "../x"),
            (&good, "/x"),
        ] {
            let said = read_with(sha256, path).expect_err("refused");
            assert!(
                said.contains("mcp/_global/github/tools.json:1:") && said.contains("is no tree"),
                "{said}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, words) in [
            ("{}", "mcp.json:1:1: the server `github` is neither"),
            (
                "{\"mcpServers\": {\"a\": {\"command\": \"b\", \"args\": [\"./x\"]},\n \"b\": {}}}",
                "mcp.json:2:2: the server `b` is neither",
            ),
            (
                "{\"mcpServers\": {\"./x\": {\"command\": \"y\"}, \"b\": {\n\"command\": \"./x\"}}}",
                "mcp.json:1:17: a server's name is",
            ),
            (
                "{\"mcpServers\": {\"a\": {\"command\": \"y\", \"args\": [\"./x\"]}, \"b\": {\n\"command\": \"./x\"}}}",
                "mcp.json:2:12: there is no `x`",
            ),
            ("{\"mcpServers\": {\"a\": 7}}", "mcp.json:1:22: invalid type: integer `7`"),
            ("{\"mcpServers\":\n {\"a b\": {\"command\": \"c\"}}}", "mcp.json:2:3: a server's name is"),
            (
                "{\"command\": \"c\", \"args\": \"x\"}",
                "mcp.json:1:28: invalid type: string \"x\", expected a sequence",
            ),
            ("{\"type\": \"http\", \"url\": \"file:///x\"}", "is neither"),
            ("{\n\"command\": \"${CLAUDE_PLUGIN_ROOT}/run\"}", "mcp.json:2:12: there is no `run` beside it"),
            (
                "{\"command\": \"${CLAUDE_PLUGIN_ROOT}/mcp.json\"}",
                "mcp.json:1:13: `mcp.json` is to be run and cannot be: chmod +x it",
            ),
            ("{\"command\": \"./run\"}", "mcp.json:1:13: there is no `run` beside it"),
            (
                "{\"command\": \"./mcp.json\"}",
                "mcp.json:1:13: `mcp.json` is to be run and cannot be: chmod +x it",
            ),
            (
                "{\"mcpServers\": {\"db__x\": {\"command\": \"c\"}}}",
                "mcp.json:1:17: two _ end a server's name in those of its tools",
            ),
            ("{\"mcpServers\": {\"db_\": {\"command\": \"c\"}}}", "and no _ at its end"),
            (
                "{\"command\": \"c\", \"args\": [\"--token\", \"${T}\"]}",
                "mcp.json:1:39: `${T}` may stand in `env` alone",
            ),
            ("{\"type\": \"http\", \"url\": \"https://x/${T}\"}", "`${T}` may stand in `headers` alone"),
            (
                "{\"command\": \"npx\", \"args\": [\"--package=@acme/server\", \"server\"]}",
                "`--package=@acme/server` is no flag that is known here",
            ),
        ] {
            let said = servers(text).expect_err(text);
            assert!(said.contains(words), "{said}");
        }
    }
}
