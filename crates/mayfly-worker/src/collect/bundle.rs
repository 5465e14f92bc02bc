//! A bundle as it goes out: put together on its way, so that no second copy of what it holds is ever on the disk.
//!
//! ```text
//! header │ PACK, number │ commits, trees and what else git packed │ contents that were taken in without it │ hash
//! ```

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::contents::{Chosen, Contents};
use super::pack::{Hash, Naming, PACK_HEAD, PACK_HEAD_BYTES};

/// A bundle that was made.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) head: String,
    /// The names of its other refs.
    pub(crate) others: Vec<String>,
    /// The commit with the files of the index.
    pub(crate) staged: Option<String>,
    pub(crate) body: Body,
}

/// What it is made of.
#[derive(Debug, Clone)]
pub(crate) struct Body(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    header: Vec<u8>,
    naming: Naming,
    /// The pack that git made.
    packed: PathBuf,
    packed_bytes: u64,
    /// The number of entries of both.
    entries: u32,
    contents: Arc<Contents>,
    chosen: Chosen,
}

impl Body {
    /// Of a header, a pack and contents that are not in that.
    pub(super) fn new(
        header: Vec<u8>,
        naming: Naming,
        packed: PathBuf,
        contents: Arc<Contents>,
        chosen: Chosen,
    ) -> io::Result<Self> {
        let mut file = File::open(&packed)?;
        let mut head = [0; PACK_HEAD_BYTES];
        file.read_exact(&mut head)?;
        let (begin, number) = head.split_at(PACK_HEAD.len());
        let number = u32::from_be_bytes(number.try_into().expect("four bytes"));
        let entries = u32::try_from(chosen.count()).ok().and_then(|count| number.checked_add(count));
        let entries = entries.filter(|_| begin == PACK_HEAD).ok_or(io::ErrorKind::InvalidData)?;
        let all = file.metadata()?.len();
        let packed_bytes =
            all.checked_sub(PACK_HEAD_BYTES as u64 + naming.bytes()).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Self(Arc::new(Parts { header, naming, packed, packed_bytes, entries, contents, chosen })))
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> u64 {
        let Parts { header, naming, packed_bytes, chosen, .. } = &*self.0;
        (header.len() + PACK_HEAD_BYTES) as u64 + packed_bytes + chosen.bytes() + naming.bytes()
    }

    /// Writes it. What does not become as long as was said is an error.
    pub(crate) fn write(&self, mut to: impl Write) -> io::Result<()> {
        let Parts { header, naming, packed, packed_bytes, entries, contents, chosen } = &*self.0;
        to.write_all(header)?;
        let mut pack = Hashed { to: &mut to, hash: naming.begin() };
        pack.write_all(PACK_HEAD)?;
        pack.write_all(&entries.to_be_bytes())?;
        let mut file = File::open(packed)?;
        file.seek(SeekFrom::Start(PACK_HEAD_BYTES as u64))?;
        if io::copy(&mut file.take(*packed_bytes), &mut pack)? != *packed_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        contents.write(chosen, &mut pack)?;
        let hash = pack.hash.finish();
        to.write_all(&hash)?;
        to.flush()
    }
}

/// Hashes what is written on its way.
struct Hashed<'a, W> {
    to: &'a mut W,
    hash: Hash,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
