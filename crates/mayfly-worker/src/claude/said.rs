//! The shapes of the lines of `claude`, as far as the worker reads them.
//!
//! Key order varies, unknown fields are ignored, and texts that could be anything are kept as raw JSON until
//! they are needed: half of a surrogate pair in one of them must not hide the line.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Reads a line in one of these shapes, if it has it.
pub(crate) fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

/// The words in a JSON text, list of texts, or list of text blocks.
pub(crate) fn words(json: &RawValue) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Texts(Vec<String>),
        Blocks(Vec<TextBlock>),
    }
    #[derive(Deserialize)]
    struct TextBlock {
        #[serde(default)]
        text: String,
    }
    match serde_json::from_str(json.get()) {
        Ok(Words::One(text)) => text,
        Ok(Words::Texts(texts)) => texts.join("; "),
        Ok(Words::Blocks(blocks)) => blocks.into_iter().map(|block| block.text).collect(),
        // Half of a surrogate pair is valid in the CLI's JSON, and in no text of ours.
        Err(_) => json.get().to_owned(),
    }
}

#[derive(Deserialize)]
pub(crate) struct Head<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    pub(crate) subtype: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Init {
    #[serde(default)]
    pub(crate) cwd: String,
    #[serde(default)]
    pub(crate) session_id: String,
    #[serde(default)]
    pub(crate) tools: Vec<String>,
    #[serde(default)]
    pub(crate) mcp_servers: Vec<InitServer>,
    #[serde(default)]
    pub(crate) agents: Vec<String>,
    #[serde(default)]
    pub(crate) skills: Vec<String>,
    #[serde(default)]
    pub(crate) model: String,
    #[serde(default, rename = "permissionMode")]
    pub(crate) permission_mode: String,
    #[serde(default)]
    pub(crate) claude_code_version: String,
}

/// A server, as the first message has it.
#[derive(Deserialize)]
pub(crate) struct InitServer {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) status: String,
}

#[derive(Deserialize)]
pub(crate) struct Spoken<'a> {
    #[serde(borrow)]
    pub(crate) message: Message<'a>,
    pub(crate) parent_tool_use_id: Option<String>,
    #[serde(default)]
    pub(crate) tool_result_meta: Vec<Meta>,
}

#[derive(Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow)]
    pub(crate) content: &'a RawValue,
}

impl Message<'_> {
    /// Its blocks; a content that is a plain text has none.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        serde_json::from_str(self.content.get()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
pub(crate) struct Block {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) tool_use_id: Option<String>,
    pub(crate) is_error: Option<bool>,
    pub(crate) content: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
pub(crate) struct Meta {
    pub(crate) id: String,
    pub(crate) permission_decision: Option<Decision>,
}

impl Meta {
    pub(crate) fn rejects(&self) -> bool {
        self.permission_decision.as_ref().is_some_and(|decision| decision.decision == "reject")
    }
}

#[derive(Deserialize)]
pub(crate) struct Decision {
    pub(crate) decision: String,
}

#[derive(Deserialize)]
pub(crate) struct PermissionDenied {
    pub(crate) tool_name: String,
    pub(crate) tool_use_id: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
pub(crate) struct Control {
    pub(crate) request_id: String,
    pub(crate) request: ControlRequest,
}

#[derive(Deserialize)]
pub(crate) struct ControlRequest {
    pub(crate) subtype: String,
    pub(crate) tool_name: Option<String>,
    pub(crate) tool_use_id: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct ResultLine {
    pub(crate) subtype: Option<String>,
    pub(crate) is_error: bool,
    pub(crate) terminal_reason: Option<String>,
    pub(crate) api_error_status: Option<u64>,
    pub(crate) api_error: Option<String>,
    pub(crate) total_cost_usd: Option<f64>,
    pub(crate) result: Option<Box<RawValue>>,
    pub(crate) errors: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
pub(crate) struct ApiRetry {
    pub(crate) error_status: Option<u64>,
    #[serde(default)]
    pub(crate) error: String,
}

#[derive(Deserialize)]
pub(crate) struct RateLimit {
    pub(crate) rate_limit_info: RateLimitInfo,
}

#[derive(Deserialize)]
pub(crate) struct RateLimitInfo {
    pub(crate) status: String,
    #[serde(rename = "resetsAt")]
    pub(crate) resets_at: Option<i64>,
    #[serde(rename = "rateLimitType")]
    pub(crate) limit: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Tasks {
    pub(crate) task_id: Option<String>,
    #[serde(default)]
    pub(crate) is_backgrounded: bool,
    #[serde(rename = "tasks")]
    pub(crate) all: Option<Vec<Task>>,
}

#[derive(Deserialize)]
pub(crate) struct Task {
    pub(crate) task_id: String,
}
