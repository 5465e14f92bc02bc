//! Whether a body is one that the real API would take.
//!
//! Messages of one role that follow each other count as one turn, and `system` messages between them are
//! passed over, as the API does. Then each tool call has to be answered in the very next turn, and each answer
//! has to have its call in the turn before. Fields that are not named here are not looked at: the CLI adds new
//! ones often.

use std::collections::HashSet;

use serde_json::Value;

use crate::problem::Problem;

type Checked<T = ()> = Result<T, Problem>;

/// One side's consecutive messages, as one.
struct Turn<'a> {
    assistant: bool,
    /// Where its first message stands in the list.
    at: usize,
    blocks: Vec<&'a Value>,
}

/// Refuses the body of a `POST /v1/messages`.
pub(crate) fn messages_request(body: &Value) -> Checked {
    match body.get("max_tokens") {
        None => return Err(Problem::invalid("max_tokens: field is required")),
        Some(tokens) if tokens.as_u64().is_none_or(|tokens| tokens == 0) => {
            return Err(Problem::invalid("max_tokens: is to be an integer of 1 or more"));
        }
        Some(_) => {}
    }
    if body.get("stream").is_some_and(|stream| !stream.is_boolean()) {
        return Err(Problem::invalid("stream: is to be a boolean"));
    }
    count_request(body)
}

/// Refuses the body of a `POST /v1/messages/count_tokens`.
pub(crate) fn count_request(body: &Value) -> Checked {
    if !body.is_object() {
        return Err(Problem::invalid("the body is to be a JSON object"));
    }
    match body.get("model") {
        None => return Err(Problem::invalid("model: field is required")),
        Some(model) if model.as_str().is_none_or(str::is_empty) => {
            return Err(Problem::invalid("model: is to be a string that is not empty"));
        }
        Some(_) => {}
    }
    system(body)?;
    tools(body)?;
    let turns = turns(body)?;
    ids_are_unique(&turns)?;
    calls_are_answered(&turns)
}

fn system(body: &Value) -> Checked {
    match body.get("system") {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) if blocks.iter().all(|block| block["text"].is_string()) => Ok(()),
        Some(_) => Err(Problem::invalid("system: is to be a string or a list of text blocks")),
    }
}

fn tools(body: &Value) -> Checked {
    let Some(tools) = body.get("tools") else { return Ok(()) };
    let tools = tools.as_array().ok_or_else(|| Problem::invalid("tools: is to be a list"))?;
    let mut names = HashSet::new();
    for (at, tool) in tools.iter().enumerate() {
        let name = tool["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Err(Problem::invalid(format!("tools.{at}.name: field is required")));
        }
        if !names.insert(name) {
            return Err(Problem::invalid(format!("tools.{at}.name: `{name}` is there twice")));
        }
        // A tool that the API itself runs has a type of its own, and no schema.
        let own = tool.get("type").is_none_or(|kind| kind == "custom");
        if own && tool["input_schema"]["type"] != "object" {
            let message = format!("tools.{at}.input_schema: `{name}` needs a schema of type object");
            return Err(Problem::invalid(message));
        }
    }
    Ok(())
}

fn turns(body: &Value) -> Checked<Vec<Turn<'_>>> {
    let messages = body.get("messages").ok_or_else(|| Problem::invalid("messages: field is required"))?;
    let messages = messages.as_array().ok_or_else(|| Problem::invalid("messages: is to be a list"))?;
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let assistant = match message["role"].as_str() {
            Some("user") => false,
            Some("assistant") => true,
            Some("system") if at > 0 => {
                content(message, at, None)?;
                continue;
            }
            _ => return Err(Problem::invalid(format!("messages.{at}.role: is to be user or assistant"))),
        };
        let blocks = content(message, at, Some(assistant))?;
        match turns.last_mut() {
            Some(turn) if turn.assistant == assistant => turn.blocks.extend(blocks),
            _ => turns.push(Turn { assistant, at, blocks }),
        }
    }
    match turns.as_slice() {
        [] => Err(Problem::invalid("messages: at least one message is required")),
        [Turn { assistant: true, .. }, ..] => {
            Err(Problem::invalid("messages.0.role: the first is to be user"))
        }
        _ => Ok(turns),
    }
}

/// The blocks of a message, each checked. A plain string is a block as well: [`Value::String`].
fn content(message: &Value, at: usize, assistant: Option<bool>) -> Checked<Vec<&Value>> {
    let empty = || Problem::invalid(format!("messages.{at}.content: may not be empty"));
    let blocks = match &message["content"] {
        text @ Value::String(words) => return if words.is_empty() { Err(empty()) } else { Ok(vec![text]) },
        Value::Array(blocks) if blocks.is_empty() => return Err(empty()),
        Value::Array(blocks) => blocks,
        _ => return Err(Problem::invalid(format!("messages.{at}.content: is to be a string or a list"))),
    };
    for (index, block) in blocks.iter().enumerate() {
        let place = format!("messages.{at}.content.{index}");
        match assistant {
            Some(assistant) => checked_block(block, assistant, &place)?,
            None => drop(string(block, "type", &place)?),
        }
    }
    Ok(blocks.iter().collect())
}

fn checked_block(block: &Value, assistant: bool, place: &str) -> Checked {
    match (block["type"].as_str().unwrap_or_default(), assistant) {
        ("text", _) => drop(string(block, "text", place)?),
        ("tool_use", true) => {
            string(block, "id", place)?;
            string(block, "name", place)?;
            if !block["input"].is_object() {
                return Err(Problem::invalid(format!("{place}.input: is to be an object")));
            }
        }
        ("tool_result", false) => drop(string(block, "tool_use_id", place)?),
        ("thinking", true) => drop(string(block, "signature", place)?),
        ("redacted_thinking", true) => drop(string(block, "data", place)?),
        ("image" | "document", false) if block["source"].is_object() => {}
        (kind, _) => return Err(Problem::invalid(format!("{place}.type: `{kind}` has no place here"))),
    }
    Ok(())
}

fn string<'a>(block: &'a Value, field: &str, place: &str) -> Checked<&'a str> {
    let value = block[field].as_str().filter(|value| !value.is_empty());
    value.ok_or_else(|| Problem::invalid(format!("{place}.{field}: is to be a string that is not empty")))
}

fn ids_are_unique(turns: &[Turn<'_>]) -> Checked {
    let mut known = HashSet::new();
    for id in turns.iter().flat_map(|turn| ids(turn, "tool_use", "id")) {
        if !known.insert(id) {
            return Err(Problem::invalid(format!("messages: the `tool_use` id {id} is there twice")));
        }
    }
    Ok(())
}

fn calls_are_answered(turns: &[Turn<'_>]) -> Checked {
    for (index, turn) in turns.iter().enumerate() {
        let next = turns.get(index + 1);
        let answers: HashSet<_> =
            next.into_iter().flat_map(|next| ids(next, "tool_result", "tool_use_id")).collect();
        if let Some(id) = ids(turn, "tool_use", "id").find(|id| !answers.contains(id)) {
            let at = turn.at;
            let message =
                format!("messages.{at}: the `tool_use` {id} has no `tool_result` in the next message");
            return Err(Problem::invalid(message));
        }
        let before = index.checked_sub(1).map(|before| &turns[before]);
        let calls: HashSet<_> = before.into_iter().flat_map(|before| ids(before, "tool_use", "id")).collect();
        let mut seen = HashSet::new();
        for id in ids(turn, "tool_result", "tool_use_id") {
            if !calls.contains(id) || !seen.insert(id) {
                let at = turn.at;
                let message = format!("messages.{at}: unexpected `tool_use_id` in a `tool_result`: {id}");
                return Err(Problem::invalid(message));
            }
        }
    }
    match turns.last() {
        Some(Turn { assistant: true, at, .. }) => {
            Err(Problem::invalid(format!("messages.{at}: the conversation is to end with a user message")))
        }
        _ => Ok(()),
    }
}

/// The values of `field` in the blocks of one type.
fn ids<'a>(turn: &'a Turn<'_>, kind: &'a str, field: &'a str) -> impl Iterator<Item = &'a str> {
    let blocks = turn.blocks.iter().filter(move |block| block["type"] == kind);
    blocks.filter_map(move |block| block[field].as_str())
}
