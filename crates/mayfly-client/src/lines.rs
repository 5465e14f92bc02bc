//! The lines of an event stream, out of the bytes that come.
//!
//! However the bytes arrive, the lines are the same. Numbers must follow one another, so that no event is missed or
//! told twice. There is no I/O here.
//!
//! Bound: [`LINE_BYTES_MAX`] a line, and one read.

use bytes::{Buf, BytesMut};
use serde::Deserialize;

use crate::ClientError;

/// The longest line: the longest record with every byte escaped, and its envelope.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What came of a stream and is not given yet.
#[derive(Debug)]
pub struct EventLines {
    /// The last event given.
    seq: u64,
    unread: BytesMut,
    /// How much of it is known to hold no line end.
    scanned: usize,
}

/// All that this reader looks at.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl EventLines {
    /// The lines of the events after `after`.
    pub fn after(after: u64) -> Self {
        Self { seq: after, unread: BytesMut::new(), scanned: 0 }
    }

    /// The number of the last event given.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// Whether no part of a line waits for the rest of it.
    pub fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Drops what is not given: a new connection brings it again.
    pub fn forget(&mut self) {
        self.unread.clear();
        self.scanned = 0;
    }

    /// The next whole line, without its line end.
    pub fn take(&mut self) -> Result<Option<String>, ClientError> {
        self.line()?.map(|line| self.accept(line)).transpose()
    }

    fn line(&mut self) -> Result<Option<BytesMut>, ClientError> {
        let found = self.unread[self.scanned..].iter().position(|&byte| byte == b'\n');
        let end = found.map(|at| self.scanned + at);
        self.scanned = end.unwrap_or(self.unread.len());
        if self.scanned > LINE_BYTES_MAX {
            return Err(ClientError::TooLong { bytes_max: LINE_BYTES_MAX });
        }
        let Some(end) = end else { return Ok(None) };
        let line = self.unread.split_to(end);
        self.unread.advance(1);
        self.scanned = 0;
        Ok(Some(line))
    }

    fn accept(&mut self, line: BytesMut) -> Result<String, ClientError> {
        let Numbered { seq } = serde_json::from_slice(&line).map_err(ClientError::Protocol)?;
        if self.seq.checked_add(1) != Some(seq) {
            return Err(ClientError::Gap { after: self.seq, seq });
        }
        let line = String::from_utf8(line.into());
        let line =
            line.map_err(|error| ClientError::Protocol(serde::de::Error::custom(error.utf8_error())))?;
        self.seq = seq;
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All lines of `bytes`, read in pieces of these sizes, over and over; and what ended them, if something did.
    fn read(bytes: &[u8], sizes: &[usize]) -> (Vec<String>, Option<String>) {
        let (mut lines, mut given, mut left) = (EventLines::after(0), Vec::new(), bytes);
        for size in sizes.iter().cycle() {
            let (piece, rest) = left.split_at((*size).min(left.len()));
            lines.push(piece);
            loop {
                match lines.take() {
                    Ok(Some(line)) => given.push(line),
                    Ok(None) => break,
                    Err(error) => return (given, Some(error.to_string())),
                }
            }
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        (given, None)
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let text = proptest::collection::vec(("[ -~\\u{80}-\\u{3000}]{0,30}", 0..40_u8), 0..9);
        text.prop_map(|texts| {
            let line = |(at, (text, odd)): (usize, (String, u8))| match odd {
                0 => b"{\"seq\":1,\"x\":\"\xff\"}\n".to_vec(),
                1 => format!("{text}\n").into_bytes(),
                _ => format!("{}\n", serde_json::json!({ "text": text, "seq": at + 1 })).into_bytes(),
            };
            texts.into_iter().enumerate().flat_map(line).collect()
        })
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(stream in stream(), sizes in proptest::collection::vec(1..50_usize, 1..5)) {
            let whole = read(&stream, &[stream.len().max(1)]);
            prop_assert_eq!(read(&stream, &sizes), whole.clone());
            let given = whole.0.iter().flat_map(|line| [line.as_bytes(), b"\n"]).collect::<Vec<_>>().concat();
            prop_assert!(stream.starts_with(&given), "no byte is another");
        }
    }

    /// However it comes, a line over the bound is none.
    #[test]
    fn a_line_over_the_bound_is_refused_whole_or_in_pieces() {
        let mut long = br#"{"seq":1,"text":""#.to_vec();
        long.resize(LINE_BYTES_MAX - 2, b'x');
        long.extend_from_slice(b"\"}\n");
        for sizes in [[1_000_000], [long.len() + 1]] {
            assert_eq!(read(&long, &sizes).0.len(), 1);
        }
        long.splice(17..17, *b"y");
        for sizes in [[1_000_000], [long.len() + 1]] {
            let (given, error) = read(&long, &sizes);
            assert!(given.is_empty() && error.is_some_and(|error| error.contains("is longer than")));
        }
    }
}
