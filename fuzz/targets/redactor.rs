//! No secret is left in a text, every other byte is, and where the text is cut changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_core::redact::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use mayfly_core::{Carry, Redacted, Redactor};

fuzz_target!(|input: (Vec<String>, Vec<u8>, Vec<u8>)| {
    let (secrets, text, cuts) = input;
    let redactor = Redactor::new(secrets.iter().map(String::as_str));
    let whole = redactor.piece(&mut Carry::default(), &text, false);
    assert_eq!(whole.bytes.len(), text.len());
    assert!(whole.bytes.iter().zip(&text).all(|(left, was)| left == was || *left == b'*'));
    assert_eq!(whole.places == 0, redactor.is_clean(&text, false));
    let lengths = SECRET_BYTES_MIN..=SECRET_BYTES_MAX;
    for secret in secrets.iter().filter(|secret| lengths.contains(&secret.len())) {
        let mut places = text.windows(secret.len()).enumerate().filter(|(_, part)| *part == secret.as_bytes());
        assert!(places.all(|(at, _)| whole.bytes[at..at + secret.len()].iter().all(|&byte| byte == b'*')));
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
