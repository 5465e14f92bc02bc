//! What the CLI is given of a resolution: files of its own folder, and flags.
//!
//! ```text
//! skill      skills/{name}/…                      found there by the CLI
//! rules      rules/library/{name}/…               the same
//! agent      library/agents.json, for `--agents`, which stands before a repository's; the main one for `--agent`
//! mcp        one configuration for `--mcp-config`; files of a server in library/mcp/{name}/…
//! hooks      in the settings; scripts in library/hooks/{name}/…
//! settings   one object for `--settings`, which stands before a repository's
//! ```
//!
//! Settings are merged as the CLI merges its own files: of what is said twice the later counts, tables are joined, and
//! lists go on. What denies a tool therefore stays, whoever allows it. Where there are hooks, no other settings can switch
//! them off.
//!
//! What is [`Expected`] is compared with what the CLI says of itself before the model's first answer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::id::Kind;
use crate::kinds::What;
use crate::kinds::agent::Agent;
use crate::kinds::beside::own_files;
use crate::kinds::mcp::Server;
use crate::kinds::{own, settings};
use crate::known;
use crate::resolve::Resolution;
use crate::resource::Resource;
use crate::tree::File;

/// Where files of hooks and servers, and the agents, are in the CLI's folder.
const FOLDER: &str = "library";
/// The agents, below [`FOLDER`].
const AGENTS: &str = "agents.json";

/// What servers are given of their owner's secrets: by server, by variable.
pub type Secrets = BTreeMap<String, BTreeMap<String, String>>;

/// What the CLI is given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compiled {
    /// Files of its own folder, by path.
    pub files: Vec<File>,
    /// The file for `--agents`, below its folder.
    pub agents: Option<String>,
    /// The agent for `--agent`.
    pub agent: Option<String>,
    /// The model of that agent, for a task that names none.
    pub model: Option<String>,
    /// The most tokens of an answer to that agent.
    pub max_tokens: Option<u32>,
    /// The object for `--settings`.
    pub settings: Map<String, Value>,
    /// The servers for `--mcp-config`.
    pub servers: Map<String, Value>,
    /// Servers of which their owner has not said whether they are required: they are to the agent that names a tool of theirs.
    pub if_named: BTreeSet<String>,
    /// What it must say of itself.
    pub expected: Expected,
}

/// What the CLI must say of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// All the tools that there may be; none is any.
    pub tools: Option<Vec<String>>,
    /// Tools that there must not be.
    pub denied: Vec<String>,
    /// The library's agents, which there must be.
    pub agents: Vec<String>,
    /// The agent to be run by, the library's or the repository's, which there must be too.
    pub agent: Option<String>,
    /// The library's skills, before which no other of their names may stand; and whether each must be listed.
    pub skills: BTreeMap<String, bool>,
    /// The servers that there must be and no others; and whether each must be connected.
    pub servers: BTreeMap<String, bool>,
    /// What is allowed or denied by a name that is no tool's, as far as is known here.
    pub unknown: BTreeSet<String>,
}

impl Expected {
    /// Whether the session may call what this server has: the agent's list has something of it, and it is not denied whole.
    pub fn has_use_for(&self, server: &str) -> bool {
        let (whole, tools) = (format!("mcp__{server}"), format!("mcp__{server}__"));
        let is_some = |rule: &String| match rule.split_once('*') {
            Some((head, _)) => head.starts_with(&tools) || tools.starts_with(head),
            None => *rule == whole || rule.starts_with(&tools),
        };
        let is_all = |rule: &String| match rule.strip_suffix('*') {
            Some(head) => tools.starts_with(head),
            None => *rule == whole,
        };
        let listed = self.tools.as_ref().is_none_or(|rules| rules.iter().any(is_some));
        listed && !self.denied.iter().any(is_all)
    }
}

/// Compiles for a machine where the CLI's own folder is `config`, a whole path.
pub fn compile(resolution: &Resolution, config: &str, secrets: &Secrets) -> Compiled {
    let mut compiled =
        Compiled { agent: resolution.agent.as_ref().map(ToString::to_string), ..Compiled::default() };
    for resource in resolution.of(Kind::Skill) {
        compiled.place(resource, &format!("skills/{}", resource.id.name));
        let is_listed = matches!(resource.what, What::Skill { is_listed: true, .. });
        compiled.expected.skills.insert(resource.id.name.to_string(), is_listed);
    }
    for resource in resolution.of(Kind::Rules) {
        compiled.place(resource, &format!("rules/{FOLDER}/{}", resource.id.name));
    }
    for kind in [Kind::Settings, Kind::Hooks, Kind::Mcp] {
        for resource in resolution.of(kind) {
            compiled.take(resource, config, secrets);
        }
    }
    compiled.take_agents(resolution);
    if resolution.resources.iter().any(|(resource, _)| has_hooks(resource)) {
        // Else a repository that is trusted could, and so could the agent, whose settings the CLI reads as they change.
        compiled.settings.entry("disableAllHooks").or_insert(false.into());
    }
    compiled.expected.denied = denied_whole(&compiled.settings);
    let resources = resolution.resources.iter().map(|(resource, _)| resource);
    compiled.expected.unknown =
        known::unknown(resources).into_iter().map(|(_, rule)| rule.to_owned()).collect();
    compiled.files.sort();
    compiled
}

impl Compiled {
    /// Puts a resource's files below a folder.
    fn place(&mut self, resource: &Resource, folder: &str) {
        let files = resource.files.iter().filter(|file| file.path != own::FILE);
        self.files.extend(files.map(|file| File { path: format!("{folder}/{}", file.path), ..file.clone() }));
    }

    /// Takes in what goes into flags, with the files that it names.
    fn take(&mut self, resource: &Resource, config: &str, secrets: &Secrets) {
        let folder = folder_of(resource);
        let at = format!("{config}/{folder}");
        match &resource.what {
            What::Settings(settings) => merge(&mut self.settings, settings.clone()),
            What::Hooks(_) => {
                self.place(resource, &folder);
                merge(
                    &mut self.settings,
                    Map::from_iter([("hooks".to_owned(), hooks_for(resource, config))]),
                );
            }
            What::Mcp(servers) => {
                self.place(resource, &folder);
                for server in servers {
                    self.servers.insert(
                        server.name.clone(),
                        told(server, (resource, &at), secrets.get(&server.name)),
                    );
                    let required = resource.own.required.unwrap_or(false);
                    self.expected.servers.insert(server.name.clone(), required);
                    if resource.own.required.is_none() {
                        self.if_named.insert(server.name.clone());
                    }
                }
            }
            What::Skill { .. } | What::Rules | What::Agent(_) => {}
        }
    }

    /// Holds the session to what bounds the agent that it is run by, wherever that agent is from. The servers whose tools it
    /// names must be there, unless their owner has said that they need not.
    pub fn hold_to(&mut self, tools: Option<Vec<String>>, denied: &[String]) {
        for server in &self.if_named {
            let prefix = format!("mcp__{server}");
            let is_of = |tool: &String| {
                tool.strip_prefix(&prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("__"))
            };
            if tools.iter().flatten().any(is_of) {
                self.expected.servers.insert(server.clone(), true);
            }
        }
        self.expected.tools = tools;
        // For the whole session: else a sub-agent could do what it may not do itself.
        let deny = json!({"permissions": {"deny": denied}});
        merge(&mut self.settings, deny.as_object().cloned().unwrap_or_default());
        self.expected.denied = denied_whole(&self.settings);
    }

    fn take_agents(&mut self, resolution: &Resolution) {
        let agents = resolution.of(Kind::Agent).filter_map(|resource| match &resource.what {
            What::Agent(agent) => Some((resource.id.name.to_string(), agent)),
            _ => None,
        });
        let agents: BTreeMap<String, &Box<Agent>> = agents.collect();
        let main = self.agent.as_ref().and_then(|name| agents.get(name));
        if let Some(main) = main {
            self.model = main.model.clone().filter(|model| model != "inherit");
            self.max_tokens = main.max_tokens;
            self.hold_to(main.tools.clone(), &main.denied);
            self.require_servers_of(main);
        }
        self.expected.agents = agents.keys().cloned().collect();
        // Where nobody has it, the CLI would go on without it.
        self.expected.agent.clone_from(&self.agent);
        if !agents.is_empty() {
            let is_main = |name: &String| self.agent.as_ref() == Some(name);
            let told = agents.into_iter().map(|(name, agent)| {
                let told = agent.for_cli(is_main(&name));
                (name, told)
            });
            let told: Map<String, Value> = told.collect();
            let path = format!("{FOLDER}/{AGENTS}");
            self.files.push(File {
                path: path.clone(),
                executable: false,
                bytes: json!(told).to_string().into_bytes(),
            });
            self.agents = Some(path);
        }
    }

    /// What the chosen agent names must be there, unless its owner has said that it need not; what the library does not
    /// have, the repository must.
    fn require_servers_of(&mut self, main: &Agent) {
        let (servers, if_named) = (&self.servers, &self.if_named);
        let named = main.servers().filter(|name| if_named.contains(*name) || !servers.contains_key(*name));
        self.expected.servers.extend(named.map(|name| (name.to_owned(), true)));
    }
}

/// Whether the CLI would run something of it at its events.
fn has_hooks(resource: &Resource) -> bool {
    match &resource.what {
        What::Hooks(_) => true,
        What::Settings(settings) => settings.contains_key("hooks"),
        What::Agent(agent) => agent.rest.contains_key("hooks"),
        What::Skill { has_hooks, .. } => *has_hooks,
        What::Mcp(_) | What::Rules => false,
    }
}

/// Where a resource's own files are, in the CLI's folder.
fn folder_of(resource: &Resource) -> String {
    format!("{FOLDER}/{}/{}", resource.id.kind, resource.id.name)
}

/// The hooks of a resource as the CLI is told of them, by event.
pub(crate) fn hooks_for(resource: &Resource, config: &str) -> Value {
    let What::Hooks(hooks) = &resource.what else { return Value::Null };
    let at = format!("{config}/{}", folder_of(resource));
    put(&Value::from(hooks.clone()), &|text| own_files(text, &at, &resource.files))
}

/// A server as the CLI is told of it.
fn told(
    server: &Server,
    (resource, folder): (&Resource, &str),
    secrets: Option<&BTreeMap<String, String>>,
) -> Value {
    let mut spec = server.spec.clone();
    if let (Some(tool), Some(download)) = (&server.tool, server.download()) {
        spec.insert("command".to_owned(), tool.program.clone().into());
        let arguments = [tool.inside()].into_iter().chain(download.arguments.iter().cloned());
        spec.insert("args".to_owned(), arguments.collect());
        if let Some((name, value)) = tool.variable() {
            lead(&mut spec, name, value);
        }
    }
    for value in spec.values_mut() {
        *value = put(value, &|text| own_files(text, folder, &resource.files));
    }
    // Nowhere else, also where a variable has a text to stand there instead: every process can read arguments.
    if let Some(private) = spec.get_mut(server.transport.private()) {
        *private = put(private, &|text| {
            let secrets = secrets.into_iter().flatten();
            secrets.fold(text.to_owned(), |text, (name, secret)| bound(&text, name, secret))
        });
    }
    spec.into()
}

/// Puts a path into a server's variable, before what its owner has there.
fn lead(spec: &mut Map<String, Value>, name: &str, path: String) {
    let env = spec.entry("env").or_insert_with(|| json!({}));
    let path = match env[name].as_str() {
        Some(own) => format!("{path}:{own}"),
        None => path,
    };
    env[name] = path.into();
}

/// A text with a secret where its variable is, with or without a text to stand there instead.
fn bound(text: &str, name: &str, secret: &str) -> String {
    let mut parts = text.split("${");
    let mut bound = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('}') {
            Some((variable, rest)) if variable.split(":-").next() == Some(name) => {
                bound.extend([secret, rest]);
            }
            _ => bound.extend(["${", part]),
        }
    }
    bound
}

/// A value with each text in it put anew.
fn put(value: &Value, anew: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => anew(text).into(),
        Value::Array(items) => items.iter().map(|item| put(item, anew)).collect(),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), put(value, anew)));
            Value::Object(entries.collect())
        }
        other => other.clone(),
    }
}

/// Merges `later` into settings: tables are joined, lists go on, and of the rest the later counts.
fn merge(settings: &mut Map<String, Value>, later: Map<String, Value>) {
    for (key, value) in later {
        match (settings.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(value)) => merge(known, value),
            (Some(Value::Array(known)), Value::Array(value)) => {
                let new: Vec<Value> = value.into_iter().filter(|item| !known.contains(item)).collect();
                known.extend(new);
            }
            (_, value) => drop(settings.insert(key, value)),
        }
    }
}

/// The tools that settings deny as a whole.
fn denied_whole(settings: &Map<String, Value>) -> Vec<String> {
    let whole = settings::rules_of(settings, "deny").map(|rule| rule.strip_suffix("(*)").unwrap_or(rule));
    whole.filter(|rule| !rule.contains('(')).map(str::to_owned).collect()
}
