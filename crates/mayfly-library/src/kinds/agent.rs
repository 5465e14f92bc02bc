//! Agents: who they are, what they may use, and what they are told.
//!
//! ```text
//! agent.json   {"name", "model", "system_prompt", "tools", "max_tokens"}, and what else the CLI knows of agents
//! agent.md     the same in the CLI's own settings above the prompt, or with plain lines `allowedTools:`, `deniedTools:`
//! ```
//!
//! A list of tools that is empty allows none. What the agent is denied that a task is run by, no sub-agent of that task may
//! do; its list of allowed tools is its own, so that one that has `Agent` may have others do what they may.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Source, other_name};
use crate::id::ResourceId;
use crate::matter::{self, Setting, Unclear, meant};
use crate::problem::{Problem, Problems};
use crate::tree::File;
use crate::yaml;

/// The longest description that is made of a prompt, in characters.
const DESCRIPTION_CHARS_MAX: usize = 200;

/// What allows tools, as the CLI and others write it.
pub(crate) const ALLOWING: [&str; 2] = ["tools", "allowedTools"];
/// What denies them.
pub(crate) const DENYING: [&str; 2] = ["disallowedTools", "deniedTools"];
/// What is read here, and not passed on as it stands.
const READ: [&str; 9] = [
    "name",
    "description",
    "model",
    "system_prompt",
    "tools",
    "allowedTools",
    "disallowedTools",
    "deniedTools",
    "max_tokens",
];

/// An agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// What it is called.
    pub name: String,
    /// What it is for; without one, the first sentence of its prompt.
    pub description: String,
    /// The model, passed on as it is; none is that of the task.
    pub model: Option<String>,
    /// What it is told.
    pub prompt: String,
    /// The tools that it may use; none is all.
    pub tools: Option<Vec<String>>,
    /// Those that it may not use, whatever is allowed.
    pub denied: Vec<String>,
    /// The most tokens of one answer.
    pub max_tokens: Option<u32>,
    /// What else its settings have, which the CLI may know.
    pub rest: Map<String, Value>,
}

/// What is known of `agent.json`.
#[derive(Deserialize)]
struct Shape {
    name: String,
    description: Option<String>,
    model: Option<String>,
    system_prompt: String,
    tools: Option<Words>,
    #[serde(rename = "allowedTools")]
    allowed: Option<Words>,
    #[serde(rename = "disallowedTools")]
    disallowed: Option<Words>,
    #[serde(rename = "deniedTools")]
    denied: Option<Words>,
    max_tokens: Option<u32>,
}

/// A list of words, or one text with commas between them.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Words(Vec<String>);

impl TryFrom<Value> for Words {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        matter::words(&value).map(Self).ok_or("a list of tools is an array of their names")
    }
}

impl Agent {
    /// The servers that it names; each is a resource, or the repository's.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        let named = self.rest.get("mcpServers").and_then(Value::as_array);
        named.into_iter().flatten().filter_map(Value::as_str)
    }

    /// As the CLI is told of it, which takes a whole tool away where a part of it is denied here. For the one that the
    /// task is run by, the session's settings deny no more than that part.
    pub fn for_cli(&self, is_main: bool) -> Value {
        let mut told = self.rest.clone();
        let mut tell =
            |key: &str, value: Option<Value>| drop(value.map(|value| told.insert(key.to_owned(), value)));
        tell("description", Some(self.description.clone().into()));
        tell("prompt", Some(self.prompt.clone().into()));
        tell("model", self.model.clone().map(Value::from));
        tell("tools", self.tools.clone().map(Value::from));
        let denied = self.denied.iter().filter(|tool| !is_main || !tool.contains('('));
        let denied: Vec<String> = denied.cloned().collect();
        tell("disallowedTools", (!denied.is_empty()).then(|| denied.into()));
        told.into()
    }
}

pub(super) fn read(id: &ResourceId, files: &[File]) -> Result<Agent, Problems> {
    let named = |name: &str| files.iter().find(|file| file.path == name);
    let agent = match (named("agent.json"), named("agent.md")) {
        (Some(file), None) => from_json(id, &Source::of(id, file)?)?,
        (None, Some(file)) => from_markdown(id, &Source::of(id, file)?)?,
        (Some(_), Some(_)) => {
            return Err(Problem::new(id.to_string(), "has agent.json and agent.md: keep one of them").into());
        }
        (None, None) => return Err(Problem::new(id.to_string(), "has no agent.json and no agent.md").into()),
    };
    Ok(agent)
}

fn from_json(id: &ResourceId, source: &Source<'_>) -> Result<Agent, Problems> {
    let (shape, whole): (Shape, _) = source.json()?;
    if shape.name != id.name.as_str() {
        return Err(source.near("\"name\"", other_name(id, &shape.name)).into());
    }
    let tools = only_one(source, shape.tools, shape.allowed, ALLOWING)?.map(|words| words.0);
    let denied = only_one(source, shape.disallowed, shape.denied, DENYING)?.map(|words| words.0);
    let agent = Agent {
        description: shape.description.unwrap_or_else(|| first_sentence(&shape.system_prompt)),
        name: shape.name,
        model: shape.model,
        prompt: shape.system_prompt,
        tools,
        denied: denied.unwrap_or_default(),
        max_tokens: shape.max_tokens,
        rest: rest_of(&whole),
    };
    agent.checked(source)
}

/// What the CLI may know besides.
fn rest_of(whole: &Map<String, Value>) -> Map<String, Value> {
    let rest = whole.iter().filter(|(key, _)| !READ.contains(&key.as_str()));
    rest.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn from_markdown(id: &ResourceId, source: &Source<'_>) -> Result<Agent, Problems> {
    let unclear = |Unclear { line, words }| Problems::from(Problem::at(&source.file, line, 1, words));
    matter::check_head(source.text).map_err(unclear)?;
    let (mut settings, body) = matter::split(source.text);
    source.named(&settings, id)?;
    let first = source.text[..source.text.len() - body.len()].matches('\n').count() + 1;
    let (plain, prompt) = matter::take_plain(body, first).map_err(unclear)?;
    settings.extend(plain);
    let prompt = prompt.trim_start().to_owned();
    let head = Head { source, settings: &settings };
    let agent = Agent {
        name: id.name.to_string(),
        description: head.text("description")?.unwrap_or_else(|| first_sentence(&prompt)),
        model: head.text("model")?,
        tools: head.words(ALLOWING)?,
        denied: head.words(DENYING)?.unwrap_or_default(),
        max_tokens: head.tokens()?,
        rest: head.rest()?,
        prompt,
    };
    agent.checked(source)
}

/// The settings above a prompt.
struct Head<'a> {
    source: &'a Source<'a>,
    settings: &'a [Setting],
}

impl Head<'_> {
    fn find(&self, key: &str) -> Result<Option<&Setting>, Problems> {
        let mut found = self.settings.iter().filter(|setting| setting.key == key);
        match (found.next(), found.next()) {
            (_, Some(second)) => {
                Err(self.wrong(second, format!("`{}` is there twice: keep one", key.escape_debug())))
            }
            (first, None) => Ok(first),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, Problems> {
        let Some(setting) = self.find(key)? else { return Ok(None) };
        let text = setting.value.as_ref().and_then(Value::as_str).map(str::to_owned);
        text.map(Some).ok_or_else(|| self.wrong(setting, format!("`{key}` must be a text")))
    }

    fn words(&self, keys: [&'static str; 2]) -> Result<Option<Vec<String>>, Problems> {
        let [own, other] = [self.find(keys[0])?, self.find(keys[1])?];
        let Some(setting) = only_one(self.source, own, other, keys)? else { return Ok(None) };
        let words = setting.value.as_ref().and_then(matter::words);
        words
            .map(Some)
            .ok_or_else(|| self.wrong(setting, format!("`{}` must be a list of tools", setting.key)))
    }

    fn tokens(&self) -> Result<Option<u32>, Problems> {
        let Some(setting) = self.find("max_tokens")? else { return Ok(None) };
        let number =
            setting.value.as_ref().and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.wrong(setting, "`max_tokens` must be a whole number".to_owned()))
    }

    fn rest(&self) -> Result<Map<String, Value>, Problems> {
        let rest = self.settings.iter().filter(|setting| !READ.contains(&setting.key.as_str()));
        let known = |setting: &Setting| {
            // Of two, one would be lost.
            self.find(&setting.key)?;
            let value = yaml::value_of_entry(&setting.lines, &setting.key).or_else(|unread| {
                let words = format!("`{}` cannot be read: {}", setting.key.escape_debug(), unread.words);
                let problem =
                    || Problem::at(&self.source.file, setting.line + unread.line - 1, unread.column, words);
                // What is no YAML may still be words, as some write them.
                setting.plain().map(Value::from).ok_or_else(|| Problems::from(problem()))
            })?;
            Ok((setting.key.clone(), value))
        };
        rest.map(known).collect()
    }

    fn wrong(&self, setting: &Setting, words: String) -> Problems {
        Problem::at(&self.source.file, setting.line, 1, words).into()
    }
}

impl Agent {
    fn checked(self, source: &Source<'_>) -> Result<Self, Problems> {
        if let Some((key, bound)) = self.rest.keys().find_map(|key| Some((key, meant(key)?))) {
            let words = format!("`{}` bounds nothing: write `{bound}`", key.escape_debug());
            return Err(source.near(key, words).into());
        }
        let servers = self.rest.get("mcpServers");
        if servers.is_some_and(|named| !named.as_array().is_some_and(|all| all.iter().all(Value::is_string)))
        {
            let words = "`mcpServers` is a list of names here, and nothing would check what describes a server: make it an \
                         `mcp` resource, and name that";
            return Err(source.near("mcpServers", words).into());
        }
        if self.prompt.trim().is_empty() {
            return Err(Problem::new(&source.file, "has no prompt: say what the agent is to do").into());
        }
        if self.max_tokens == Some(0) {
            return Err(source.near("max_tokens", "`max_tokens` must be more than 0").into());
        }
        if let Some(part) = self.tools.iter().flatten().find(|tool| tool.contains('(')) {
            let words = format!(
                "`{}` is a part of a tool, and nothing would hold the agent to it: allow the whole tool here, and \
                 name what it must not do among the denied ones",
                part.escape_debug()
            );
            return Err(source.near_entry(&ALLOWING, part, words).into());
        }
        let mut tools = self.tools.iter().flatten().chain(&self.denied);
        match tools.find(|tool| !is_tool(tool)) {
            Some(tool) => {
                let words = format!(
                    "`{}` is not the name of a tool, such as Read or Bash(git log:*)",
                    tool.escape_debug()
                );
                Err(source.near_entry(&[ALLOWING, DENYING].concat(), tool, words).into())
            }
            None => Ok(self),
        }
    }
}

/// Whether this could be a tool's name, or one with a pattern in parentheses.
pub(crate) fn is_tool(text: &str) -> bool {
    let (name, pattern) = text.split_once('(').map_or((text, None), |(name, pattern)| (name, Some(pattern)));
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let name_is_good = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
    name_is_good && pattern.is_none_or(|pattern| pattern.ends_with(')')) && !text.contains(['\n', '\r'])
}

/// The one of two ways to say the same.
fn only_one<T>(
    source: &Source<'_>,
    own: Option<T>,
    other: Option<T>,
    keys: [&str; 2],
) -> Result<Option<T>, Problems> {
    if own.is_some() && other.is_some() {
        let words = format!("`{}` and `{}` say the same: keep one of them", keys[0], keys[1]);
        return Err(source.near(keys[1], words).into());
    }
    Ok(own.or(other))
}

/// The first sentence of a prompt, on one line.
fn first_sentence(prompt: &str) -> String {
    let lines = prompt.lines().map(|line| line.trim_start_matches('#').trim());
    let text: Vec<&str> =
        lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).collect();
    let text = text.join(" ");
    let end = text.find(". ").map_or(text.len(), |at| at + 1);
    text[..end].chars().take(DESCRIPTION_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent(name: &str, text: &str) -> Result<Agent, String> {
        let file = File { path: name.to_owned(), executable: false, bytes: text.as_bytes().to_vec() };
        let id: ResourceId = "agent/_global/reviewer".parse().expect("an id");
        read(&id, &[file]).map_err(|problems| problems.to_string())
    }

    #[test]
    fn each_way_to_write_an_agent_reads_as_the_same() {
        let json = r#"{"name": "reviewer", "model": "haiku", "system_prompt": "Review. Be brief.", "tools": ["Read", "Grep"],
            "max_tokens": 900, "maxTurns": 3}"#;
        let native = "---\nname: reviewer\nmodel: haiku\ntools: Read, Grep\nmax_tokens: 900\nmaxTurns: 3\n---\nReview. Be brief.";
        let plain = "---\nmodel: haiku\nmax_tokens: 900\nmaxTurns: 3\n---\nallowedTools: [Read, Grep]\nReview. Be brief.";
        let read = agent("agent.json", json).expect("an agent");
        assert_eq!((read.description.as_str(), read.max_tokens), ("Review.", Some(900)));
        for text in [native, plain] {
            assert_eq!(agent("agent.md", text), Ok(read.clone()), "{text}");
        }
        insta::assert_snapshot!(read.for_cli(false), @r#"{"description":"Review.","maxTurns":3,"model":"haiku","prompt":"Review. Be brief.","tools":["Read","Grep"]}"#);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (file, text, words) in [
            (
                "agent.json",
                "{\n// x\n}",
                "agent/_global/reviewer/agent.json:2:1: key must be a string: JSON has no comments",
            ),
            (
                "agent.json",
                "{\"name\": 7}",
                "agent/_global/reviewer/agent.json:1:10: invalid type: integer `7`, expected a string",
            ),
            (
                "agent.json",
                "{\"name\": \"x\", \"system_prompt\": \"y\"}",
                "agent.json:1:2: its name is `x`, and its folder is called",
            ),
            ("agent.json", "{\"name\": \"reviewer\", \"system_prompt\": \" \"}", "agent.json: has no prompt"),
            ("agent.md", "---\nname: x\n---\ny", "agent.md:2:1: its name is `x`"),
            (
                "agent.md",
                "---\ntools: Read\nallowedTools: Grep\n---\ny",
                "agent.md:3:1: `tools` and `allowedTools` say the same",
            ),
            ("agent.md", "---\ntools: {a: b}\n---\ny", "agent.md:2:1: `tools` must be a list of tools"),
            (
                "agent.md",
                "---\ntools: Read, rm -rf\n---\ny",
                "agent.md:2:14: `rm -rf` is not the name of a tool",
            ),
            (
                "agent.md",
                "---\nmax_tokens: many\n---\ny",
                "agent.md:2:1: `max_tokens` must be a whole number",
            ),
            ("agent.md", "---\nmodel: a\nmodel: b\n---\ny", "agent.md:3:1: `model` is there twice"),
            (
                "agent.md",
                "---\nmodel: a\nallowed-tools: Read\n---\ny",
                "agent.md:3:1: `allowed-tools` bounds nothing: write `allowedTools`",
            ),
            (
                "agent.md",
                "---\ndisallowed_tools: Bash\n---\ny",
                "agent.md:2:1: `disallowed_tools` bounds nothing: write `disallowedTools`",
            ),
            ("agent.md", "---\nTools: Read\n---\ny", "agent.md:2:1: `Tools` bounds nothing: write `tools`"),
            (
                "agent.json",
                "{\"name\": \"reviewer\", \"system_prompt\": \"x\", \"maxTokens\": 9}",
                "agent.json:1:45: `maxTokens` bounds nothing: write `max_tokens`",
            ),
            (
                "agent.md",
                "---\nmcpServers: [{x: {command: npx}}]\n---\ny",
                "agent.md:2:1: `mcpServers` is a list of names here",
            ),
            (
                "agent.md",
                "---\nmcpServers:\n  x: {command: npx}\n---\ny",
                "agent.md:2:1: `mcpServers` is a list of names here",
            ),
            (
                "agent.md",
                "---\nnewer: 1\nhooks: {}\nnewer: 2\n---\ny",
                "agent.md:4:1: `newer` is there twice",
            ),
            (
                "agent.md",
                "---\nhooks: {}\rtools: Read\n---\ny",
                "agent.md:2:11: `hooks` cannot be read: is another entry behind it",
            ),
            ("agent.md", "---\nnewer: 'it': 'is'\n---\ny", "agent.md:2:"),
            ("agent.md", "---\nnewer: use it: when\n  and: where\n---\ny", "agent.md:2:"),
            ("other.md", "x", "has no agent.json and no agent.md"),
            (
                "agent.md",
                "---\ndescription: Has Bash(ls).\ntools: [Read,\n  Bash(ls)]\n---\ny",
                "agent.md:4:3: `Bash(ls)` is a part of a tool",
            ),
            (
                "agent.json",
                "{\"name\": \"reviewer\", \"system_prompt\": \"rm -rf\", \"deniedTools\":\n [\"rm -rf\"]}",
                "agent.json:2:4: `rm -rf` is not the name of a tool",
            ),
        ] {
            let said = agent(file, text).expect_err(text);
            assert!(said.contains(words), "{said}");
        }
    }

    /// Covers S05 for the library: else the agent would have all tools, and nobody would say so.
    #[test]
    fn a_bound_that_would_be_passed_over_is_refused_with_its_place() {
        for (text, words) in [
            ("deniedTools:\n- Bash\nReview.", "agent.md:1:1: is one line in a text"),
            ("---\nmodel: m\n---\n\nallowedTools: |\n  Read\nx", "agent.md:5:1: is one line in a text"),
            ("deniedTools: Write,\n  Bash\nReview.", "agent.md:1:1: is one line in a text"),
            ("\n---\ntools: Read\nReview.", "agent.md:2:1: begins settings that nothing ends"),
            ("---\n# x\n  tools: Read\n---\nx", "agent.md:3:1: is no setting: write `key: value`"),
            ("---\n{tools: Read}\n---\nx", "agent.md:2:1: is no setting"),
            (
                " allowedTools: Read\nx",
                "agent.md:1:1: `allowedTools` bounds nothing in a text: write `allowedTools` among settings",
            ),
            ("# Reviewer\nAllowedTools: Read\nx", "agent.md:2:1: `AllowedTools` bounds nothing"),
            ("allowedTools : Read\nx", "agent.md:1:1: `allowedTools` bounds nothing"),
            ("tools: Read\nReview.", "agent.md:1:1: `tools` bounds nothing in a text"),
            ("Review.\n\ndenied_tools: Bash\n", "agent.md:3:1: `denied_tools` bounds nothing"),
            ("Review.\ndisallowedTools: Bash\n", "agent.md:2:1: `disallowedTools` bounds nothing"),
        ] {
            let said = agent("agent.md", text).expect_err(text);
            assert!(said.contains(words), "{said}");
        }
    }

    /// What the CLI knows of agents besides goes on as it stands, however deep.
    #[test]
    fn what_is_not_known_of_an_agent_survives() {
        let text = "---\nmaxTurns: 3\nnewer: Use it when: always\nhooks:\n  PreToolUse:\n    - matcher: Bash\n      hooks:\n        - {type: command, command: ./x}\nmcpServers:\n  - db\n---\nx";
        let read = agent("agent.md", text).expect("an agent").for_cli(false);
        let hook = serde_json::json!({"matcher": "Bash", "hooks": [{"type": "command", "command": "./x"}]});
        assert_eq!(read["hooks"], serde_json::json!({"PreToolUse": [hook]}));
        assert_eq!(read["mcpServers"], serde_json::json!(["db"]));
        assert_eq!((&read["maxTurns"], &read["newer"]), (&3.into(), &"Use it when: always".into()));
        let said = agent("agent.md", "---\nmodel: m\nhooks:\n  a: 1\n  a: 2\n---\nx").expect_err("twice");
        assert!(said.ends_with("agent.md:5:3: `hooks` cannot be read: is there twice"), "{said}");
    }

    proptest! {
        /// Whatever stands before it in its entry: comments, empty lines, and what YAML takes for the end of a line and
        /// others do not.
        #[test]
        fn what_is_wrong_is_found_on_its_line(between in proptest::collection::vec(0..5_usize, 0..8)) {
            let lines = between.iter().enumerate().map(|(at, kind)| match kind {
                0 => "# about \u{e9}\n".to_owned(),
                1 => "  # about it\n".to_owned(),
                2 => "\n".to_owned(),
                3 => format!("  a{at}: 1 # \u{e9}\r  b{at}: 2\r\n"),
                _ => format!("  c{at}: [1,\n    2]\n"),
            });
            let before = format!("---\nmodel: m\nhooks:\n{}", lines.collect::<String>());
            let line = before.matches('\n').count() + 1;
            let said = agent("agent.md", &format!("{before}  wrong: *none\n---\nx")).expect_err("wrong");
            let place = format!("agent.md:{line}:10: `hooks` cannot be read: ");
            prop_assert!(said.contains(&place), "{}: {}", said, before);
        }
    }

    #[test]
    fn a_prompt_may_speak_of_tools() {
        for text in [
            "Review.\nTools: use as few as you can.\n- allowedTools: what an agent may use\n",
            "An agent says allowedTools: in its text.\n```\n allowedTools: Read\n```\n---\nIt is held to that.",
        ] {
            assert_eq!(
                agent("agent.md", text).map(|agent| (agent.tools, agent.prompt)),
                Ok((None, text.to_owned()))
            );
        }
    }

    #[test]
    fn an_empty_list_of_tools_is_not_a_missing_one() {
        assert_eq!(agent("agent.md", "allowedTools: []\ny").map(|agent| agent.tools), Ok(Some(vec![])));
        assert_eq!(agent("agent.md", "---\ntools: []\n---\ny").map(|agent| agent.tools), Ok(Some(vec![])));
        assert_eq!(agent("agent.md", "---\nmodel: m\n---\ny").map(|agent| agent.tools), Ok(None));
    }
}
