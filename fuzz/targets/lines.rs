//! The output of `claude`, split into records: however it arrives, the records are those of the whole, and their bytes
//! are what was written.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mayfly_wire::worker::{End, RECORD_BYTES_MAX};
use mayfly_worker::Lines;

/// The most long runs of one output.
const LONG_MAX: usize = 2;

#[derive(Debug, Arbitrary)]
enum Piece {
    Bytes(Vec<u8>),
    /// A run of one byte of about the length of a record; seldom, since it takes its time, and not where an input ends.
    Long {
        byte: u8,
        off: i8,
        seldom: u8,
    },
}

#[derive(Debug, Arbitrary)]
struct Output {
    pieces: Vec<Piece>,
    sizes: Vec<u16>,
    /// How much larger each read is.
    scale: u8,
}

fuzz_target!(|output: Output| {
    let Output { pieces, sizes, scale } = output;
    let (mut written, mut left) = (Vec::new(), LONG_MAX);
    for piece in pieces.iter().take(8) {
        match piece {
            Piece::Bytes(bytes) => written.extend_from_slice(bytes),
            Piece::Long { byte, off, seldom: 255 } if left > 0 => {
                left -= 1;
                let len = RECORD_BYTES_MAX.checked_add_signed(isize::from(*off)).expect("in range");
                written.resize(written.len() + len, *byte);
            }
            Piece::Long { .. } => {}
        }
    }
    // Enough reads of a few bytes for short outputs, and few for long ones.
    let least = 1 + written.len() / 64;
    let sizes: Vec<usize> =
        sizes.iter().map(|size| least + usize::from(*size) * usize::from(scale)).collect();
    let records = split(&written, &sizes);
    assert_eq!(records, expected(&written));
});

fn split(written: &[u8], sizes: &[usize]) -> Vec<(Bytes, End)> {
    let (mut lines, mut records, mut left) = (Lines::default(), Vec::new(), written);
    for size in sizes.iter().copied().chain(std::iter::repeat(usize::MAX)) {
        let (piece, rest) = left.split_at(size.min(left.len()));
        lines.room().extend_from_slice(piece);
        records.extend(std::iter::from_fn(|| lines.take()));
        left = rest;
        if left.is_empty() {
            break;
        }
    }
    records.extend(lines.rest());
    records
}

/// The same, said once more in the plainest way.
fn expected(written: &[u8]) -> Vec<(Bytes, End)> {
    let mut records = Vec::new();
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        let (mut line, end) = match line.strip_suffix(b"\n") {
            Some(line) => (line, End::Newline),
            None => (line, End::Eof),
        };
        while line.len() > RECORD_BYTES_MAX {
            let (piece, rest) = line.split_at(RECORD_BYTES_MAX);
            records.push((Bytes::copy_from_slice(piece), End::More));
            line = rest;
        }
        records.push((Bytes::copy_from_slice(line), end));
    }
    records
}
