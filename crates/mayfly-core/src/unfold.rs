//! What a commit's tree unfolds to, counted in git's list of it before a file is written: a bundle of a kilobyte can hold
//! a hundred thousand files, and a large one a thousand times.
//!
//! Bounds: [`ENTRIES_MAX`], and the bytes that whoever counts allows. Nothing of a path is kept.

use std::io::{self, Read};
use std::ops::ControlFlow;

use crate::amount;

/// The most files and folders of a commit that is checked out.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// What a file or a folder takes at least, and in steps of which it grows.
const BLOCK_BYTES: u64 = 4096;
/// What is read of a list at once.
const READ_BYTES: usize = 64 * 1024;
/// The longest beginning of an entry: mode, kind, name and size.
const HEAD_BYTES_MAX: usize = 256;

/// What git is asked; the name of the commit follows. An entry is `<mode> <kind> <id> <size>\t<path>\0`, and the size of what
/// is no file `-`.
pub const LIST: [&str; 6] = ["ls-tree", "-r", "-t", "-l", "-z", "--full-tree"];

/// A list that is being counted.
#[derive(Debug)]
pub struct Unfolding {
    bytes_max: u64,
    entries: u64,
    bytes: u64,
    /// The beginning of the entry that is under way, up to its path.
    head: Vec<u8>,
    in_path: bool,
    too_much: Option<TooMuch>,
}

/// Which bound a tree does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// That of the number.
    #[error("it unfolds to more than {ENTRIES_MAX} files and folders")]
    Entries,
    /// That of the bytes, which are these.
    #[error("it unfolds to more than {}", amount(*.0))]
    Bytes(u64),
}

impl Unfolding {
    /// One that may come to `bytes_max` on a disk.
    pub fn within(bytes_max: u64) -> Self {
        Self { bytes_max, entries: 0, bytes: 0, head: Vec::new(), in_path: false, too_much: None }
    }

    /// Takes the next piece of the list, and breaks off once a bound is passed.
    pub fn take(&mut self, piece: &[u8]) -> ControlFlow<()> {
        for &byte in piece {
            match (self.in_path, byte) {
                (true, 0) => self.in_path = false,
                (true, _) => {}
                (false, b'\t') => {
                    self.in_path = true;
                    self.count();
                }
                (false, byte) if self.head.len() < HEAD_BYTES_MAX => self.head.push(byte),
                (false, _) => {}
            }
            if self.too_much.is_some() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes a list to its end, or until a bound is passed, and gives what it comes to on a disk.
    pub fn of(bytes_max: u64, mut list: impl Read) -> io::Result<Result<u64, TooMuch>> {
        let (mut this, mut piece) = (Self::within(bytes_max), vec![0; READ_BYTES]);
        loop {
            let read = list.read(&mut piece)?;
            if read == 0 || this.take(&piece[..read]).is_break() {
                return Ok(this.bytes());
            }
        }
    }

    /// What it comes to on a disk, after all of the list.
    pub fn bytes(&self) -> Result<u64, TooMuch> {
        self.too_much.map_or(Ok(self.bytes), Err)
    }

    fn count(&mut self) {
        let size = match self.head.rsplit(|&byte| byte == b' ').next() {
            Some(b"-") => 0,
            // What cannot be read is no small number.
            size => size.and_then(|size| std::str::from_utf8(size).ok()?.parse().ok()).unwrap_or(u64::MAX),
        };
        self.head.clear();
        self.entries += 1;
        let blocks = size.div_ceil(BLOCK_BYTES).max(1);
        self.bytes = self.bytes.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
        if self.entries > ENTRIES_MAX {
            self.too_much = Some(TooMuch::Entries);
        } else if self.bytes > self.bytes_max {
            self.too_much = Some(TooMuch::Bytes(self.bytes_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";

    fn counted(list: &str, bytes_max: u64, pieces: usize) -> Result<u64, TooMuch> {
        let mut unfolding = Unfolding::within(bytes_max);
        let _ = list.as_bytes().chunks(pieces).try_for_each(|piece| unfolding.take(piece));
        unfolding.bytes()
    }

    #[test]
    fn files_and_folders_are_counted_however_the_list_is_cut() {
        let list = format!(
            "040000 tree {ID}       -\ta\t-\0100644 blob {ID}       1\ta\t-/b\n \0100644 blob {ID}    4097\tc\0\
             120000 blob {ID}       0\td\0160000 commit {ID}       -\te\0"
        );
        for pieces in [1, 2, 7, list.len()] {
            assert_eq!(counted(&list, u64::MAX, pieces), Ok(6 * BLOCK_BYTES), "{pieces}");
            assert_eq!(counted(&list, 6 * BLOCK_BYTES, pieces), Ok(6 * BLOCK_BYTES));
            assert_eq!(counted(&list, 6 * BLOCK_BYTES - 1, pieces), Err(TooMuch::Bytes(6 * BLOCK_BYTES - 1)));
        }
        assert_eq!(Unfolding::of(u64::MAX, list.as_bytes()).expect("read"), Ok(6 * BLOCK_BYTES));
    }

    #[test]
    fn a_number_that_is_too_large_or_none_is_too_much() {
        for size in ["18446744073709551615", "99999999999999999999999", "BAD", ""] {
            let list = format!("100644 blob {ID} {size}\ta\0");
            assert_eq!(counted(&list, u64::MAX - 1, 3), Err(TooMuch::Bytes(u64::MAX - 1)), "{size}");
        }
    }

    #[test]
    fn the_number_of_files_has_an_end_of_its_own() {
        let mut unfolding = Unfolding::within(u64::MAX);
        let entry = "100644 blob 0 0\ta\0";
        for _ in 0..ENTRIES_MAX {
            assert!(unfolding.take(entry.as_bytes()).is_continue());
        }
        assert_eq!(unfolding.bytes(), Ok(ENTRIES_MAX * BLOCK_BYTES));
        assert!(unfolding.take(entry.as_bytes()).is_break());
        let error = unfolding.bytes().expect_err("too many");
        assert_eq!(error.to_string(), "it unfolds to more than 1000000 files and folders");
        assert_eq!(TooMuch::Bytes(20 << 30).to_string(), "it unfolds to more than 20 GiB");
    }
}
