//! What the worker learns from a line of `claude`: a pure reading, on a copy.
//!
//! Any process of the machine may have written any line, so nothing here decides how a task ends: a line can
//! only be noted, answered or told on. The first `init` is the exception, since no tool can run before the
//! model's first answer, which is withheld until that `init` has passed.
//!
//! What is not known is ignored: types, fields, lines that are no JSON. Bounds: [`LINE_BYTES_MAX`] a line,
//! [`NAMES_MAX`] names kept, [`WORDS_MAX`] characters of a text that is passed on.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use mayfly_library::{Expected, known};
use mayfly_wire::event::LimitKind;
use mayfly_wire::worker::{Report, WorkOrder};

use super::command::{ABSENT_TOOLS, PERMISSION_MODE};
use super::input;
use super::said::{
    ApiRetry, Block, Control, Head, Init, Meta, PermissionDenied, RateLimit, ResultLine, Spoken, Tasks,
    parse, words,
};
use crate::listen::Activity;

/// A longer line is not read here.
pub(crate) const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most names of tool calls, or of tasks, that are kept.
const NAMES_MAX: usize = 1024;
/// The most characters of a text that goes into a report.
pub(crate) const WORDS_MAX: usize = 500;
/// The status of an API that takes no more requests at once.
pub(crate) const TOO_MANY: u64 = 429;
/// The status of an API that has more to do than it can.
pub(crate) const OVERLOADED: u64 = 529;
/// The tools that change no file; of another nothing is known.
const READING_TOOLS: [&str; 9] =
    ["Read", "Glob", "Grep", "LS", "WebFetch", "WebSearch", "TodoWrite", "ToolSearch", "TaskOutput"];
/// What a permission request is answered with.
const DENIAL: &str = "Denied: nobody is there to allow it. Go on without it.";

/// What a line asks the worker to do.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "each is passed on at once, and kept nowhere")]
pub(crate) enum Finding {
    /// Tell the orchestrator.
    Report(Report),
    /// Write this to the standard input.
    Answer(Bytes),
    /// `claude` does not run as it was asked to; here is the difference.
    Mismatch(String),
}

/// The end of a turn, as `claude` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TurnResult {
    pub(crate) is_error: bool,
    pub(crate) terminal_reason: String,
    pub(crate) api_status: Option<u64>,
    pub(crate) usage_limit: bool,
    /// The answer did not fit, however often `claude` asked the model to go on.
    pub(crate) token_limit: bool,
    /// Its text or errors, shortened.
    pub(crate) words: String,
}

/// What `claude` was asked to run with.
#[derive(Debug)]
pub(crate) struct Asked {
    version: Option<String>,
    model: String,
    session_id: String,
    cwd: String,
    /// Whether there may be servers that are not the library's: those of a repository that is trusted.
    servers: bool,
    library: Expected,
}

impl Asked {
    pub(crate) fn new(order: &WorkOrder, cwd: &Path, library: &Expected) -> Self {
        Self {
            version: order.claude_version.clone(),
            model: order.model.clone(),
            session_id: order.session_id.clone(),
            cwd: cwd.to_string_lossy().into_owned(),
            servers: order.trust_repo,
            library: library.clone(),
        }
    }
}

/// Reads the lines of one run.
#[derive(Debug)]
pub(crate) struct Interpreter {
    asked: Asked,
    initialised: bool,
    /// A turn has begun and has had no result.
    turn_open: bool,
    last: Option<TurnResult>,
    resets_at: Option<i64>,
    /// The kinds of limits that were told: each is told once, however often it is met. An end makes another of it.
    limits: HashSet<(LimitKind, Option<i64>)>,
    /// Tool calls without a result, by id, with the tool's name.
    calls: HashMap<String, String>,
    /// Those, and of sub-agents, that change no file.
    reading: HashSet<String>,
    /// How many calls have ended that may have changed files.
    touched: u64,
    denied: HashSet<String>,
    background: HashSet<String>,
}

impl Interpreter {
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            asked,
            initialised: false,
            turn_open: false,
            last: None,
            resets_at: None,
            limits: HashSet::new(),
            calls: HashMap::new(),
            reading: HashSet::new(),
            touched: 0,
            denied: HashSet::new(),
            background: HashSet::new(),
        }
    }

    /// Reads one whole line.
    pub(crate) fn read(&mut self, line: &[u8]) -> Vec<Finding> {
        let Some(head) = parse::<Head>(line) else { return Vec::new() };
        match (head.kind.as_ref(), head.subtype.as_deref()) {
            ("system", Some("init")) => Some(self.init(parse(line))),
            ("system", Some("api_retry")) => parse(line).map(|retry: ApiRetry| self.retry(&retry)),
            ("system", Some("permission_denied")) => parse(line).map(|denied| self.permission_denied(denied)),
            ("system", Some("task_started" | "task_notification" | "background_tasks_changed")) => {
                parse(line).map(|tasks| self.tasks(head.subtype.as_deref(), tasks))
            }
            ("assistant", _) => parse(line).map(|spoken| self.assistant(&spoken)),
            ("user", _) => parse(line).map(|spoken| self.user(&spoken)),
            ("result", _) => parse(line).map(|result| self.result(&result)),
            ("rate_limit_event", _) => parse(line).map(|limit| self.limit(limit)),
            ("control_request", _) => parse(line).map(|request| self.control(request)),
            _ => None,
        }
        .unwrap_or_default()
    }

    /// Whether an `init` has passed.
    pub(crate) fn initialised(&self) -> bool {
        self.initialised
    }

    /// The last result, if there was one.
    pub(crate) fn last(&self) -> Option<&TurnResult> {
        self.last.as_ref()
    }

    /// When the usage limit ends that was named last, in seconds since 1970.
    pub(crate) fn resets_at(&self) -> Option<i64> {
        self.resets_at
    }

    /// Whether nothing more is to be said to `claude`: the turn has its result, and no task could wake it for
    /// another. Closing its input then does no harm even if the result is forged: it finishes its turn.
    pub(crate) fn is_answered(&self) -> bool {
        self.last.is_some() && !self.turn_open && self.background.is_empty()
    }

    /// Whether nothing is left that `claude` could be busy with, so that it ought to exit. With a tool call
    /// still open, a result proves nothing: the tool may have written it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_answered() && self.calls.is_empty()
    }

    /// What tools have done.
    pub(crate) fn activity(&self) -> Activity {
        Activity { ended: self.touched, open: !self.calls.is_empty() }
    }

    fn init(&mut self, init: Option<Init>) -> Vec<Finding> {
        self.turn_open = true;
        self.calls.clear();
        if std::mem::replace(&mut self.initialised, true) {
            return Vec::new();
        }
        let Some(init) = init else { return vec![Finding::Mismatch("its init cannot be read".to_owned())] };
        let differences = self.asked.differences(&init);
        if !differences.is_empty() {
            return vec![Finding::Mismatch(differences.join("; "))];
        }
        let (version, model) = (shorten(&init.claude_code_version), shorten(&init.model));
        let mut findings = vec![Finding::Report(Report::Ready { version, model })];
        let told = self.asked.absent_servers(&init).chain(self.asked.absent_tools(&init));
        findings.extend(told.map(|text| Finding::Report(Report::Warning { text })));
        findings
    }

    fn assistant(&mut self, spoken: &Spoken) -> Vec<Finding> {
        self.turn_open = true;
        let calls = spoken.message.blocks().into_iter().filter(|block| block.kind == "tool_use");
        let calls: Vec<_> = calls.filter_map(|block| Some((block.id?, block.name?))).collect();
        if self.reading.len() < NAMES_MAX {
            let reading = calls.iter().filter(|(_, tool)| READING_TOOLS.contains(&&**tool));
            self.reading.extend(reading.map(|(id, _)| id.clone()));
        }
        if spoken.parent_tool_use_id.is_none() && self.calls.len() < NAMES_MAX {
            self.calls.extend(calls);
        }
        Vec::new()
    }

    fn user(&mut self, spoken: &Spoken) -> Vec<Finding> {
        self.turn_open = true;
        let results = spoken.message.blocks().into_iter().filter(|block| block.kind == "tool_result");
        results.filter_map(|result| self.tool_result(&result, &spoken.tool_result_meta)).collect()
    }

    /// A call of a tool that is not there shows only in its result; so does a rule that denied one.
    fn tool_result(&mut self, result: &Block, meta: &[Meta]) -> Option<Finding> {
        let id = result.tool_use_id.clone()?;
        let called = self.calls.remove(&id);
        self.touched += u64::from(!self.reading.remove(&id));
        let words = result.content.as_deref().map(words).unwrap_or_default();
        let missing = words.split_once("No such tool available: ").map(|(_, rest)| rest);
        let rejected = meta.iter().any(|meta| meta.id == id && meta.rejects());
        if result.is_error != Some(true) || !(rejected || missing.is_some()) {
            return None;
        }
        let named = || missing.and_then(|rest| rest.split(['.', '<', ' ']).next()).map(str::to_owned);
        self.denied(id, called.or_else(named), &words)
    }

    fn permission_denied(&mut self, denied: PermissionDenied) -> Vec<Finding> {
        self.denied(denied.tool_use_id, Some(denied.tool_name), &denied.message).into_iter().collect()
    }

    /// One call is told on once, in however many lines its denial shows.
    fn denied(&mut self, id: String, tool: Option<String>, message: &str) -> Option<Finding> {
        if self.denied.len() >= NAMES_MAX {
            self.denied.clear();
        }
        let tool = shorten(&tool.unwrap_or_else(|| "unknown".to_owned()));
        let report = Report::Denied { tool, message: shorten(message) };
        self.denied.insert(id).then_some(Finding::Report(report))
    }

    fn control(&mut self, request: Control) -> Vec<Finding> {
        if request.request.subtype != "can_use_tool" {
            return vec![Finding::Answer(input::refuse(&request.request_id))];
        }
        let id = request.request.tool_use_id.unwrap_or_else(|| request.request_id.clone());
        let report = self.denied(id, request.request.tool_name, DENIAL);
        let answer = Finding::Answer(input::deny(&request.request_id, DENIAL));
        report.into_iter().chain([answer]).collect()
    }

    fn result(&mut self, result: &ResultLine) -> Vec<Finding> {
        self.turn_open = false;
        let said = result.result.as_deref().or(result.errors.as_deref()).map(words).unwrap_or_default();
        self.last = Some(TurnResult {
            is_error: result.is_error,
            terminal_reason: result.terminal_reason.clone().or(result.subtype.clone()).unwrap_or_default(),
            api_status: result.api_error_status,
            usage_limit: result.api_error.as_deref() == Some("usage_limit_reached"),
            token_limit: result.api_error.as_deref() == Some("max_output_tokens"),
            words: shorten(&said),
        });
        let cost = result.total_cost_usd.filter(|usd| usd.is_finite() && *usd >= 0.0);
        let cost = cost.map(|usd| Finding::Report(Report::Cost { usd }));
        cost.into_iter().chain(self.met(result.api_error_status.filter(|_| result.is_error), "")).collect()
    }

    fn retry(&mut self, retry: &ApiRetry) -> Vec<Finding> {
        self.met(retry.error_status, &retry.error).into_iter().collect()
    }

    /// What a subscription has used up is named; where nothing is, there were too many requests at once.
    fn limit(&mut self, limit: RateLimit) -> Vec<Finding> {
        let info = limit.rate_limit_info;
        if info.status != "rejected" {
            return Vec::new();
        }
        self.resets_at = info.resets_at.or(self.resets_at);
        let told = match info.limit {
            Some(limit) => self.tell(LimitKind::UsageLimit, &limit, info.resets_at),
            None => self.tell(LimitKind::RateLimit, "", info.resets_at),
        };
        told.into_iter().collect()
    }

    /// A status of the API that is a limit, with its name as far as it has one.
    fn met(&mut self, status: Option<u64>, name: &str) -> Option<Finding> {
        let used_up = self.limits.iter().any(|(kind, _)| *kind == LimitKind::UsageLimit);
        match status {
            Some(TOO_MANY) if !used_up => self.tell(LimitKind::RateLimit, name, None),
            Some(OVERLOADED) => self.tell(LimitKind::Overload, name, None),
            _ => None,
        }
    }

    fn tell(&mut self, kind: LimitKind, name: &str, resets_at: Option<i64>) -> Option<Finding> {
        let limit = shorten(if name.is_empty() { kind.name() } else { name });
        let new = self.limits.len() < NAMES_MAX && self.limits.insert((kind, resets_at));
        new.then_some(Finding::Report(Report::Limit { kind, limit, resets_at }))
    }

    fn tasks(&mut self, subtype: Option<&str>, line: Tasks) -> Vec<Finding> {
        match (subtype, line.task_id, line.all) {
            (Some("background_tasks_changed"), _, Some(tasks)) => {
                self.background = tasks.into_iter().map(|task| task.task_id).take(NAMES_MAX).collect();
            }
            (Some("task_started"), Some(id), _)
                if line.is_backgrounded && self.background.len() < NAMES_MAX =>
            {
                self.background.insert(id);
            }
            (Some("task_notification"), Some(id), _) => {
                self.background.remove(&id);
            }
            _ => {}
        }
        Vec::new()
    }
}

impl Asked {
    /// What differs between what was asked for and what the CLI says, in words.
    fn differences(&self, init: &Init) -> Vec<String> {
        let mut differences = Vec::new();
        let mut expect = |what: &str, good: bool, asked: &str, said: &str| {
            if !good {
                differences.push(format!(
                    "{what} is `{}`, asked for was `{}`",
                    shorten(said),
                    shorten(asked)
                ));
            }
        };
        let version = self.version.as_deref().unwrap_or(&init.claude_code_version);
        expect("version", init.claude_code_version == version, version, &init.claude_code_version);
        expect("model", is_model(&self.model, &init.model), &self.model, &init.model);
        expect("session", init.session_id == self.session_id, &self.session_id, &init.session_id);
        let mode = init.permission_mode.as_str();
        expect("permission mode", mode == PERMISSION_MODE, PERMISSION_MODE, mode);
        expect("folder", init.cwd == self.cwd, &self.cwd, &init.cwd);
        for tool in ABSENT_TOOLS {
            expect(
                "list of tools",
                !init.tools.iter().any(|t| t == tool),
                &format!("without {tool}"),
                "with it",
            );
        }
        differences.extend(self.differences_of_library(init));
        differences
    }

    /// The same, for what the library says.
    fn differences_of_library(&self, init: &Init) -> Vec<String> {
        let Expected { tools, denied, agents, agent, skills, servers, unknown: _ } = &self.library;
        let mut differences = Vec::new();
        let mut differs = |what: String| differences.push(shorten(&what));
        for tool in &init.tools {
            if denied.iter().any(|rule| is_of(tool, rule)) {
                differs(format!("the tool {tool} is there, and is denied"));
            } else if tools.as_ref().is_some_and(|tools| !tools.iter().any(|rule| is_of(tool, rule))) {
                differs(format!("the tool {tool} is there, and the agent's list does not have it"));
            }
        }
        let agents = agents.iter().chain(agent.iter().filter(|agent| !agents.contains(agent)));
        for name in agents.filter(|name| !init.agents.contains(name)) {
            differs(format!("the agent {name} is not there"));
        }
        for (name, _) in skills.iter().filter(|(name, is_listed)| **is_listed && !init.skills.contains(name))
        {
            differs(format!("the skill {name} is not there"));
        }
        for server in
            init.mcp_servers.iter().filter(|server| !servers.contains_key(&server.name) && !self.servers)
        {
            differs(format!("the MCP server {} is there, and was not asked for", server.name));
        }
        for name in servers.iter().filter(|(_, required)| **required).map(|(name, _)| name) {
            match self.state_of(init, name) {
                State::Good => {}
                State::Mute => differs(format!("the MCP server {name}, which is required, {NO_TOOL}")),
                State::Bad(status) => {
                    differs(format!("the MCP server {name}, which is required, is {status}"));
                }
            }
        }
        differences
    }

    /// How a server stands. The CLI calls one connected when its list of tools is there, or when that has taken as long as
    /// `MCP_TIMEOUT` lets it.
    fn state_of(&self, init: &Init, server: &str) -> State {
        let found = init.mcp_servers.iter().find(|said| said.name == server);
        let status = found.map_or_else(|| "not there".to_owned(), |said| shorten(&said.status));
        let has_tool = || init.tools.iter().any(|tool| is_of(tool, &format!("mcp__{server}")));
        match status == CONNECTED {
            false => State::Bad(status),
            true if self.library.has_use_for(server) && !has_tool() => State::Mute,
            true => State::Good,
        }
    }

    /// What is told of the servers that need not be there, and are not.
    fn absent_servers(&self, init: &Init) -> impl Iterator<Item = String> {
        let servers = self.library.servers.iter().filter(|(_, required)| !**required);
        servers.filter_map(|(name, _)| match self.state_of(init, name) {
            State::Good => None,
            State::Mute => Some(format!("the MCP server {name} {NO_TOOL}")),
            State::Bad(status) => {
                Some(format!("the MCP server {name} is {status}: the agent goes on without it"))
            }
        })
    }

    /// What is told of names that are no tool's.
    fn absent_tools(&self, init: &Init) -> impl Iterator<Item = String> {
        let is_there = |rule: &&String| {
            let name = rule.split('(').next().unwrap_or_default();
            init.tools.iter().any(|tool| is_of(tool, name))
        };
        let unknown = self.library.unknown.iter().filter(move |rule| !is_there(rule));
        unknown.map(|rule| shorten(&known::counts_for_nothing(rule)))
    }
}

/// What the CLI says of a server that is there.
const CONNECTED: &str = "connected";
/// What is told of one that is there and is of no use.
const NO_TOOL: &str = "is connected and has named no tool in time";

/// How a server stands when the agent begins.
enum State {
    Good,
    /// It is there, and has not said which tools it has.
    Mute,
    /// It is not, in a word.
    Bad(String),
}

/// Whether a rule is about a tool: by its name, or by that of its MCP server. The CLI's first message calls a tool `Task`
/// that is `Agent` everywhere else.
fn is_of(tool: &str, rule: &str) -> bool {
    let of_server =
        || rule.starts_with("mcp__") && tool.strip_prefix(rule).is_some_and(|rest| rest.starts_with("__"));
    let named = |name: &str| if rule.contains('*') { is_like(name, rule) } else { name == rule };
    named(tool) || (tool == "Task" && named("Agent")) || of_server()
}

/// Whether a name is like a pattern, in which `*` stands for any characters.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether the CLI's model is what was asked for: the same name, or one that an alias stands for.
fn is_model(asked: &str, said: &str) -> bool {
    let (asked, said) = (asked.to_ascii_lowercase(), said.to_ascii_lowercase());
    let plain = |name: &str| name.trim_end_matches("[1m]").to_owned();
    let alias = ["default", "best", "opusplan"].contains(&plain(&asked).as_str());
    alias || said == asked || plain(&said).contains(&plain(&asked))
}

/// At most [`WORDS_MAX`] characters of a text.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(WORDS_MAX) {
        None => text.to_owned(),
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}

#[cfg(test)]
mod tests;
