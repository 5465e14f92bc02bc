//! An event stream as the client reads it: however it arrives, the lines are the same, their numbers follow one
//! another, and no byte of them is another.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_client::EventLines;
use mayfly_wire::event::Event;

/// The first bytes are how much is read at once, at first.
const SIZES: usize = 8;

fuzz_target!(|input: &[u8]| {
    let (sizes, stream) = input.split_at(SIZES.min(input.len()));
    let pieces = read(stream, sizes.iter().map(|size| usize::from(*size)));
    let whole = read(stream, std::iter::empty());
    assert_eq!(pieces, whole);
    let given: String = whole.0.iter().map(|line| format!("{line}\n")).collect();
    assert!(stream.starts_with(given.as_bytes()));
    for line in &whole.0 {
        let _ = Event::parse(line).map(|event| event.raw());
    }
});

/// The lines, and what ended them, if something did.
fn read(stream: &[u8], sizes: impl Iterator<Item = usize>) -> (Vec<String>, Option<String>) {
    let (mut lines, mut given, mut left) = (EventLines::after(0), Vec::new(), stream);
    for size in sizes.chain(std::iter::repeat(usize::MAX)) {
        let (piece, rest) = left.split_at(size.min(left.len()));
        lines.push(piece);
        loop {
            match lines.take() {
                Ok(Some(line)) => given.push(line),
                Ok(None) => break,
                Err(error) => return (given, Some(error.to_string())),
            }
            assert_eq!(lines.seq(), given.len() as u64);
        }
        left = rest;
        if left.is_empty() {
            return (given, None);
        }
    }
    unreachable!("the last piece is all that is left")
}
