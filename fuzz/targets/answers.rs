//! Whatever a model API answers is read to its end, and a stream is counted the same wherever it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_gateway::count::Reader;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (kind, pieces) = input;
    let kind = [Some("text/event-stream"), Some("application/json"), Some("text/html"), None][usize::from(kind % 4)];
    let (mut cut, mut whole) = (Reader::new(kind), Reader::new(kind));
    pieces.iter().for_each(|piece| cut.read(piece));
    whole.read(&pieces.concat());
    let (cut, whole) = (cut.used(), whole.used());
    assert_eq!(cut, whole);
    assert!(whole.input_tokens <= 1 << 32 && whole.output_tokens <= 1 << 32);
});
