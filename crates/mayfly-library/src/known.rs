//! The tools that the CLI has, of the version that mayfly fetches: a name that is none of them bounds nothing.
//!
//! A newer CLI may have more. So what is not here is told of, and refused nowhere.

use std::collections::BTreeSet;

use crate::kinds::agent::{ALLOWING, DENYING};
use crate::kinds::{Source, What, settings};
use crate::problem::Problem;
use crate::resource::Resource;

/// All of them, also those that it has in some circumstances alone.
pub const TOOLS: [&str; 48] = [
    "Agent",
    "AskUserQuestion",
    "Bash",
    "Brief",
    "Config",
    "CronCreate",
    "CronDelete",
    "CronList",
    "Edit",
    "EnterPlanMode",
    "EnterWorktree",
    "ExitPlanMode",
    "ExitWorktree",
    "Glob",
    "Grep",
    "LSP",
    "ListAgents",
    "ListMcpResourcesTool",
    "Monitor",
    "MultiEdit",
    "NotebookEdit",
    "PowerShell",
    "PushNotification",
    "REPL",
    "Read",
    "ReadMcpResourceDirTool",
    "ReadMcpResourceTool",
    "RemoteTrigger",
    "ReportFindings",
    "ScheduleWakeup",
    "SendMessage",
    "SendUserMessage",
    "Skill",
    "StructuredOutput",
    "SubscribePR",
    "Task",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskOutput",
    "TaskStop",
    "TaskUpdate",
    "TodoWrite",
    "ToolSearch",
    "WebFetch",
    "WebSearch",
    "Workflow",
    "Write",
];

/// How like a name must be to a tool's for that one to have been meant; 1 is the same.
const LIKENESS_MIN: f64 = 0.85;

/// A shorter name is like too many.
const LIKE_BYTES_MIN: usize = 3;

/// Whether a rule such as `Bash(git log:*)` is about a tool that is known, or about one of a server in `servers`.
fn is_known(rule: &str, servers: &BTreeSet<&str>) -> bool {
    let name = rule.split('(').next().unwrap_or_default();
    match name.strip_prefix("mcp__") {
        Some(rest) => servers.contains(rest.split("__").next().unwrap_or_default()) || rest.contains('*'),
        None => name == "*" || TOOLS.contains(&name),
    }
}

/// What is said of a name that is no tool's.
pub fn counts_for_nothing(rule: &str) -> String {
    let meant = nearest(rule).map(|tool| format!("; {tool} is one")).unwrap_or_default();
    format!("`{}` is no tool that is known here, and counts for nothing{meant}", rule.escape_debug())
}

/// The tool that was probably meant.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.split('(').next().unwrap_or_default().to_ascii_lowercase();
    let likeness = |tool: &&str| strsim::jaro_winkler(&name, &tool.to_ascii_lowercase());
    let best = TOOLS.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (name.len() >= LIKE_BYTES_MIN && likeness(&best) >= LIKENESS_MIN).then_some(best)
}

/// Names in the lists of agents and settings that are no tool's: nor of one of the servers that they have together.
pub(crate) fn unknown<'a>(
    resources: impl Iterator<Item = &'a Resource> + Clone,
) -> Vec<(&'a Resource, &'a str)> {
    let servers = resources.clone().flat_map(servers_of).collect();
    let named =
        resources.flat_map(|resource| named_in(resource).into_iter().map(move |rule| (resource, rule)));
    named.filter(|(_, rule)| !is_known(rule, &servers)).collect()
}

/// What is kept of resources that are looked at one after the other: the servers that they have, and the names in their
/// lists that may be no server's or no tool's, each with what is said of it then.
#[derive(Debug, Default)]
pub(crate) struct Names {
    servers: BTreeSet<String>,
    doubtful: Vec<(String, Problem)>,
    /// The servers that agents name.
    named: Vec<(String, Problem)>,
}

impl Names {
    pub(crate) fn add(&mut self, resource: &Resource) {
        let mut of_agent = BTreeSet::new();
        if let What::Agent(agent) = &resource.what {
            of_agent.extend(agent.servers());
        }
        self.servers.extend(resource.servers().iter().map(|server| server.name.clone()));
        let said =
            |name: &&str| ((*name).to_owned(), problem(resource, &["mcpServers"], name, is_nobodys(name)));
        self.named.extend(of_agent.iter().map(said));
        let doubtful = named_in(resource).into_iter().filter(|rule| !is_known(rule, &of_agent));
        let keys = [&ALLOWING[..], &DENYING, &["permissions"]].concat();
        let said = |rule: &str| (rule.to_owned(), problem(resource, &keys, rule, counts_for_nothing(rule)));
        self.doubtful.extend(doubtful.map(said));
    }

    /// The names that are no server's, and those that are no tool's, nor of one of the servers that there are.
    pub(crate) fn problems(self) -> Vec<Problem> {
        let Self { servers, doubtful, named } = self;
        let servers: BTreeSet<&str> = servers.iter().map(String::as_str).collect();
        let doubtful = doubtful.into_iter().filter(|(rule, _)| !is_known(rule, &servers));
        let named = named.into_iter().filter(|(name, _)| !servers.contains(&**name));
        doubtful.chain(named).map(|(_, problem)| problem).collect()
    }
}

/// What is said of a server that an agent names and no resource has.
fn is_nobodys(name: &str) -> String {
    format!(
        "`{}` is a server that the library does not have: a task by this agent ends, unless its repository has one and is \
         trusted",
        name.escape_debug()
    )
}

/// The servers that a resource brings.
fn servers_of(resource: &Resource) -> Vec<&str> {
    match &resource.what {
        What::Mcp(servers) => servers.iter().map(|server| server.name.as_str()).collect(),
        What::Agent(agent) => agent.servers().collect(),
        _ => Vec::new(),
    }
}

/// The tools that a resource allows or denies.
fn named_in(resource: &Resource) -> Vec<&str> {
    match &resource.what {
        What::Agent(agent) => agent.tools.iter().flatten().chain(&agent.denied).map(String::as_str).collect(),
        What::Settings(settings) => settings::rules(settings).collect(),
        _ => Vec::new(),
    }
}

fn problem(resource: &Resource, keys: &[&str], rule: &str, words: String) -> Problem {
    let sources = resource.files.iter().filter_map(|file| Source::of(&resource.id, file).ok());
    let mut sources = sources.filter(|source| source.text.contains(rule));
    match sources.next() {
        Some(source) => source.near_entry(keys, rule, words),
        None => Problem::new(resource.id.to_string(), words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_tool_or_one_is_near() {
        let servers = BTreeSet::from(["db"]);
        for rule in ["Bash", "Bash(git log:*)", "Task", "mcp__db", "mcp__db__query", "*", "mcp__*"] {
            assert!(is_known(rule, &servers), "{rule}");
        }
        for (rule, meant) in [
            ("bash", Some("Bash")),
            ("Bsah", Some("Bash")),
            ("Raed", Some("Read")),
            ("WebFech", Some("WebFetch")),
            ("Writes", Some("Write")),
            ("mcp__gone__x", None),
            ("LS", None),
            ("Everything", None),
        ] {
            assert!(!is_known(rule, &servers), "{rule}");
            assert_eq!(nearest(rule), meant, "{rule}");
        }
    }
}
