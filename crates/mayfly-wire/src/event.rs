//! One record of a task's log, as clients read it: an object on a line of its own.
//!
//! ```json
//! {"task":"…","attempt":1,"seq":42,"at":"2026-01-01T00:00:00.000Z","source":"claude","line":{…}}
//! ```
//!
//! `source` is `claude`, `stderr` or `mayfly`. What `claude` wrote is carried as the very bytes that it
//! wrote: as `line` if they are JSON, as `text` if they are only UTF-8, else as base64 in `bytes`. `"end"` is
//! there only when no newline followed: `more` (the line goes on in the next event of this source) or `eof`.
//! `"redacted"` is there only where secrets were in the bytes: how many stretches of them are `*` instead.
//! An event of mayfly's own is in `event`; readers ignore types and fields that they do not know.
//!
//! [`Envelope::write`] makes the line without parsing what it carries; [`Event::raw`] gives the bytes back.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use memchr::memchr2;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{Collected, Merged, Outcome};
use crate::worker::End;

/// What an event's line has at least beside the bytes that it carries.
pub const LINE_BYTES_MIN: usize = 126;

/// What mayfly itself tells about a task. The list is closed: a new type is a new version of the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum MayflyEvent {
    /// The task waits for a free slot.
    Queued,
    /// What it gets of the library, from its beginning to its end.
    Locked {
        /// The SHA-256 of its lock.
        lock: String,
        /// How many resources these are.
        resources: usize,
        /// Those that it would have if another of the same kind and name did not stand before it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shadowed: Vec<String>,
        /// What its settings and hooks come to.
        #[serde(default, skip_serializing_if = "Merged::is_empty")]
        merged: Merged,
    },
    /// It goes on where another task ended.
    Resumes {
        /// That task, by its whole id.
        task: String,
    },
    /// A machine is asked for.
    Launching {
        /// The place that makes it.
        provider: String,
    },
    /// The machine's worker is connected.
    Running,
    /// `claude` is about to be started.
    Started,
    /// `claude` runs as it was asked to.
    Ready {
        /// The version of `claude`.
        version: String,
        /// Its model.
        model: String,
    },
    /// The work as it was at a moment is safe: a machine that is lost loses what was changed after that. Where there is
    /// none later, nothing was changed that could be seen.
    Checkpoint {
        /// Its number in the attempt; some may be missing.
        number: u64,
        /// That moment.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        as_of: Timestamp,
        /// How many files differ from those that the task began with.
        files: u64,
        /// What had to be sent for it, after those before it.
        bytes: u64,
    },
    /// `claude` is over or being stopped; the work is brought out.
    Collecting {
        /// How the task will end.
        outcome: Outcome,
    },
    /// The work is safe, or what is left of it: of a machine that was lost, what its last checkpoint holds.
    Collected {
        /// What it is.
        result: Collected,
    },
    /// The machine is being destroyed.
    Releasing,
    /// The attempt was lost before `claude` started, or failed and retries were asked for; another follows.
    Requeued {
        /// What became of it.
        detail: String,
        /// Before when the other is not begun.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        due_at: Option<Timestamp>,
    },
    /// The task is over; no machine of it is left.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
    /// A tool call was denied, or a place that the machine asked for: the first time for each host.
    Denied {
        /// The tool; `network` for a place.
        tool: String,
        /// What `claude` was told.
        message: String,
        /// The host and the port of a place, or whatever was asked for instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// A limit of the model API was met.
    Limit {
        /// Which kind it is. What earlier versions told were usage limits.
        #[serde(default)]
        kind: LimitKind,
        /// Its name as the CLI has it, such as `five_hour`.
        limit: String,
        /// When it ends, in seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resets_at: Option<i64>,
    },
    /// Something in a repository that is not trusted does not count.
    Ignored {
        /// The file's path in the repository.
        file: String,
        /// Its keys, or other parts of it; none is the whole file.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<String>,
    },
    /// Something that the user should know.
    Warning {
        /// What.
        text: String,
    },
    /// A type that this reader does not know.
    #[serde(other)]
    Unknown,
}

/// The limits of a model API, told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// A subscription's share is used up until its reset.
    #[default]
    UsageLimit,
    /// Too many requests or tokens at once: 429.
    RateLimit,
    /// The service has more to do than it can: 529.
    Overload,
    /// A kind that this reader does not know.
    #[serde(other)]
    Unknown,
}

impl LimitKind {
    /// The one word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UsageLimit => "usage-limit",
            Self::RateLimit => "rate-limit",
            Self::Overload => "overload",
            Self::Unknown => "limit",
        }
    }
}

/// Who an event is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventSource {
    /// The standard output of `claude`.
    Claude,
    /// The standard error of `claude`.
    Stderr,
    /// mayfly itself.
    Mayfly,
}

/// An event on its way out: what is needed to write its line.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The task, written as it is.
    pub task: &'a str,
    /// The attempt; 0 before the first.
    pub attempt: u32,
    /// The event's number in the task's log, from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// From whom.
    pub source: EventSource,
    /// How the bytes end.
    pub end: End,
    /// The bytes: of a [`MayflyEvent`] as JSON, or what `claude` wrote.
    pub bytes: &'a [u8],
    /// Whether the bytes are one JSON value; known since they were stored.
    pub json: bool,
    /// How many stretches of the bytes are masked.
    pub redacted: u32,
}

impl Envelope<'_> {
    /// Appends the event's line, with its newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (source, body): (&[u8], &[u8]) = match self.source {
            EventSource::Claude => (b"claude", br#","line":"#),
            EventSource::Stderr => (b"stderr", br#","line":"#),
            EventSource::Mayfly => (b"mayfly", br#","event":"#),
        };
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        put(br#"{"task":""#);
        put(self.task.as_bytes());
        put(br#"","attempt":"#);
        put(Decimal::of(self.attempt.into()).digits());
        put(br#","seq":"#);
        put(Decimal::of(self.seq).digits());
        put(br#","at":""#);
        put_time(out, self.at);
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        put(br#"","source":""#);
        put(source);
        put(match self.end {
            End::Newline => br#"""#,
            End::More => br#"","end":"more""#,
            End::Eof => br#"","end":"eof""#,
        });
        if self.redacted > 0 {
            put(br#","redacted":"#);
            put(Decimal::of(self.redacted.into()).digits());
        }
        if self.json {
            put(body);
            put(self.bytes);
        } else if let Ok(text) = std::str::from_utf8(self.bytes) {
            put(br#","text":"#);
            serde_json::to_writer(&mut *out, text).expect("a Vec takes every byte");
        } else {
            put(br#","bytes":""#);
            put(STANDARD.encode(self.bytes).as_bytes());
            put(br#"""#);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// A number in decimal. A log has millions of them: the usual way of writing takes longer than all the rest.
struct Decimal {
    buffer: [u8; 20],
    start: usize,
}

impl Decimal {
    fn of(mut number: u64) -> Self {
        let (mut buffer, mut start) = ([b'0'; 20], 20);
        loop {
            start -= 1;
            buffer[start] += u8::try_from(number % 10).expect("a digit");
            number /= 10;
            if number == 0 {
                return Self { buffer, start };
            }
        }
    }

    fn digits(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// With at least so many digits.
    fn padded(&self, digits: usize) -> &[u8] {
        &self.buffer[self.start.min(20 - digits)..]
    }
}

/// Writes a time to the millisecond, as `{at:.3}` does.
fn put_time(out: &mut Vec<u8>, at: Timestamp) {
    const DAY_MS: i64 = 86_400_000;
    let ms = at.as_millisecond();
    let Some(days) = u64::try_from(ms).ok().map(|ms| ms / DAY_MS.unsigned_abs()) else {
        return out.extend_from_slice(format!("{at:.3}").as_bytes());
    };
    let (year, month, day) = civil(days);
    let in_day = ms.unsigned_abs() % DAY_MS.unsigned_abs();
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (in_day / 3_600_000, 2, b':'),
        (in_day / 60_000 % 60, 2, b':'),
        (in_day / 1000 % 60, 2, b'.'),
        (in_day % 1000, 3, b'Z'),
    ];
    for (number, digits, end) in parts {
        out.extend_from_slice(Decimal::of(number).padded(digits));
        out.push(end);
    }
}

/// Year, month and day of a number of days after 1970 began: counted from a 1 March, so that a leap day is a year's last,
/// in eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, in_era) = (days / 146_097, days % 146_097);
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Whether `bytes` can stand as `line`: one JSON value, nested no deeper than readers can follow, with no
/// white space around it, which a reader of JSON would not give back, and on one line: a line end within would
/// begin what looks like an event of ours.
pub fn is_json(bytes: &[u8]) -> bool {
    let bare = |end: Option<&u8>| end.is_some_and(|byte| !byte.is_ascii_whitespace());
    bare(bytes.first())
        && bare(bytes.last())
        && memchr2(b'\n', b'\r', bytes).is_none()
        && std::str::from_utf8(bytes)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// An event as it arrives.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event<'a> {
    /// The task.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub task: Cow<'a, str>,
    /// The attempt; 0 before the first.
    pub attempt: u32,
    /// The number in the task's log.
    pub seq: u64,
    /// When.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// From whom.
    pub source: EventSource,
    /// Absent where a newline followed.
    #[serde(default)]
    end: Option<WireEnd>,
    /// How many stretches of what follows were secrets, and are `*` instead. Absent where there was none.
    #[serde(default)]
    pub redacted: Option<u32>,
    /// JSON that `claude` wrote.
    #[serde(borrow, default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub line: Option<&'a RawValue>,
    /// Other text that it wrote.
    #[serde(default)]
    pub text: Option<String>,
    /// Other bytes that it wrote, in base64.
    #[serde(default)]
    bytes: Option<String>,
    /// What mayfly says.
    #[serde(default)]
    pub event: Option<MayflyEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
enum WireEnd {
    More,
    Eof,
}

impl<'a> Event<'a> {
    /// Reads one line.
    pub fn parse(line: &'a str) -> Result<Self, BadEvent> {
        serde_json::from_str(line).map_err(BadEvent)
    }

    /// The very bytes that `claude` wrote, with the newline if there was one.
    pub fn raw(&self) -> Vec<u8> {
        let mut raw = match (self.line, &self.text, &self.bytes) {
            (Some(line), ..) => line.get().as_bytes().to_vec(),
            (_, Some(text), _) => text.clone().into_bytes(),
            (.., Some(bytes)) => STANDARD.decode(bytes).unwrap_or_default(),
            (None, None, None) => Vec::new(),
        };
        if self.end.is_none() {
            raw.push(b'\n');
        }
        raw
    }
}

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
#[error("a line of the event stream is not an event")]
pub struct BadEvent(#[source] serde_json::Error);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_line_is_shorter_than_the_shortest() {
        // Its number has a digit more than the first.
        assert_eq!(written(b"1", End::Newline).len(), "1".len() + LINE_BYTES_MIN + 1);
        for more in [&b"x"[..], b"", b"\xff"] {
            assert!(written(more, End::Newline).len() > more.len() + LINE_BYTES_MIN);
        }
    }

    fn written(bytes: &[u8], end: End) -> String {
        redacted(bytes, end, 0)
    }

    fn redacted(bytes: &[u8], end: End, redacted: u32) -> String {
        let task = "0193b2c4-0000-7000-8000-0123456789ab";
        let at = Timestamp::from_millisecond(1_767_225_600_000).expect("in range");
        let json = end != End::More && is_json(bytes);
        let envelope = Envelope {
            task,
            attempt: 1,
            seq: 42,
            at,
            source: EventSource::Claude,
            end,
            bytes,
            json,
            redacted,
        };
        let mut out = Vec::new();
        envelope.write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn the_line_of_an_event_is_as_documented() {
        insta::assert_snapshot!(written(br#"{"type": "x", "n":1e400}"#, End::Newline), @r#"{"task":"0193b2c4-0000-7000-8000-0123456789ab","attempt":1,"seq":42,"at":"2026-01-01T00:00:00.000Z","source":"claude","line":{"type": "x", "n":1e400}}"#);
        insta::assert_snapshot!(written(b"half a li", End::Eof), @r#"{"task":"0193b2c4-0000-7000-8000-0123456789ab","attempt":1,"seq":42,"at":"2026-01-01T00:00:00.000Z","source":"claude","end":"eof","text":"half a li"}"#);
        insta::assert_snapshot!(written(b"\xff\xfe", End::More), @r#"{"task":"0193b2c4-0000-7000-8000-0123456789ab","attempt":1,"seq":42,"at":"2026-01-01T00:00:00.000Z","source":"claude","end":"more","bytes":"//4="}"#);
    }

    #[test]
    fn an_event_says_how_much_of_it_was_masked() {
        let line = redacted(b"key ********", End::Eof, 1);
        assert!(line.contains(r#""end":"eof","redacted":1,"text":"key ********"}"#), "{line}");
        assert_eq!(Event::parse(&line).expect("an event").redacted, Some(1));
    }

    #[test]
    fn a_limit_of_an_earlier_version_is_a_usage_limit_and_of_a_later_one_unknown() {
        let kind = |json: &str| match serde_json::from_str(json).expect("an event") {
            MayflyEvent::Limit { kind, .. } => kind.name(),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(r#"{"type":"limit","limit":"five_hour"}"#), "usage-limit");
        assert_eq!(kind(r#"{"type":"limit","kind":"overload","limit":"overloaded"}"#), "overload");
        assert_eq!(kind(r#"{"type":"limit","kind":"tide","limit":"high"}"#), "limit");
    }

    proptest! {
        /// As the library writes it, over all the time that there is.
        #[test]
        fn times_and_numbers_are_written_as_usual(
            ms in prop_oneof![
                Timestamp::MIN.as_millisecond()..=Timestamp::MAX.as_millisecond(),
                0..5_000_000_000_000_i64,
            ],
            number in any::<u64>(),
            shift in 0..64_u32,
        ) {
            let at = Timestamp::from_millisecond(ms).expect("in range");
            let mut out = Vec::new();
            put_time(&mut out, at);
            prop_assert_eq!(String::from_utf8(out).expect("ASCII"), format!("{at:.3}"));
            let number = number >> shift;
            let (written, usual) = (Decimal::of(number), number.to_string());
            prop_assert_eq!(written.digits(), usual.as_bytes());
        }

        /// S35, S36: whatever `claude` writes comes back byte for byte.
        #[test]
        fn what_claude_wrote_comes_back(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..100),
                r#"[ \r]{0,2}\{"[a-z\u{2028}]{0,5}": ?(1e400|null|"x\\ud800")\}[ \r]{0,2}"#.prop_map(String::into_bytes),
            ],
            end in prop_oneof![Just(End::Newline), Just(End::More), Just(End::Eof)],
        ) {
            let bytes: Vec<u8> = bytes.into_iter().filter(|&byte| byte != b'\n').collect();
            let line = written(&bytes, end);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let event = Event::parse(&line).expect("an event");
            let mut expected = bytes;
            if end == End::Newline {
                expected.push(b'\n');
            }
            prop_assert_eq!(event.raw(), expected);
        }
    }

    /// S35: the reader of JSON skips over a string without looking whether it is UTF-8.
    #[test]
    fn a_string_that_is_not_utf_8_is_no_json() {
        assert!(is_json(b"{\"a\":\"b\"}"));
        assert!(!is_json(b"{\"a\":\"\xff\"}"));
    }

    /// S34, S42: a machine that writes records of its own cannot put an event of ours into the log.
    #[test]
    fn json_over_several_lines_does_not_stand_as_a_line() {
        assert!(!is_json(b"[0,\n{\"task\":\"t\"}\n]"));
        assert!(!is_json(b"[0,\r0]"));
    }

    #[test]
    fn an_event_of_a_later_version_is_unknown_and_no_error() {
        let line = r#"{"task":"t","attempt":1,"seq":1,"at":"2026-01-01T00:00:00Z","source":"mayfly","event":{"type":"sung","by":"a bird"},"new":1}"#;
        assert_eq!(Event::parse(line).expect("an event").event, Some(MayflyEvent::Unknown));
    }
}
