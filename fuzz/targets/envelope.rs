//! Whatever `claude` writes becomes one line of the event stream, and comes out of it as the same bytes.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use mayfly_wire::event::{Envelope, Event, EventSource, is_json};
use mayfly_wire::worker::End;

const TASK: &str = "0193b2c4-0000-7000-8000-0123456789ab";

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (kind, bytes) = input;
    let end = [End::Newline, End::More, End::Eof][usize::from(kind % 3)];
    let source = [EventSource::Claude, EventSource::Stderr][usize::from(kind / 3 % 2)];
    // A record never has a newline in it, but a report of the worker's own might.
    let json = end != End::More && is_json(&bytes);
    let at = Timestamp::UNIX_EPOCH;
    let envelope = Envelope { task: TASK, attempt: 1, seq: 42, at, source, end, bytes: &bytes, json, redacted: 0 };
    let mut line = Vec::new();
    envelope.write(&mut line);
    let line = String::from_utf8(line).expect("UTF-8, whatever it carries");
    let line = line.strip_suffix('\n').expect("a line");
    assert!(!line.contains(['\n', '\r']));
    let event = Event::parse(line).expect("ours");
    let numbered = (&*event.task, event.attempt, event.seq, event.source);
    assert_eq!(numbered, (TASK, 1, 42, source));
    assert!(event.event.is_none(), "what claude writes is never a word of ours");
    let mut expected = bytes.clone();
    expected.extend((end == End::Newline).then_some(b'\n'));
    assert_eq!(event.raw(), expected);
});
