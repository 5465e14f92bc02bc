//! What a tunnel on the user's machine and the orchestrator say to each other, over one WebSocket.
//!
//! ```text
//! tunnel                                     orchestrator
//!   ── Hello (text) ─────────────────────────►   the position up to which it has everything
//!   ◄──────────────────────── Welcome (text) ──   whose positions these are, and the newest
//!   ◄──────────────────────── chunks (binary) ──  every event of every task, in the order of their commits
//! ```
//!
//! A position counts all events of one database, in the order in which they became durable. Whoever has all
//! up to a position needs nothing else to go on from there. Positions of another database mean nothing: its
//! [`store`](Welcome::store) differs.
//!
//! A chunk is `1u8`, the position after it, the newest position, how many events before it are not kept any more,
//! `u64` each, then for each run: the task's id (16 bytes), the numbers of its first and last event `u64` each, length
//! `u32`, all little-endian, then the lines themselves, as [`Envelope`](crate::event::Envelope) writes them, one for each number. Bound:
//! [`CHUNK_BYTES_MAX`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use mayfly_core::TaskId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version that both sides must speak.
pub const PROTOCOL: u32 = 1;
/// Where a tunnel joins.
pub const JOIN_PATH: &str = "/v1/tunnel";
/// Where a tunnel's own API tells how it stands.
pub const STATUS_PATH: &str = "/v1/tunnel/status";
/// The type of the problem that a tunnel answers with while it cannot reach the orchestrator.
pub const AWAY: &str = "orchestrator-away";
/// The most bytes of a chunk: the longest line of an event, and what comes with it.
pub const CHUNK_BYTES_MAX: usize = crate::worker::FRAME_BYTES_MAX;
/// What a chunk takes besides its runs.
const HEAD_BYTES: usize = 1 + 8 + 8 + 8;
/// What a run takes besides its lines.
const RUN_HEAD_BYTES: usize = 16 + 8 + 8 + 4;

/// The tunnel's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Must equal [`PROTOCOL`].
    pub protocol: u32,
    /// The database that `after` is about; none for a tunnel that has nothing.
    pub store: Option<String>,
    /// The position up to which it has everything.
    pub after: u64,
}

/// The answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Answer {
    /// Chunks follow, from `after` on.
    Welcome(Welcome),
    /// They do not.
    Reject {
        /// Why, and what to do.
        reason: String,
    },
}

/// What a tunnel must know before the first chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The database, in hex.
    pub store: String,
    /// The position from which chunks follow: the hello's, or 0 for another database.
    pub after: u64,
    /// The newest position.
    pub head: u64,
    /// The orchestrator's version.
    pub version: String,
}

/// How a tunnel stands: what its own API answers at [`STATUS_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The orchestrator's address.
    pub to: String,
    /// Whether there is a link now.
    pub connected: bool,
    /// Since when it is so.
    pub since: Timestamp,
    /// Why there is no link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether that stays so until somebody does something about it.
    pub lasting: bool,
    /// The database that is followed, in hex.
    pub store: Option<String>,
    /// The orchestrator's version.
    pub version: Option<String>,
    /// Up to here everything is on this machine.
    pub position: u64,
    /// The newest position that is known of.
    pub head: u64,
    /// How many events were not kept any more when their turn came, since this tunnel was started.
    pub skipped: u64,
    /// How many logs here were damaged and set aside, since this tunnel was started.
    #[serde(default)]
    pub damaged: u64,
    /// How many of them were fetched again.
    #[serde(default)]
    pub mended: u64,
    /// How many requests are on their way to the orchestrator now.
    #[serde(default)]
    pub forwarding: u64,
    /// How many links there were.
    pub connections: u64,
    /// The folder of the logs.
    pub logs: String,
}

/// Events of any tasks, in the order in which they became durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The position after it.
    pub position: u64,
    /// The newest position when it was made.
    pub head: u64,
    /// How many events of this part of the feed are not kept any more.
    pub skipped: u64,
    /// The events, by task.
    pub runs: Vec<Run>,
}

/// Events of one task that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The task.
    pub task: TaskId,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// Their lines, each with its newline.
    pub lines: Bytes,
}

impl Chunk {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let runs: usize = self.runs.iter().map(|run| RUN_HEAD_BYTES + run.lines.len()).sum();
        let mut frame = BytesMut::with_capacity(HEAD_BYTES + runs);
        frame.put_u8(1);
        frame.put_u64_le(self.position);
        frame.put_u64_le(self.head);
        frame.put_u64_le(self.skipped);
        for run in &self.runs {
            frame.put_slice(run.task.uuid().as_bytes());
            frame.put_u64_le(run.first);
            frame.put_u64_le(run.last);
            frame.put_u32_le(u32::try_from(run.lines.len()).expect("a chunk is far below 4 GiB"));
            frame.put_slice(&run.lines);
        }
        frame.freeze()
    }

    /// Takes a chunk apart without copying its lines.
    pub fn decode(mut frame: Bytes) -> Result<Self, BadChunk> {
        if frame.len() > CHUNK_BYTES_MAX {
            return Err(BadChunk::TooLong { bytes: frame.len() });
        }
        if frame.len() < HEAD_BYTES || frame.get_u8() != 1 {
            return Err(BadChunk::Version);
        }
        let (position, head, skipped) = (frame.get_u64_le(), frame.get_u64_le(), frame.get_u64_le());
        let mut runs = Vec::new();
        while frame.has_remaining() {
            runs.push(run(&mut frame)?);
        }
        Ok(Self { position, head, skipped, runs })
    }
}

fn run(frame: &mut Bytes) -> Result<Run, BadChunk> {
    if frame.remaining() < RUN_HEAD_BYTES {
        return Err(BadChunk::Truncated);
    }
    let mut id = [0; 16];
    frame.copy_to_slice(&mut id);
    let task = TaskId::new(Uuid::from_bytes(id));
    let (first, last, bytes) = (frame.get_u64_le(), frame.get_u64_le(), frame.get_u32_le() as usize);
    if frame.remaining() < bytes {
        return Err(BadChunk::Truncated);
    }
    let lines = frame.split_to(bytes);
    let counted = memchr::memchr_iter(b'\n', &lines).count() as u64;
    let numbered = first > 0 && first.checked_add(counted) == last.checked_add(1);
    if !numbered || !lines.ends_with(b"\n") {
        return Err(BadChunk::Lines { task, first, last, counted });
    }
    Ok(Run { task, first, last, lines })
}

/// A chunk that no orchestrator of ours sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// Its first byte names no version that we speak.
    #[error("a chunk of another version")]
    Version,
    /// It ends inside a run.
    #[error("a chunk that ends inside a run")]
    Truncated,
    /// It is longer than allowed.
    #[error("{bytes} bytes are more than a chunk may have")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A run has not as many lines as it says.
    #[error("events {first} to {last} of task {task} came as {counted} lines")]
    Lines {
        /// The task.
        task: TaskId,
        /// The first number.
        first: u64,
        /// The last number.
        last: u64,
        /// How many whole lines there are.
        counted: u64,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks() -> impl Strategy<Value = Chunk> {
        let run = (any::<u128>(), 1..u64::MAX / 2, proptest::collection::vec("[ -~]{0,20}", 1..9));
        let run = run.prop_map(|(id, first, lines)| Run {
            task: TaskId::new(Uuid::from_u128(id)),
            first,
            last: first + lines.len() as u64 - 1,
            lines: (lines.join("\n") + "\n").into(),
        });
        (any::<[u64; 3]>(), proptest::collection::vec(run, 0..9))
            .prop_map(|([position, head, skipped], runs)| Chunk { position, head, skipped, runs })
    }

    proptest! {
        #[test]
        fn a_chunk_survives_the_wire(chunk in chunks()) {
            prop_assert_eq!(Chunk::decode(chunk.encode()), Ok(chunk));
        }

        #[test]
        fn a_chunk_cut_anywhere_is_refused_or_holds_whole_runs(chunk in chunks(), cut in any::<prop::sample::Index>()) {
            let frame = chunk.encode();
            let cut = cut.index(frame.len());
            if let Ok(whole) = Chunk::decode(frame.slice(..cut)) {
                prop_assert_eq!(&whole.runs[..], &chunk.runs[..whole.runs.len()]);
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Chunk::decode(bytes.into());
        }
    }

    #[test]
    fn numbers_and_lines_must_agree() {
        let run = |first, last, lines: &'static str| {
            let run = Run { task: TaskId::new(Uuid::nil()), first, last, lines: lines.into() };
            Chunk::decode(Chunk { position: 1, head: 1, skipped: 0, runs: vec![run] }.encode())
        };
        run(1, 2, "a\nb\n").expect("two lines");
        for (first, last, lines) in
            [(1, 2, "a\n"), (1, 1, "a\nb\n"), (0, 0, "a\n"), (1, 2, "a\nb"), (2, 1, "")]
        {
            assert!(
                matches!(run(first, last, lines), Err(BadChunk::Lines { .. })),
                "{first} {last} {lines:?}"
            );
        }
    }

    #[test]
    fn the_words_are_as_documented() {
        let hello = Hello { protocol: PROTOCOL, store: None, after: 0 };
        insta::assert_snapshot!(serde_json::to_string(&hello).expect("plain"), @r#"{"protocol":1,"store":null,"after":0}"#);
        let welcome = Welcome { store: "ab".into(), after: 3, head: 9, version: "0.1.0".into() };
        insta::assert_snapshot!(serde_json::to_string(&Answer::Welcome(welcome)).expect("plain"), @r#"{"type":"welcome","store":"ab","after":3,"head":9,"version":"0.1.0"}"#);
        let reject = Answer::Reject { reason: "no".into() };
        insta::assert_snapshot!(serde_json::to_string(&reject).expect("plain"), @r#"{"type":"reject","reason":"no"}"#);
    }
}
