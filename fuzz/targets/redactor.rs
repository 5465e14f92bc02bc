//! No secret is left in a text, as it is or in hex, every other byte is, and where the text is cut changes nothing, also in
//! base64 over lines.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mayfly_core::redact::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use mayfly_core::{Carry, Redacted, Redactor};

/// A part of a text; a number names a secret.
#[derive(Debug, Arbitrary)]
enum Part {
    Bytes(Vec<u8>),
    Plain(u8),
    Hex(u8),
    Base64 { secret: u8, before: u8, columns: u8, line_break: u8 },
}

const BREAKS: [&str; 6] = ["\n", "\r\n", "\\n", "\\r\\n", "\\\\n", "\\\\r\\\\n"];

fn hex(secret: &[u8]) -> Vec<u8> {
    secret.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

fn write(part: Part, secrets: &[String], text: &mut Vec<u8>) {
    let secret = |at: u8| secrets.get(usize::from(at)).map_or(&[][..], |secret| secret.as_bytes());
    match part {
        Part::Bytes(bytes) => text.extend(bytes),
        Part::Plain(at) => text.extend_from_slice(secret(at)),
        Part::Hex(at) => text.extend(hex(secret(at))),
        Part::Base64 { secret: at, before, columns, line_break } => {
            let written = STANDARD.encode([&vec![b'x'; usize::from(before)], secret(at)].concat());
            let lines = written.as_bytes().chunks(usize::from(columns).max(1));
            let line_break = BREAKS[usize::from(line_break) % BREAKS.len()].as_bytes();
            text.extend(lines.collect::<Vec<_>>().join(line_break));
        }
    }
}

fuzz_target!(|input: (Vec<String>, Vec<Part>, Vec<u8>)| {
    let (secrets, parts, cuts) = input;
    let mut text = Vec::new();
    parts.into_iter().for_each(|part| write(part, &secrets, &mut text));
    let redactor = Redactor::new(secrets.iter().map(String::as_str));
    let whole = redactor.piece(&mut Carry::default(), &text, false);
    assert_eq!(whole.bytes.len(), text.len());
    assert!(whole.bytes.iter().zip(&text).all(|(left, was)| left == was || *left == b'*'));
    assert_eq!(whole.places == 0, redactor.is_clean(&text, false));
    let lengths = SECRET_BYTES_MIN..=SECRET_BYTES_MAX;
    for secret in secrets.iter().filter(|secret| lengths.contains(&secret.len())) {
        for written in [secret.as_bytes().to_vec(), hex(secret.as_bytes())] {
            let mut places = text.windows(written.len()).enumerate().filter(|(_, part)| *part == written);
            assert!(places.all(|(at, _)| whole.bytes[at..at + written.len()].iter().all(|&byte| byte == b'*')));
        }
    }
    let (mut carry, mut rest, mut cut) = (Carry::default(), &text[..], Redacted::default());
    let mut take = |carry: &mut Carry, piece: &[u8], goes_on: bool| {
        let part = redactor.piece(carry, piece, goes_on);
        cut.bytes.extend(part.bytes);
        cut.places += part.places;
    };
    for at in cuts {
        let (piece, after) = rest.split_at(usize::from(at).min(rest.len()));
        take(&mut carry, piece, true);
        carry = Carry::from_bytes(&carry.to_bytes()).expect("as it was stored");
        rest = after;
    }
    take(&mut carry, rest, false);
    assert!(carry.is_empty());
    assert_eq!(cut, whole);
});
