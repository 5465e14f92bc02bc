//! A bundle, read through while it arrives: what [`read_through`](crate::read_through) gives, without git, a second look at
//! the disk, or memory for more than a piece.
//!
//! ```text
//! header │ PACK, number │ kind and length, zlib │ kind and length, zlib │ ... │ hash
//! ```
//!
//! What is not quite so is not read to its end, and is git's to judge: an object that is told as a difference to another, as
//! git makes them of what it has packed before, and whatever is broken. The hash is not compared, and no object is checked:
//! that is done where they enter a repository.
//!
//! Bounds: [`HEADER_BYTES_MAX`], [`PIECE_BYTES`] in memory, [`CONTENTS_BYTES_MAX`](crate::CONTENTS_BYTES_MAX)
//! in all.

use std::fmt;
use std::ops::ControlFlow;

use flate2::{Decompress, FlushDecompress, Status};

use crate::contents::bounded;
use crate::land::{HEADER_BYTES_MAX, begins_as_bundle, heads_in};

/// What is given at once.
const PIECE_BYTES: usize = 256 * 1024;
/// What a pack begins with; its version is 2 or 3, and the number of its objects follows.
const PACK: &[u8; 7] = b"PACK\0\0\0";
const PACK_HEAD_BYTES: usize = 12;
/// The kinds of objects that are whole by themselves, from 1 on.
const KINDS: [&[u8]; 4] = [b"commit\n", b"tree\n", b"blob\n", b"tag\n"];

/// Takes what is read, until it has enough.
type Each<'a> = Box<dyn FnMut(&[u8]) -> ControlFlow<()> + Send + 'a>;

/// A bundle that arrives.
pub struct Arriving<'a> {
    each: Each<'a>,
    stage: Stage,
    /// What has come of a header, whose end has not.
    begun: Vec<u8>,
    /// How many objects are to come, and how long a hash is.
    left: u32,
    hash_bytes: usize,
    inflate: Decompress,
    /// What is to be given next, and how much of it there is.
    piece: Vec<u8>,
    filled: usize,
}

impl fmt::Debug for Arriving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving")
            .field("stage", &self.stage)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Pack,
    /// The head of an object.
    Head,
    /// The rest of an object, which is so much longer.
    Content(u64),
    Hash,
    /// Whoever reads it has enough, or there is too much.
    Enough,
    /// It is not for us.
    Other,
}

/// It cannot be read without git.
struct NotPlain;

impl<'a> Arriving<'a> {
    /// Gives the names in it, and all that it holds, to `each`, in pieces, until that has enough.
    pub fn new(each: impl FnMut(&[u8]) -> ControlFlow<()> + Send + 'a) -> Self {
        Self {
            each: Box::new(bounded(each)),
            stage: Stage::Header,
            begun: Vec::new(),
            left: 0,
            hash_bytes: 0,
            inflate: Decompress::new(true),
            piece: vec![0; PIECE_BYTES],
            filled: 0,
        }
    }

    /// Reads on.
    pub fn read(&mut self, mut arrived: &[u8]) {
        while !arrived.is_empty() && !matches!(self.stage, Stage::Enough | Stage::Other) {
            match self.step(&mut arrived) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => self.stage = Stage::Enough,
                Err(NotPlain) => self.stage = Stage::Other,
            }
        }
    }

    /// Nothing more comes: whether all was read. `None`: it is for git to read.
    pub fn over(mut self) -> Option<bool> {
        match self.stage {
            Stage::Hash if self.begun.len() == self.hash_bytes => {
                Some((self.each)(&self.piece[..self.filled]).is_continue())
            }
            Stage::Enough => Some(false),
            _ => None,
        }
    }

    fn step(&mut self, arrived: &mut &[u8]) -> Result<ControlFlow<()>, NotPlain> {
        match self.stage {
            Stage::Header => self.header(arrived),
            Stage::Pack => self.pack(arrived),
            Stage::Head => self.head(arrived),
            Stage::Content(left) => self.content(arrived, left),
            Stage::Hash => {
                self.begun.extend_from_slice(arrived);
                *arrived = &[];
                if self.begun.len() > self.hash_bytes { Err(NotPlain) } else { Ok(ControlFlow::Continue(())) }
            }
            Stage::Enough | Stage::Other => Ok(ControlFlow::Break(())),
        }
    }

    fn header(&mut self, arrived: &mut &[u8]) -> Result<ControlFlow<()>, NotPlain> {
        let byte = self.take(arrived);
        if byte != b'\n' || !self.begun.ends_with(b"\n\n") {
            let is_long = self.begun.len() as u64 >= HEADER_BYTES_MAX;
            return if is_long { Err(NotPlain) } else { Ok(ControlFlow::Continue(())) };
        }
        let header = std::mem::take(&mut self.begun);
        let heads = heads_in(&*header).map_err(|_| NotPlain)?;
        if !begins_as_bundle(&header) {
            return Err(NotPlain);
        }
        self.hash_bytes = heads.work.len() / 2;
        self.stage = Stage::Pack;
        Ok(self.give(&heads.names))
    }

    fn pack(&mut self, arrived: &mut &[u8]) -> Result<ControlFlow<()>, NotPlain> {
        self.take(arrived);
        if let Some(head) = self.begun.first_chunk::<PACK_HEAD_BYTES>() {
            let [.., version, a, b, c, d] = *head;
            if !head.starts_with(PACK) || !matches!(version, 2 | 3) {
                return Err(NotPlain);
            }
            self.left = u32::from_be_bytes([a, b, c, d]);
            self.next();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Seven bits of a length in a byte, after a kind; the first bit is set in all but the last.
    fn head(&mut self, arrived: &mut &[u8]) -> Result<ControlFlow<()>, NotPlain> {
        let byte = self.take(arrived);
        if byte & 0x80 != 0 {
            // More bits than a length has.
            return if self.begun.len() > 9 { Err(NotPlain) } else { Ok(ControlFlow::Continue(())) };
        }
        let kind = usize::from(self.begun[0] >> 4 & 7);
        let kind = kind.checked_sub(1).and_then(|kind| KINDS.get(kind)).ok_or(NotPlain)?;
        let more = self.begun.iter().skip(1).rev();
        let more = more.fold(0, |bits: u64, byte| bits << 7 | u64::from(byte & 0x7f));
        let length = more.checked_mul(16).ok_or(NotPlain)? | u64::from(self.begun[0] & 0xf);
        self.begun.clear();
        self.inflate.reset(true);
        self.stage = Stage::Content(length);
        Ok(self.give(kind))
    }

    fn content(&mut self, arrived: &mut &[u8], left: u64) -> Result<ControlFlow<()>, NotPlain> {
        let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
        let room = &mut self.piece[self.filled..];
        let status = self.inflate.decompress(arrived, room, FlushDecompress::None).map_err(|_| NotPlain)?;
        let (taken, given) = (self.inflate.total_in() - taken, self.inflate.total_out() - given);
        let left = left.checked_sub(given).ok_or(NotPlain)?;
        let is_over = status == Status::StreamEnd;
        if taken == 0 && given == 0 && !is_over || is_over && left > 0 {
            return Err(NotPlain);
        }
        let whole = "no more than there is";
        *arrived = &arrived[usize::try_from(taken).expect(whole)..];
        self.filled += usize::try_from(given).expect(whole);
        self.stage = Stage::Content(left);
        let flow = self.flush();
        if !is_over || flow.is_break() {
            return Ok(flow);
        }
        self.left -= 1;
        self.next();
        Ok(self.give(b"\n"))
    }

    /// Gives this after what waits.
    fn give(&mut self, mut bytes: &[u8]) -> ControlFlow<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.filled));
            self.piece[self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            self.flush()?;
        }
        ControlFlow::Continue(())
    }

    /// Gives what waits, if it is enough.
    fn flush(&mut self) -> ControlFlow<()> {
        if self.filled < PIECE_BYTES {
            return ControlFlow::Continue(());
        }
        self.filled = 0;
        (self.each)(&self.piece)
    }

    fn next(&mut self) {
        self.begun.clear();
        self.stage = if self.left == 0 { Stage::Hash } else { Stage::Head };
    }

    fn take(&mut self, arrived: &mut &[u8]) -> u8 {
        let (byte, rest) = (arrived[0], &arrived[1..]);
        *arrived = rest;
        self.begun.push(byte);
        byte
    }
}
