//! What a worker and the orchestrator say to each other, over one WebSocket per machine.
//!
//! ```text
//! worker                                     orchestrator
//!   ── Hello (text) ─────────────────────────►   checks ticket and attempt
//!   ◄───────────────────────── Down::Welcome ──   the last number stored, and the work order
//!   ── records, many in a frame (binary) ────►   stores them, in one commit
//!   ◄───────────────────────────── Down::Ack ──   only then
//!   ◄───────────────────────── Down::Collect ──   stop `claude`, bring the work out
//! ```
//!
//! Everything that must not be lost is a numbered [`Record`]: the CLI's lines and the worker's own
//! [`Report`]s alike, so that one numbering orders them and one rule resends them: after a new link, all
//! that follows the number in [`Down::Welcome`].
//!
//! A frame of records is `1u8`, then for each record: number `u64`, milliseconds since 1970 `u64`, source
//! `u8`, end `u8`, length `u32`, all little-endian, then the bytes. Bounds: [`RECORD_BYTES_MAX`] a record,
//! [`FRAME_BYTES_MAX`] a frame. Everything decoded here comes from a machine and is hostile.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::api::{Collected, CredentialKind, Repository, Setup};
use crate::event::LimitKind;
use crate::secret::Secret;

/// The ref of the bundle that a worker hands over which holds the agent's work.
pub const WORK_REF: &str = "refs/heads/work";
/// The message of the work's commit where it is on top of the agent's own, and has what that left uncommitted.
pub const UNCOMMITTED: &str = "Uncommitted work";
/// What the names of the bundle's other refs begin with: commits of the agent's that its work does not hold.
pub const OTHER_REFS: &str = "refs/heads/other/";
/// The most of them.
pub const OTHERS_MAX: usize = 20;
/// The ref of that bundle which holds what the agent had staged: for a task that goes on there, and never landed.
pub const STAGED_REF: &str = "refs/mayfly/staged";
/// The longest name of one, without [`OTHER_REFS`].
pub const OTHER_NAME_BYTES_MAX: usize = 60;
/// What the names of those refs of a handed-over bundle begin with that say where its history is cut off: the commit after it
/// is in the bundle, and its parents are not. They point to the bundle's commit, as its other ref does.
pub const CUT_REFS: &str = "refs/mayfly/cut/";
/// The most of them.
pub const CUTS_MAX: usize = 400;
/// Where a worker asks to go elsewhere: each connection becomes one to a proxy.
pub const EGRESS_PATH: &str = "/v1/egress";
/// What such a connection becomes, as HTTP names it.
pub const EGRESS_UPGRADE: &str = "mayfly-egress";
/// The version that both sides must speak.
pub const PROTOCOL: u32 = 1;
/// The most bytes of one record; a longer line is several.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes of one frame, in either direction; the line of any record fits, however it is written.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a record takes in a frame besides its bytes.
pub const RECORD_HEAD_BYTES: usize = 8 + 8 + 1 + 1 + 4;

/// Where a worker hands over checkpoints: this, and the number of one. What the body is, [`Checkpoint`] says.
pub const CHECKPOINT_PATH: &str = "/v1/worker/checkpoint/";
/// The longest head of a checkpoint, with its newline.
pub const CHECKPOINT_HEAD_BYTES_MAX: usize = 256 * 1024;
/// The most checkpoints of one attempt that build on one another.
pub const CHECKPOINTS_MAX: usize = 64;

/// Whether a text is the whole name of a commit, in lower-case hex.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What git is told in its file `shallow` of where a history is cut off, by the names in its bundle: a line for each ref, as
/// in its head. `None`: it is whole.
pub fn shallow(refs: &str) -> Option<String> {
    let names = refs.lines().filter_map(|line| line.split_once(' ')?.1.strip_prefix(CUT_REFS));
    let mut cuts = String::new();
    for commit in names.filter(|commit| is_commit(commit)).take(CUTS_MAX) {
        cuts.extend([commit, "\n"]);
    }
    (!cuts.is_empty()).then_some(cuts)
}

/// Whether one of the [`OTHER_REFS`] may be named so: good as a part of any branch's name.
pub fn is_other_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=OTHER_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// The worker's first message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Must equal [`PROTOCOL`].
    pub protocol: u32,
    /// The attempt that the machine was made for: `<task>.<number>`.
    pub attempt: String,
    /// What the machine was given to prove it.
    pub ticket: Secret,
    /// A secret that the worker made up. The first hello binds the ticket to it: with another, the ticket is
    /// spent.
    pub link: Secret,
}

impl Hello {
    /// Reads one. What another version may have added is left alone; the version is told from whatever names one, since
    /// nothing else of another version need be as it is here.
    pub fn parse(text: &str) -> Result<Self, BadHello> {
        #[derive(Deserialize)]
        struct Version {
            protocol: u32,
        }
        let Version { protocol } = serde_json::from_str(text).map_err(|_| BadHello::None)?;
        if protocol != PROTOCOL {
            return Err(BadHello::Protocol(protocol));
        }
        serde_json::from_str(text).map_err(|_| BadHello::None)
    }
}

/// A first message with which nobody can join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// It is of another version.
    #[error("this orchestrator speaks version {PROTOCOL} of the worker link, and the worker {0}")]
    Protocol(u32),
    /// It is no hello.
    #[error("the first message is no hello")]
    None,
}

/// What the orchestrator says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Down {
    /// The answer to a hello.
    Welcome {
        /// Must equal [`PROTOCOL`].
        protocol: u32,
        /// The last number stored from this attempt; 0 is none.
        stored: u64,
        /// What to do. A worker that has it already ignores it.
        order: Box<WorkOrder>,
    },
    /// The hello was not accepted; the machine has no business any more, and ends.
    Reject {
        /// Why.
        reason: String,
    },
    /// All records up to this number are durable and can be forgotten.
    Ack {
        /// That number.
        stored: u64,
    },
    /// Stop `claude` if it still runs, and bring the work out.
    Collect,
}

/// What an attempt is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkOrder {
    /// The user's words; they reach `claude` on its standard input.
    pub prompt: String,
    /// The folder's name under `/workspace`, and the commit it starts from; none is an empty workspace.
    pub workspace: Option<OrderedWorkspace>,
    /// What is run in it before `claude` is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// Passed on as `--model`.
    pub model: String,
    /// Passed on as `--session-id`: a UUID.
    pub session_id: String,
    /// Passed on as `--max-turns`.
    pub max_turns: Option<u32>,
    /// Passed on as `--max-budget-usd`.
    pub max_budget_usd: Option<f64>,
    /// Whether the settings of the repository count, and what it names runs; else its words alone.
    #[serde(default)]
    pub trust_repo: bool,
    /// What it goes on with; none begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<OrderedResume>,
    /// What it gets of the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<OrderedLibrary>,
    /// What is to be brought out besides the work: patterns for files below the workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// The version that `claude` must name in its first message; none accepts any.
    pub claude_version: Option<String>,
    /// The placeholder credential: good for the model routes of this attempt alone.
    pub model_token: Secret,
    /// The owner's credential, where its mode hands it to the machine; else the machine has the placeholder alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Handed>,
    /// Good for handing over the results of this attempt alone.
    pub result_token: Secret,
    /// Good for asking to go elsewhere, of this attempt alone; none is an orchestrator that lets nobody.
    #[serde(default)]
    pub egress_token: Option<Secret>,
    /// The time for bringing the work out, in milliseconds.
    pub collect_ms_max: u64,
    /// How long to go on without an orchestrator, in milliseconds, before the machine ends itself.
    pub orphan_after_ms: u64,
    /// What the lines of `claude` may take in the log before it is stopped, also while nobody is there to store them;
    /// none from an orchestrator that counts by itself alone.
    #[serde(default)]
    pub log_bytes_max: Option<u64>,
}

/// The resources in a machine. Each is fetched by the SHA-256 that the lock has of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderedLibrary {
    /// The lock, as JSON.
    pub lock: String,
    /// Whether the task has named no model, so that its agent's counts.
    pub model_is_default: bool,
    /// What MCP servers are given of their owner's secrets, by server and variable. One that the pool does not have any
    /// more is not among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, BTreeMap<String, Secret>>,
}

/// Where a worker fetches a resource: this, and its SHA-256.
pub const RESOURCE_PATH: &str = "/v1/worker/resources/";

/// What an earlier task left, to be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedResume {
    /// The CLI's session: a UUID.
    pub session_id: String,
    /// The SHA-256 of the session file, in hex; none came out of its machine, and the conversation begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// The commit with its files, in hex; none is what the task itself starts from.
    pub head: Option<String>,
    /// How its repository was left, in the words of its machine.
    pub repository: Option<Repository>,
}

/// Where a worker fetches the git bundle that its task starts from, if its machine came without the code.
pub const WORKSPACE_PATH: &str = "/v1/worker/workspace";
/// The longest bundle of a workspace.
pub const WORKSPACE_BYTES_MAX: u64 = 8 << 30;
/// Where a worker fetches what an earlier task left: this, and `transcript` or `bundle`.
pub const RESUMED_PATH: &str = "/v1/worker/resumed/";
/// The note of a machine where no file was such as the patterns of artifacts say.
pub const NO_ARTIFACTS: &str = "the artifacts: no file is as the patterns say";
/// The longest session file.
pub const TRANSCRIPT_BYTES_MAX: u64 = 512 << 20;
/// The longest bundle of a result.
pub const BUNDLE_BYTES_MAX: u64 = 2 << 30;
/// The most branches and tags that a machine tells of, and as many entries of a stash.
pub const REFS_MAX: usize = 50;
/// The longest name of one.
pub const REF_BYTES_MAX: usize = 200;

/// Where a worker asks for what a set-up made, and hands it over: this, and its key.
pub const SETUP_PATH: &str = "/v1/worker/setup/";
/// The longest archive of it: what its files have, and what it says of each.
pub const SETUP_BYTES_MAX: u64 = 5 << 30;

/// The header of a request to the model in which the placeholder comes where the credential's own has the real one.
pub const PLACEHOLDER_HEADER: &str = "x-mayfly-token";

/// A credential that is handed to a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handed {
    /// Which it is.
    pub kind: CredentialKind,
    /// The credential.
    pub secret: Secret,
    /// Whether `claude` gets it by a file descriptor, and not in its environment.
    pub by_descriptor: bool,
}

/// The repository in a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedWorkspace {
    /// The folder's name under `/workspace`.
    pub name: String,
    /// The commit it starts from, in hex.
    pub base: String,
}

/// What the worker itself has to say; travels as a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Report {
    /// `claude` is about to be started: from here on the task has side effects.
    Started,
    /// The first `init` of `claude` is what was asked for: the gateway may answer it.
    Ready {
        /// The version of `claude`.
        version: String,
        /// The model it will ask for.
        model: String,
    },
    /// `claude` is over, or never ran.
    Ended {
        /// The outcome's name.
        outcome: String,
        /// The reason in words.
        detail: Option<String>,
    },
    /// All that could be brought out has been handed over.
    Collected(Collected),
    /// A tool call was denied.
    Denied {
        /// The tool's name.
        tool: String,
        /// What `claude` was told.
        message: String,
    },
    /// What the run has cost so far, as `claude` counts it.
    Cost {
        /// In US dollars.
        usd: f64,
    },
    /// A limit of the model API was met.
    Limit {
        /// Which kind it is.
        #[serde(default)]
        kind: LimitKind,
        /// Its name as the CLI has it, such as `five_hour`.
        limit: String,
        /// When it ends, in seconds since 1970.
        resets_at: Option<i64>,
    },
    /// Something in a repository that is not trusted does not count.
    Ignored {
        /// The file's path in the repository.
        file: String,
        /// Its keys, or other parts of it; none is the whole file.
        parts: Vec<String>,
    },
    /// Something that the user should know.
    Warning {
        /// What.
        text: String,
    },
}

impl Report {
    /// Every text in it that a machine can choose freely.
    pub fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::Ready { version, model } => vec![version, model],
            Self::Ended { detail, .. } => detail.iter_mut().collect(),
            Self::Collected(Collected { unsaved, notes, others, repository, .. }) => {
                let repository = repository.iter_mut().flat_map(Repository::texts);
                unsaved.iter_mut().chain(notes).chain(others).chain(repository).collect()
            }
            Self::Denied { tool, message } => vec![tool, message],
            Self::Limit { limit, .. } => vec![limit],
            Self::Ignored { file, parts } => std::iter::once(file).chain(parts).collect(),
            Self::Warning { text } => vec![text],
            Self::Started | Self::Cost { .. } => Vec::new(),
        }
    }
}

impl Repository {
    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let Self { commit, branch, refs, stash, index } = self;
        let refs = refs.iter_mut().flat_map(|named| [&mut named.name, &mut named.commit]);
        commit.iter_mut().chain(branch).chain(refs).chain(stash).chain(index)
    }
}

/// The head of a checkpoint, on a line of its own. A git pack follows with the objects that are neither in what the task
/// began with nor in the checkpoints on which this one builds; it is whole by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The number of the one on which it builds; 0 is none, and it takes the place of all before it.
    pub after: u64,
    /// The last commit, in hex, if the work differs from what the task began with.
    pub head: Option<String>,
    /// The commits beside it, by the names that they have in a bundle.
    pub others: BTreeMap<String, String>,
    /// How the agent's repository was, if there was one.
    pub repository: Option<Repository>,
    /// How many files differ from those that the task began with.
    pub files: u64,
    /// What of the work it does not hold, a line each.
    pub left_out: Vec<String>,
}

/// Who wrote a record's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The standard output of `claude`.
    Claude,
    /// The standard error of `claude`.
    Stderr,
    /// The worker: a [`Report`] as JSON.
    Report,
}

/// How a record's bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// With the newline that followed them, which is not among them.
    Newline,
    /// The line goes on in the next record of this source.
    More,
    /// With the end of the stream; no newline followed.
    Eof,
}

/// One numbered piece of what a machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// From 1, without gaps.
    pub number: u64,
    /// When it was read, in milliseconds since 1970, by the machine's clock.
    pub at_ms: u64,
    /// Who wrote it.
    pub source: Source,
    /// How it ends.
    pub end: End,
    /// The bytes, as they came; at most [`RECORD_BYTES_MAX`].
    pub bytes: Bytes,
}

impl Record {
    /// The bytes that it takes in a frame.
    pub fn framed_len(&self) -> usize {
        RECORD_HEAD_BYTES + self.bytes.len()
    }
}

/// Makes one frame of `records`, in their order. The caller keeps within [`FRAME_BYTES_MAX`].
pub fn encode<'a>(records: impl IntoIterator<Item = &'a Record> + Clone) -> Bytes {
    let bytes: usize = records.clone().into_iter().map(Record::framed_len).sum();
    let mut frame = BytesMut::with_capacity(1 + bytes);
    frame.put_u8(1);
    for record in records {
        frame.put_u64_le(record.number);
        frame.put_u64_le(record.at_ms);
        frame.put_u8(match record.source {
            Source::Claude => 0,
            Source::Stderr => 1,
            Source::Report => 2,
        });
        frame.put_u8(match record.end {
            End::Newline => 0,
            End::More => 1,
            End::Eof => 2,
        });
        frame.put_u32_le(u32::try_from(record.bytes.len()).expect("a record is far below 4 GiB"));
        frame.put_slice(&record.bytes);
    }
    frame.freeze()
}

/// Takes a frame apart without copying. The numbers must follow one another.
pub fn decode(mut frame: Bytes) -> Result<Vec<Record>, BadFrame> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(BadFrame::TooLong { bytes: frame.len() });
    }
    if frame.is_empty() || frame.get_u8() != 1 {
        return Err(BadFrame::Version);
    }
    let mut records: Vec<Record> = Vec::new();
    while frame.has_remaining() {
        if frame.remaining() < RECORD_HEAD_BYTES {
            return Err(BadFrame::Truncated);
        }
        let (number, at_ms) = (frame.get_u64_le(), frame.get_u64_le());
        let source = match frame.get_u8() {
            0 => Source::Claude,
            1 => Source::Stderr,
            2 => Source::Report,
            other => return Err(BadFrame::Tag { tag: other }),
        };
        let end = match frame.get_u8() {
            0 => End::Newline,
            1 => End::More,
            2 => End::Eof,
            other => return Err(BadFrame::Tag { tag: other }),
        };
        let bytes = frame.get_u32_le() as usize;
        if bytes > RECORD_BYTES_MAX {
            return Err(BadFrame::TooLong { bytes });
        }
        if frame.remaining() < bytes {
            return Err(BadFrame::Truncated);
        }
        let follows = records.last().map_or(number > 0, |last| last.number.checked_add(1) == Some(number));
        if !follows {
            return Err(BadFrame::Order { number });
        }
        records.push(Record { number, at_ms, source, end, bytes: frame.split_to(bytes) });
    }
    Ok(records)
}

/// A frame that no worker of ours sends. The link that carried it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Its first byte names no version that we speak.
    #[error("a frame of another version")]
    Version,
    /// It ends inside a record.
    #[error("a frame that ends inside a record")]
    Truncated,
    /// It, or a record in it, is longer than allowed.
    #[error("{bytes} bytes are more than a frame or record may have")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A source or an end that does not exist.
    #[error("unknown tag {tag}")]
    Tag {
        /// The tag.
        tag: u8,
    },
    /// A number that does not follow the one before.
    #[error("record {number} does not follow the one before")]
    Order {
        /// The number.
        number: u64,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let source = prop_oneof![Just(Source::Claude), Just(Source::Stderr), Just(Source::Report)];
        let end = prop_oneof![Just(End::Newline), Just(End::More), Just(End::Eof)];
        let piece = (any::<u64>(), source, end, proptest::collection::vec(any::<u8>(), 0..200));
        (1..u64::MAX / 2, proptest::collection::vec(piece, 0..20)).prop_map(|(first, pieces)| {
            let number = |i: usize| first + u64::try_from(i).expect("small");
            let record = |(i, (at_ms, source, end, bytes)): (usize, (u64, Source, End, Vec<u8>))| Record {
                number: number(i),
                at_ms,
                source,
                end,
                bytes: bytes.into(),
            };
            pieces.into_iter().enumerate().map(record).collect()
        })
    }

    proptest! {
        #[test]
        fn records_survive_the_frame(records in records()) {
            prop_assert_eq!(decode(encode(&records)), Ok(records));
        }

        #[test]
        fn a_frame_cut_anywhere_is_refused_or_holds_whole_records(records in records(), cut in any::<prop::sample::Index>()) {
            let frame = encode(&records);
            let cut = cut.index(frame.len());
            if let Ok(whole) = decode(frame.slice(..cut)) {
                prop_assert_eq!(&whole[..], &records[..whole.len()]);
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(bytes.into());
        }
    }

    #[test]
    fn a_record_over_the_bound_is_refused_by_its_length_alone() {
        let mut frame = BytesMut::from(&[1_u8][..]);
        frame.put_u64_le(1);
        frame.put_u64_le(0);
        frame.put_slice(&[0, 0]);
        frame.put_u32_le(u32::MAX);
        assert_eq!(decode(frame.freeze()), Err(BadFrame::TooLong { bytes: u32::MAX as usize }));
    }

    /// Covers R26 for the first message.
    #[test]
    fn a_hello_of_another_version_is_known_for_one_whatever_else_it_has() {
        let good = r#"{"protocol":1,"attempt":"a.1","ticket":"t","link":"l","later":{"x":1}}"#;
        assert_eq!(Hello::parse(good).expect("a hello").attempt, "a.1");
        assert_eq!(Hello::parse(r#"{"protocol":2,"tickets":[]}"#).expect_err("newer"), BadHello::Protocol(2));
        let words = BadHello::Protocol(2).to_string();
        assert!(words.contains("version 1 ") && words.ends_with("worker 2"), "{words}");
        for none in [r#"{"protocol":1}"#, r#"{"protocol":-1}"#, "[]", ""] {
            assert_eq!(Hello::parse(none).expect_err(none), BadHello::None);
        }
    }

    /// Covers R26 for the answer.
    #[test]
    fn what_a_later_orchestrator_adds_to_its_words_is_left_alone() {
        let ack = r#"{"type":"ack","stored":3,"later":true}"#;
        assert!(matches!(serde_json::from_str(ack), Ok(Down::Ack { stored: 3 })));
        let welcome = r#"{"type":"welcome","protocol":1,"stored":0,"later":1,"order":{"prompt":"p","workspace":null,
            "model":"m","session_id":"s","max_turns":null,"max_budget_usd":null,"claude_version":null,
            "model_token":"t","result_token":"t","collect_ms_max":1,"orphan_after_ms":1,"later":[]}}"#;
        assert!(matches!(serde_json::from_str(welcome), Ok(Down::Welcome { stored: 0, .. })));
    }

    #[test]
    fn numbers_must_start_above_zero_and_follow_one_another() {
        let record = |number| Record {
            number,
            at_ms: 0,
            source: Source::Claude,
            end: End::Newline,
            bytes: Bytes::from_static(b"{}"),
        };
        assert_eq!(decode(encode(&[record(0)])), Err(BadFrame::Order { number: 0 }));
        assert_eq!(decode(encode(&[record(3), record(5)])), Err(BadFrame::Order { number: 5 }));
    }
}
