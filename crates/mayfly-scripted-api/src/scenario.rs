//! The scenarios: for each, what the model answers at each step.
//!
//! Pure. A scenario that calls tools ends with a text once they were called; how the calls went is not looked
//! at. The table that the binary's help prints, [`SCENARIOS`], is here too.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::demo;
use crate::problem::Problem;
use crate::reply::{Block, Ending, Rhythm, Turn};

/// The longest pause that a script can ask for.
const PAUSE_MS_MAX: u64 = 600_000;
/// The largest text or tool output that a script can ask for, in millions of bytes.
const MEGABYTES_MAX: usize = 64;
/// The most deltas that `slow` sends.
const CHUNKS_MAX: usize = 10_000;
/// When a usage limit ends by default: the first second of 2100.
const RESETS_AT: u64 = 4_102_444_800;

/// A line of the help: what a scenario is called, what it takes, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScenarioHelp {
    /// Its name in a directive.
    pub name: &'static str,
    /// Its keys, each with its default.
    pub keys: &'static str,
    /// What the model does.
    pub does: &'static str,
}

macro_rules! help {
    ($($name:literal [$keys:literal] $does:literal),* $(,)?) => {
        &[$(ScenarioHelp { name: $name, keys: $keys, does: $does }),*]
    };
}

/// Every scenario there is.
pub const SCENARIOS: &[ScenarioHelp] = help![
    "text" ["text=…"] "says a text",
    "write" ["path=out.txt content=…"] "calls Write, then says so",
    "bash" ["command=…"] "calls Bash, then says so",
    "bash-fail" ["code=3"] "calls Bash with a command that exits with that code",
    "bash-big" ["megabytes=3"] "calls Bash with a command that prints that much on one line",
    "two-tools" [""] "calls Bash and Write in one message",
    "tool" ["name=… input={}"] "calls any tool, known or not, such as name=AskUserQuestion",
    "mcp" ["tool=mcp__SERVER__TOOL input={}"] "calls a tool of an MCP server",
    "skill" ["name=… args=…"] "calls a skill",
    "agent" ["prompt=… type=general-purpose"] "calls a sub-agent; its prompt may hold a directive of its own",
    "loop" [""] "calls Bash again and again and never ends",
    "thinking" ["thinking=… text=…"] "thinks, then says a text",
    "slow" ["chunks=10 pause_ms=20"] "says a text in that many pieces, with a pause before each",
    "hold" ["name=hold text=…"] "answers nothing, not even headers, until the test releases that name",
    "hang" [""] "sends the headers, then nothing",
    "cut-stream" [""] "breaks the connection in the middle of a stream; whole when not streamed",
    "stream-error" [""] "sends an error event in the middle of a stream; status 529 when not streamed",
    "status" ["code=529 message=… retry_after=SECONDS"] "answers with that status, 400 to 599",
    "usage-limit" ["resets_at=UNIX_SECONDS"] "answers 429 with the headers of a used-up subscription",
    "max-tokens" [""] "says a text that stops at the token limit",
    "refusal" [""] "stops as a refusal",
    "empty" [""] "answers with no content",
    "big-text" ["megabytes=2"] "says one line of that length",
    "steps" ["list=[STEP, …]"] "does each step in turn: {thinking, text, tools: [{name, input}], pause_ms, hold}",
    "demo-fix" [""] "finds and fixes the bug of the demo repository",
    "demo-test" [""] "adds checks to it",
    "demo-docs" [""] "writes its missing documentation",
    "demo-refactor" [""] "takes a repetition out of it",
    "demo-review" [""] "reviews it and changes nothing",
    "demo-agent" [""] "looks for mistakes in it and tries to write them down",
];

/// What a directive asks for. Keys that are not a scenario's own are refused.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Scenario {
    Text { text: Option<String> },
    Write { path: Option<String>, content: Option<String> },
    Bash { command: String },
    BashFail { code: Option<u8> },
    BashBig { megabytes: Option<usize> },
    TwoTools {},
    Tool { name: String, input: Option<Map<String, Value>> },
    Mcp { tool: String, input: Option<Map<String, Value>> },
    Skill { name: String, args: Option<String> },
    Agent { prompt: Option<String>, r#type: Option<String> },
    Loop {},
    Thinking { thinking: Option<String>, text: Option<String> },
    Slow { chunks: Option<usize>, pause_ms: Option<u64> },
    Hold { name: Option<String>, text: Option<String> },
    Hang {},
    CutStream {},
    StreamError {},
    Status { code: Option<u16>, message: Option<String>, retry_after: Option<u32> },
    UsageLimit { resets_at: Option<u64> },
    MaxTokens {},
    Refusal {},
    Empty {},
    BigText { megabytes: Option<usize> },
    Steps { list: Vec<Step> },
    DemoFix {},
    DemoTest {},
    DemoDocs {},
    DemoRefactor {},
    DemoReview {},
    DemoAgent {},
}

/// One answer of the scenario `steps`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Step {
    thinking: Option<String>,
    text: Option<String>,
    tools: Vec<Call>,
    pause_ms: u64,
    hold: Option<String>,
}

/// A tool call of a [`Step`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    #[serde(default)]
    input: Map<String, Value>,
}

impl Scenario {
    pub(crate) fn named(name: &str, arguments: &Map<String, Value>) -> Result<Self, Problem> {
        serde_json::from_value(json!({ name: arguments }))
            .map_err(|error| Problem::invalid(format!("script directive: `{name}`: {error}")))
    }

    /// The answer at a step.
    pub(crate) fn turn(&self, step: usize, cwd: Option<&str>) -> Result<Turn, Problem> {
        let mut turn = match self.calls() {
            Some((calls, _)) if step == 0 => Turn::of(calls),
            Some((_, said)) => says(said),
            None => self.without_calls(step)?,
        };
        for block in &mut turn.blocks {
            if let Block::Tool { input, .. } = block {
                place(input, cwd);
            }
        }
        Ok(turn)
    }

    /// For the scenarios that call tools once: the calls, and what is said after them.
    fn calls(&self) -> Option<(Vec<Block>, &'static str)> {
        Some(match self {
            Self::Write { path, content } => {
                let path = path.as_deref().unwrap_or("out.txt");
                (
                    vec![write(path, content.as_deref().unwrap_or("Written by the script.\n"))],
                    "The file is written.",
                )
            }
            Self::Bash { command } => (vec![bash(command)], "The command has run."),
            Self::BashFail { code } => {
                let command = format!("echo 'failing as scripted' >&2; exit {}", code.unwrap_or(3));
                (vec![bash(&command)], "The command has failed.")
            }
            Self::TwoTools {} => {
                let calls = vec![bash("echo first"), write("out.txt", "second\n")];
                (calls, "Both tools have run.")
            }
            Self::Tool { name, input } | Self::Mcp { tool: name, input } => {
                (vec![call(name, Value::Object(input.clone().unwrap_or_default()))], "The tool has answered.")
            }
            Self::Skill { name, args } => {
                let args = args.as_deref().unwrap_or_default();
                (vec![call("Skill", json!({"skill": name, "args": args}))], "The skill is used.")
            }
            Self::Agent { prompt, r#type } => {
                let prompt =
                    prompt.as_deref().unwrap_or("Say hello. [script: text text=\"Hello from below.\"]");
                let kind = r#type.as_deref().unwrap_or("general-purpose");
                let input =
                    json!({"description": "A part of the work", "prompt": prompt, "subagent_type": kind});
                (vec![call("Agent", input)], "The sub-agent has reported.")
            }
            _ => return None,
        })
    }

    fn without_calls(&self, step: usize) -> Result<Turn, Problem> {
        Ok(match self {
            Self::Text { text } => says(text.as_deref().unwrap_or("Hello from the script.")),
            Self::BashBig { megabytes } if step == 0 => {
                let bytes = bytes(megabytes.unwrap_or(3))?;
                Turn::of(vec![bash(&format!("head -c {bytes} /dev/zero | tr '\\0' x"))])
            }
            Self::BashBig { .. } => says("The output was big."),
            Self::Loop {} => Turn::of(vec![bash(&format!("echo round {}", step + 1))]),
            Self::Thinking { thinking, text } => Turn::of(vec![
                Block::Thinking(thinking.clone().unwrap_or_else(|| "What is to be said? A greeting.".into())),
                Block::Text(text.clone().unwrap_or_else(|| "Thought about it.".into())),
            ]),
            Self::Slow { chunks, pause_ms } => slow(chunks.unwrap_or(10), pause_ms.unwrap_or(20))?,
            Self::Hold { name, text } => Turn {
                hold: Some(name.clone().unwrap_or_else(|| "hold".into())),
                ..says(text.as_deref().unwrap_or("Released."))
            },
            Self::Hang {} => ending(Ending::Hung),
            Self::CutStream {} => ending(Ending::Cut),
            Self::StreamError {} => ending(Ending::Failed),
            Self::Status { code, message, retry_after } => {
                return Err(status(code.unwrap_or(529), message.as_deref(), *retry_after));
            }
            Self::UsageLimit { resets_at } => return Err(usage_limit(resets_at.unwrap_or(RESETS_AT))),
            Self::MaxTokens {} => Turn { stop: "max_tokens", ..says("This text stops in the mid") },
            Self::Refusal {} => Turn { stop: "refusal", ..says("I will not go on with this.") },
            Self::Empty {} => Turn::of(Vec::new()),
            Self::BigText { megabytes } => says(&"x".repeat(bytes(megabytes.unwrap_or(2))?)),
            Self::Steps { list } => {
                list.get(step).map_or_else(|| Ok(says("The script is over.")), Step::turn)?
            }
            _ => self.demo(step),
        })
    }

    fn demo(&self, step: usize) -> Turn {
        let script = match self {
            Self::DemoFix {} => demo::scripts::fix(),
            Self::DemoTest {} => demo::scripts::test(),
            Self::DemoDocs {} => demo::scripts::docs(),
            Self::DemoRefactor {} => demo::scripts::refactor(),
            Self::DemoAgent {} => demo::scripts::agent(),
            _ => demo::scripts::review(),
        };
        script.into_iter().nth(step).unwrap_or_else(|| says("The job is done."))
    }
}

impl Step {
    fn turn(&self) -> Result<Turn, Problem> {
        let thinking = self.thinking.iter().cloned().map(Block::Thinking);
        let text = self.text.iter().cloned().map(Block::Text);
        let tools = self.tools.iter().map(|tool| call(&tool.name, Value::Object(tool.input.clone())));
        let turn = Turn::of(thinking.chain(text).chain(tools).collect());
        let rhythm = Rhythm { first: pause(self.pause_ms)?, ..Rhythm::PLAIN };
        Ok(Turn { hold: self.hold.clone(), rhythm, ..turn })
    }
}

pub(crate) fn says(text: &str) -> Turn {
    Turn::of(vec![Block::Text(text.into())])
}

pub(crate) fn call(name: &str, input: Value) -> Block {
    Block::Tool { name: name.into(), input }
}

fn bash(command: &str) -> Block {
    call("Bash", json!({"command": command, "description": "Run a scripted command"}))
}

/// Writes a file in the working directory, unless its path is absolute.
fn write(path: &str, content: &str) -> Block {
    let path = if path.starts_with(['/', '{']) { path.to_owned() } else { format!("{{cwd}}/{path}") };
    call("Write", json!({"file_path": path, "content": content}))
}

fn ending(ending: Ending) -> Turn {
    Turn { ending, ..says("This answer is whole when it is not streamed.") }
}

fn slow(chunks: usize, pause_ms: u64) -> Result<Turn, Problem> {
    if chunks > CHUNKS_MAX {
        return Err(Problem::invalid(format!("script directive: at most {CHUNKS_MAX} chunks")));
    }
    let word = "slowly ";
    let rhythm = Rhythm { first: Duration::ZERO, gap: pause(pause_ms)?, piece_chars: word.len() };
    Ok(Turn { rhythm, ..says(&word.repeat(chunks)) })
}

fn pause(ms: u64) -> Result<Duration, Problem> {
    if ms > PAUSE_MS_MAX {
        return Err(Problem::invalid(format!("script directive: a pause of at most {PAUSE_MS_MAX} ms")));
    }
    Ok(Duration::from_millis(ms))
}

fn bytes(megabytes: usize) -> Result<usize, Problem> {
    if megabytes > MEGABYTES_MAX {
        return Err(Problem::invalid(format!("script directive: at most {MEGABYTES_MAX} megabytes")));
    }
    Ok(megabytes * 1_000_000)
}

fn status(code: u16, message: Option<&str>, retry_after: Option<u32>) -> Problem {
    let status = StatusCode::from_u16(code).ok().filter(|_| (400..600).contains(&code));
    let Some(status) = status else {
        return Problem::invalid(format!("script directive: {code} is no status of an error"));
    };
    let mut problem = Problem::new(status, message.unwrap_or("as the script says"));
    let retry_after = retry_after.map(|seconds| (http::header::RETRY_AFTER, seconds.to_string()));
    problem.headers.extend(retry_after);
    problem
}

/// What a subscription answers whose five hours are used up.
fn usage_limit(resets_at: u64) -> Problem {
    let unified = |name, value: &str| {
        let name = format!("anthropic-ratelimit-unified-{name}");
        (HeaderName::try_from(name).expect("the name is lower-case letters"), value.to_owned())
    };
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "this account has used up its five hours");
    problem.headers = vec![
        unified("status", "rejected"),
        unified("representative-claim", "five_hour"),
        unified("reset", &resets_at.to_string()),
    ];
    problem
}

/// Puts the working directory where a value has `{cwd}`; where it is not known, paths become relative.
fn place(value: &mut Value, cwd: Option<&str>) {
    match value {
        Value::String(text) if text.contains("{cwd}") => {
            *text = match cwd {
                Some(cwd) => text.replace("{cwd}", cwd),
                None => text.replace("{cwd}/", "").replace("{cwd}", "."),
            };
        }
        Value::Array(values) => values.iter_mut().for_each(|value| place(value, cwd)),
        Value::Object(values) => values.values_mut().for_each(|value| place(value, cwd)),
        _ => {}
    }
}
