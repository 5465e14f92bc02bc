//! An answer of the scripted model, and how it goes over the wire: as server-sent events or as one JSON body.
//!
//! Pure: an answer becomes [`Frame`]s, and whoever sends them does the waiting.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

/// How many characters a natural delta has.
const NATURAL_PIECE_CHARS: usize = 20;
/// How many characters a delta has where nobody watches.
const PLAIN_PIECE_CHARS: usize = 4096;
/// How many bytes of JSON stand for a token in the usage numbers.
const BYTES_PER_TOKEN: usize = 4;
/// The most output tokens that an answer says it has: a text of megabytes would cost many dollars.
const OUTPUT_TOKENS_MAX: usize = 32_000;

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    pub(crate) blocks: Vec<Block>,
    pub(crate) stop: &'static str,
    pub(crate) ending: Ending,
    /// Name of the hold that the answer waits at, before its first byte.
    pub(crate) hold: Option<String>,
    pub(crate) rhythm: Rhythm,
}

/// A part of an answer's content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    Thinking(String),
    Text(String),
    Tool { name: String, input: Value },
}

/// How a streamed answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it should.
    Whole,
    /// Half of it comes, then the connection breaks.
    Cut,
    /// Half of it comes, then an error event.
    Failed,
    /// The headers come, then nothing until the client gives up.
    Hung,
}

/// How fast an answer streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// Before the first event.
    pub(crate) first: Duration,
    /// Before each delta.
    pub(crate) gap: Duration,
    /// How long a delta is at most.
    pub(crate) piece_chars: usize,
}

impl Rhythm {
    /// All at once.
    pub(crate) const PLAIN: Self =
        Self { first: Duration::ZERO, gap: Duration::ZERO, piece_chars: PLAIN_PIECE_CHARS };
    /// As a model answers that thinks a little first.
    pub(crate) const NATURAL: Self = Self {
        first: Duration::from_millis(450),
        gap: Duration::from_millis(20),
        piece_chars: NATURAL_PIECE_CHARS,
    };
}

/// One thing to do while an answer is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Send(Bytes),
    Pause(Duration),
    /// Break the connection.
    Cut,
    /// Send nothing more, and do not end.
    Hang,
}

/// What an answer is an answer to.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a str,
    pub(crate) usage: Usage,
}

/// How many tokens a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    cache_read: usize,
    cache_creation: usize,
}

impl Usage {
    /// Plausible numbers: what the model has seen before its last answer is read from the cache.
    pub(crate) fn of(body: &Value) -> Self {
        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let seen = messages.iter().rposition(|message| message["role"] == "assistant");
        let new = seen.map_or(messages, |seen| &messages[seen..]);
        let total = tokens(&body.to_string());
        let cache_creation = match seen {
            Some(_) => new.iter().map(|message| tokens(&message.to_string())).sum(),
            None => total,
        };
        Self { cache_read: total.saturating_sub(cache_creation), cache_creation }
    }

    /// All that the request has.
    pub(crate) fn total(self) -> usize {
        self.cache_read + self.cache_creation
    }

    fn json(self, output: usize) -> Value {
        json!({
            "input_tokens": 4,
            "cache_creation_input_tokens": self.cache_creation,
            "cache_read_input_tokens": self.cache_read,
            "output_tokens": output,
            "service_tier": "standard",
        })
    }
}

fn tokens(text: &str) -> usize {
    text.len().div_ceil(BYTES_PER_TOKEN)
}

/// An identifier as the API makes them.
pub(crate) fn fresh_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

impl Turn {
    /// A whole answer, sent at once.
    pub(crate) fn of(blocks: Vec<Block>) -> Self {
        let calls = blocks.iter().any(|block| matches!(block, Block::Tool { .. }));
        let stop = if calls { "tool_use" } else { "end_turn" };
        Self { blocks, stop, ending: Ending::Whole, hold: None, rhythm: Rhythm::PLAIN }
    }

    /// All the time that the answer takes when streamed.
    pub(crate) fn duration(&self) -> Duration {
        let pieces = |text: &str| pieces(text, self.rhythm.piece_chars).count();
        let gaps: usize = self.blocks.iter().map(|block| pieces(&block.payload())).sum();
        self.rhythm.first + self.rhythm.gap * u32::try_from(gaps).unwrap_or(u32::MAX)
    }

    /// The answer as one JSON body.
    pub(crate) fn body(&self, asked: &Asked<'_>) -> Value {
        let mut message = envelope(asked, self.output_tokens());
        message["content"] = self.blocks.iter().map(Block::whole).collect();
        message["stop_reason"] = self.stop.into();
        message
    }

    /// The answer as a stream of events.
    pub(crate) fn frames(&self, asked: &Asked<'_>) -> Vec<Frame> {
        if self.ending == Ending::Hung {
            return vec![Frame::Hang];
        }
        let mut frames = vec![
            Frame::Pause(self.rhythm.first),
            event(&json!({"type": "message_start", "message": envelope(asked, 1)})),
            event(&json!({"type": "ping"})),
        ];
        for (index, block) in self.blocks.iter().enumerate() {
            block.stream(index, self.rhythm, &mut frames);
        }
        frames.push(event(&json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop, "stop_sequence": null},
            "usage": {"output_tokens": self.output_tokens()},
        })));
        frames.push(event(&json!({"type": "message_stop"})));
        self.end(frames)
    }

    fn end(&self, mut frames: Vec<Frame>) -> Vec<Frame> {
        match self.ending {
            Ending::Whole | Ending::Hung => {}
            Ending::Cut => {
                frames.truncate(frames.len() / 2);
                frames.push(Frame::Cut);
            }
            Ending::Failed => {
                frames.truncate(frames.len() / 2);
                let error = json!({"type": "overloaded_error", "message": "the script fails here"});
                frames.push(event(&json!({"type": "error", "error": error})));
            }
        }
        frames
    }

    fn output_tokens(&self) -> usize {
        self.blocks.iter().map(|block| tokens(&block.payload())).sum::<usize>().clamp(1, OUTPUT_TOKENS_MAX)
    }
}

impl Block {
    /// What streams in pieces.
    fn payload(&self) -> String {
        match self {
            Self::Thinking(text) | Self::Text(text) => text.clone(),
            Self::Tool { input, .. } => input.to_string(),
        }
    }

    fn whole(&self) -> Value {
        match self {
            Self::Thinking(text) => json!({"type": "thinking", "thinking": text, "signature": signature()}),
            Self::Text(text) => json!({"type": "text", "text": text}),
            Self::Tool { name, input } => {
                json!({"type": "tool_use", "id": fresh_id("toolu"), "name": name, "input": input})
            }
        }
    }

    /// The block with nothing in it yet, and the names of its delta and of what that carries.
    fn opening(&self) -> (Value, &'static str, &'static str) {
        let mut block = self.whole();
        let (field, empty, delta, carries) = match self {
            Self::Thinking(_) => ("thinking", "".into(), "thinking_delta", "thinking"),
            Self::Text(_) => ("text", "".into(), "text_delta", "text"),
            Self::Tool { .. } => ("input", json!({}), "input_json_delta", "partial_json"),
        };
        block[field] = empty;
        if matches!(self, Self::Thinking(_)) {
            block["signature"] = "".into();
        }
        (block, delta, carries)
    }

    fn stream(&self, index: usize, rhythm: Rhythm, frames: &mut Vec<Frame>) {
        let (block, delta, carries) = self.opening();
        frames.push(event(&json!({"type": "content_block_start", "index": index, "content_block": block})));
        for piece in pieces(&self.payload(), rhythm.piece_chars) {
            if !rhythm.gap.is_zero() {
                frames.push(Frame::Pause(rhythm.gap));
            }
            let delta = json!({"type": delta, carries: piece});
            frames.push(event(&json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        if matches!(self, Self::Thinking(_)) {
            let delta = json!({"type": "signature_delta", "signature": signature()});
            frames.push(event(&json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        frames.push(event(&json!({"type": "content_block_stop", "index": index})));
    }
}

/// Stands for the proof that thinking came from the model; clients only hand it back.
fn signature() -> &'static str {
    "c2NyaXB0ZWQ="
}

fn envelope(asked: &Asked<'_>, output_tokens: usize) -> Value {
    json!({
        "id": fresh_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": asked.usage.json(output_tokens),
    })
}

fn event(data: &Value) -> Frame {
    let name = data["type"].as_str().expect("every event has a type");
    Frame::Send(Bytes::from(format!("event: {name}\ndata: {data}\n\n")))
}

/// Cuts a text into parts of at most `chars` characters.
fn pieces(text: &str, chars: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().nth(chars).map_or(rest.len(), |(end, _)| end);
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}
