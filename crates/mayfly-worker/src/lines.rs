//! Splits an output of `claude` into records, as opaque bytes.
//!
//! A record is a line without its newline; a line of more than [`RECORD_BYTES_MAX`] is several, of which all
//! but the last end with [`End::More`]. However the bytes arrive, the records are the same, and their bytes
//! with their newlines are what was written. There is no I/O here.
//!
//! Bound: one record and one read.

use bytes::{Bytes, BytesMut};
use mayfly_wire::worker::{End, RECORD_BYTES_MAX};
use memchr::memchr;

/// What is asked for with one read.
const READ_BYTES: usize = 64 * 1024;

/// The bytes that have been read and make no whole record yet.
#[derive(Debug, Default)]
pub struct Lines {
    read: BytesMut,
    /// How many of them are known to hold no newline.
    searched: usize,
}

impl Lines {
    /// Where the next bytes are to be read to.
    pub fn room(&mut self) -> &mut BytesMut {
        self.read.reserve(READ_BYTES);
        &mut self.read
    }

    /// The next record, if there is a whole one.
    pub fn take(&mut self) -> Option<(Bytes, End)> {
        let within = self.read.len().min(RECORD_BYTES_MAX + 1);
        if let Some(found) = memchr(b'\n', &self.read[self.searched..within]) {
            let line = self.read.split_to(self.searched + found + 1).freeze();
            self.searched = 0;
            return Some((line.slice(..line.len() - 1), End::Newline));
        }
        self.searched = within;
        if within <= RECORD_BYTES_MAX {
            return None;
        }
        self.searched = 0;
        Some((self.read.split_to(RECORD_BYTES_MAX).freeze(), End::More))
    }

    /// What is left when the stream is over, once [`Lines::take`] gives no more.
    pub fn rest(self) -> Option<(Bytes, End)> {
        (!self.read.is_empty()).then(|| (self.read.freeze(), End::Eof))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The records of `bytes`, read in pieces of these sizes, over and over.
    fn split(bytes: &[u8], sizes: &[usize]) -> Vec<(Bytes, End)> {
        let (mut lines, mut records, mut left) = (Lines::default(), Vec::new(), bytes);
        for size in sizes.iter().cycle() {
            let (piece, rest) = left.split_at((*size).min(left.len()));
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

    fn joined(records: &[(Bytes, End)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (record, end) in records {
            bytes.extend_from_slice(record);
            bytes.extend((*end == End::Newline).then_some(b'\n'));
        }
        bytes
    }

    /// Lines of hostile bytes, some of about the length of a record.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let odd = prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), Just(0xff), any::<u8>()];
        let short = proptest::collection::vec(odd, 0..300);
        let long = (-2..3_i64).prop_map(|off| {
            let mut line =
                vec![b'x'; usize::try_from(i64::try_from(RECORD_BYTES_MAX).unwrap() + off).unwrap()];
            line.push(b'\n');
            line
        });
        proptest::collection::vec(prop_oneof![8 => short, 1 => long], 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Covers S35.
        #[test]
        fn any_chunking_gives_the_same_records_and_loses_no_byte(
            output in output(),
            sizes in proptest::collection::vec(1..200_000_usize, 1..8),
        ) {
            let records = split(&output, &sizes);
            prop_assert_eq!(joined(&records), output.clone());
            prop_assert!(records == split(&output, &[output.len().max(1)]), "the chunks show");
            prop_assert!(records.iter().all(|(record, _)| record.len() <= RECORD_BYTES_MAX));
        }
    }

    #[test]
    fn a_carriage_return_stays_and_a_missing_newline_shows() {
        let records = split(b"a\r\n\nb", &[1]);
        let expected: [(&[u8], End); 3] = [(b"a\r", End::Newline), (b"", End::Newline), (b"b", End::Eof)];
        assert_eq!(records, expected.map(|(bytes, end)| (Bytes::from_static(bytes), end)));
    }

    #[test]
    fn a_line_of_exactly_one_record_is_one_record() {
        let mut line = vec![b'x'; RECORD_BYTES_MAX];
        line.push(b'\n');
        assert_eq!(split(&line, &[1000]).len(), 1);
        line.insert(0, b'x');
        let ends: Vec<_> = split(&line, &[1000]).into_iter().map(|(bytes, end)| (bytes.len(), end)).collect();
        assert_eq!(ends, [(RECORD_BYTES_MAX, End::More), (1, End::Newline)]);
    }
}
