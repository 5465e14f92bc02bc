//! Counts what is used, from the answers as they pass.
//!
//! An answer is read beside its way to the machine: each piece is looked at and passed on as it came, at once. A stream of
//! events names its model and its tokens in `message_start`, and the tokens so far in each `message_delta`; an answer in
//! one piece has them in its `usage`. What is compressed, too long or unknown is a request without tokens.
//!
//! Bounds: [`LINE_BYTES_MAX`] of a line of a stream, [`BODY_BYTES_MAX`] of an answer in one piece.

use serde::Deserialize;

/// The longest line of a stream that is looked at; those that count are far shorter.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// The longest answer in one piece that is looked at.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a line of a stream begins with that has data.
const DATA: &[u8] = b"data:";
/// What is in each line that counts. It is looked for in whole pieces: a stream has many lines, of which few count.
const COUNTED: &[u8] = b"\"message_";

/// What one request has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// Whether an answer came to its end; in the end, whether it was the main agent's.
    pub turn: bool,
    /// The model that answered; empty if none did, or none that could be read.
    pub model: String,
    /// The tokens that were sent and were in no cache.
    pub input_tokens: u64,
    /// The tokens of the answer.
    pub output_tokens: u64,
    /// The tokens that were read from a cache.
    pub cache_read_tokens: u64,
    /// The tokens that were written to a cache.
    pub cache_write_tokens: u64,
}

/// Reads one answer.
#[derive(Debug)]
pub struct Reader {
    form: Form,
    used: Used,
}

#[derive(Debug)]
enum Form {
    /// Of a stream of events: the line so far.
    Events(Line),
    /// In one piece: all of it so far.
    Whole(Vec<u8>),
    /// Nothing that can be read.
    Closed,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Reader {
    /// Of an answer with this `Content-Type`, or of one that cannot be read.
    pub fn new(content_type: Option<&str>) -> Self {
        let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let form = match kind.to_ascii_lowercase().as_str() {
            "text/event-stream" => Form::Events(Line::default()),
            "application/json" => Form::Whole(Vec::new()),
            _ => Form::Closed,
        };
        Self { form, used: Used::default() }
    }

    /// Looks at the next piece.
    pub fn read(&mut self, piece: &[u8]) {
        match &mut self.form {
            Form::Events(line) => line.read(piece, |line| self.used.event(line)),
            Form::Whole(body) if body.len() + piece.len() <= BODY_BYTES_MAX => body.extend_from_slice(piece),
            Form::Whole(_) => self.form = Form::Closed,
            Form::Closed => {}
        }
    }

    /// What was used, by all that was read.
    pub fn used(mut self) -> Used {
        match self.form {
            Form::Events(line) if !line.too_long => self.used.event(&line.bytes),
            Form::Whole(body) => self.used.whole(&body),
            Form::Events(_) | Form::Closed => {}
        }
        self.used
    }
}

impl Line {
    /// Takes what may count of the lines that end in a piece; one that is all in it is not copied.
    fn read(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let Some(last) = memchr::memrchr(b'\n', piece) else { return self.keep(piece) };
        let (mut lines, rest) = (&piece[..last], &piece[last + 1..]);
        if !self.bytes.is_empty() || self.too_long {
            let (first, others) = split(lines, 0);
            self.keep(first);
            if !std::mem::take(&mut self.too_long) {
                each(&self.bytes);
            }
            self.bytes.clear();
            lines = others;
        }
        while let Some(at) = memchr::memmem::find(lines, COUNTED) {
            let start = memchr::memrchr(b'\n', &lines[..at]).map_or(0, |end| end + 1);
            let (line, others) = split(&lines[start..], at - start);
            each(line);
            lines = others;
        }
        self.keep(rest);
    }

    fn keep(&mut self, rest: &[u8]) {
        self.too_long |= self.bytes.len() + rest.len() > LINE_BYTES_MAX;
        match self.too_long {
            true => self.bytes = Vec::new(),
            false => self.bytes.extend_from_slice(rest),
        }
    }
}

/// The first of these lines, which goes on to `from` at least, and the others.
fn split(lines: &[u8], from: usize) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', &lines[from..]).map_or(lines.len(), |end| from + end);
    (&lines[..end], lines.get(end + 1..).unwrap_or_default())
}

impl Used {
    fn event(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(DATA).filter(|_| line.len() <= LINE_BYTES_MAX) else { return };
        let counts = |word: &str| memchr::memmem::find(data, word.as_bytes()).is_some();
        if !counts("\"message_start\"") && !counts("\"message_delta\"") {
            return;
        }
        match serde_json::from_slice(data) {
            Ok(Event::MessageStart { message }) => self.message(message),
            Ok(Event::MessageDelta { usage }) => {
                self.turn = true;
                self.tokens(&usage);
            }
            Ok(Event::Other) | Err(_) => {}
        }
    }

    fn whole(&mut self, body: &[u8]) {
        if let Ok(message) = serde_json::from_slice::<Message>(body) {
            self.turn = !message.model.is_empty();
            self.message(message);
        }
    }

    fn message(&mut self, message: Message) {
        self.model = message.model;
        self.tokens(&message.usage);
    }

    /// What is told later counts what was told before.
    fn tokens(&mut self, told: &Tokens) {
        let grow = |so_far: &mut u64, told: Option<u64>| {
            *so_far = (*so_far).max(told.unwrap_or_default().min(TOKENS_MAX));
        };
        grow(&mut self.input_tokens, told.input);
        grow(&mut self.output_tokens, told.output);
        grow(&mut self.cache_read_tokens, told.cache_read);
        grow(&mut self.cache_write_tokens, told.cache_write);
    }
}

/// More than one answer can have: sums of them stay numbers that the store can hold.
const TOKENS_MAX: u64 = 1 << 32;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart {
        message: Message,
    },
    MessageDelta {
        #[serde(default)]
        usage: Tokens,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    model: String,
    #[serde(default)]
    usage: Tokens,
}

#[derive(Default, Deserialize)]
struct Tokens {
    #[serde(rename = "input_tokens")]
    input: Option<u64>,
    #[serde(rename = "output_tokens")]
    output: Option<u64>,
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Option<u64>,
    #[serde(rename = "cache_creation_input_tokens")]
    cache_write: Option<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m-1\",\"usage\":{\"input_tokens\":4,",
        "\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":5,\"output_tokens\":1}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"\\\"message_delta\\\"\"}}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":12}}\r\n\r\n",
        "event: message_delta\ndata: {\"usage\":{\"output_tokens\":30,\"input_tokens\":null},\"type\":\"message_delta\"}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    fn counted() -> Used {
        Used {
            turn: true,
            model: "m-1".to_owned(),
            input_tokens: 4,
            output_tokens: 30,
            cache_read_tokens: 5,
            cache_write_tokens: 7,
        }
    }

    fn of(content_type: &str, pieces: &[&[u8]]) -> Used {
        let mut reader = Reader::new(Some(content_type));
        for piece in pieces {
            reader.read(piece);
        }
        reader.used()
    }

    proptest! {
        #[test]
        fn a_stream_is_counted_wherever_it_is_cut(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(STREAM.len())).chain([0, STREAM.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &STREAM.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(of("text/event-stream; charset=utf-8", &pieces), counted());
        }
    }

    #[test]
    fn an_answer_in_one_piece_is_counted() {
        let body = br#"{"usage":{"output_tokens":30,"input_tokens":4,"cache_read_input_tokens":5,"cache_creation_input_tokens":7},"content":[{"text":"x"}],"model":"m-1"}"#;
        assert_eq!(of("application/json", &[&body[..40], &body[40..]]), counted());
        assert_eq!(
            of("application/json", &[br#"{"type":"error","error":{"type":"overloaded_error"}}"#]),
            Used::default()
        );
        assert_eq!(of("application/json", &[b"<html>", &vec![b' '; BODY_BYTES_MAX]]), Used::default());
        assert_eq!(of("text/html", &[body]), Used::default());
    }

    /// S44: nor is more kept of it than the bound.
    #[test]
    fn a_line_without_end_is_passed_over() {
        let mut reader = Reader::new(Some("text/event-stream"));
        let start = STREAM.find("event: content").expect("it is there");
        reader.read(&STREAM.as_bytes()[..start]);
        for _ in 0..40 {
            reader.read(&[b'x'; 10_000]);
        }
        assert!(matches!(&reader.form, Form::Events(line) if line.bytes.capacity() <= 2 * LINE_BYTES_MAX));
        reader.read(b"\n");
        reader.read(&STREAM.as_bytes()[start..]);
        assert_eq!(reader.used(), counted());
    }

    #[test]
    fn a_number_that_no_answer_has_is_bounded() {
        let huge = br#"{"model":"m","usage":{"input_tokens":18446744073709551615,"output_tokens":1}}"#;
        assert_eq!(of("application/json", &[huge]).input_tokens, TOKENS_MAX);
    }
}
