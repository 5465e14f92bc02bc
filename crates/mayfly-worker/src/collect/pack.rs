//! How git writes down what is in a file: the name of its content, and an entry of a pack.

use std::io::{self, Read, Write};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use simd_adler32::Adler32;

/// What a pack begins with, with its version and before the number of its entries.
pub(super) const PACK_HEAD: &[u8; 8] = b"PACK\0\0\0\x02";
/// How long that is with the number.
pub(super) const PACK_HEAD_BYTES: usize = 12;
/// What a stream of zlib begins with that was made in no time.
const ZLIB_HEAD: [u8; 2] = [0x78, 0x01];
/// The most bytes of a block that are as they are, and what stands before and after them.
const BLOCK_BYTES: u16 = u16::MAX;
const BLOCK_HEAD_BYTES: u64 = 5;
const CHECK_BYTES: u64 = 4;
/// A kind of an entry: the content of a file.
const BLOB: u8 = 3;

/// By which hash a repository names what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Sha1,
    Sha256,
}

impl Naming {
    /// That of a repository that holds this commit.
    pub(super) fn of(commit: &str) -> Self {
        if commit.len() == 64 { Self::Sha256 } else { Self::Sha1 }
    }

    /// How long a hash is.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Of nothing so far.
    pub(super) fn begin(self) -> Hash {
        match self {
            Self::Sha1 => Hash::Sha1(Sha1::new()),
            Self::Sha256 => Hash::Sha256(Sha256::new()),
        }
    }

    /// Of the content of a file that is this long, before its first byte.
    pub(super) fn begin_blob(self, length: u64) -> Hash {
        let mut hash = self.begin();
        hash.update(format!("blob {length}\0").as_bytes());
        hash
    }
}

/// A hash under way.
#[derive(Debug)]
pub(super) enum Hash {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hash {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(hash) => hash.finalize().to_vec(),
            Self::Sha256(hash) => hash.finalize().to_vec(),
        }
    }
}

/// What an entry begins with that is the content of a file of this length: seven bits in a byte, after the kind.
pub(super) fn entry_head(length: u64) -> Vec<u8> {
    let low = |bits: u64| u8::try_from(bits & 0x7f).expect("seven bits");
    let mut head = vec![BLOB << 4 | low(length & 0xf)];
    let mut rest = length >> 4;
    while rest > 0 {
        *head.last_mut().expect("there is one") |= 0x80;
        head.push(low(rest));
        rest >>= 7;
    }
    head
}

/// How long an entry is whose content stays as it is.
pub(super) fn entry_bytes(length: u64) -> u64 {
    let blocks = length.div_ceil(BLOCK_BYTES.into()).max(1);
    entry_head(length).len() as u64
        + ZLIB_HEAD.len() as u64
        + blocks * BLOCK_HEAD_BYTES
        + length
        + CHECK_BYTES
}

/// Writes an entry whose content stays as it is, and gives the check of its bytes. It has to be as long as was said.
pub(super) fn write_entry(mut content: impl Read, length: u64, to: &mut impl Write) -> io::Result<u32> {
    to.write_all(&entry_head(length))?;
    to.write_all(&ZLIB_HEAD)?;
    let (mut check, mut left, mut block) = (Adler32::new(), length, vec![0; BLOCK_BYTES.into()]);
    loop {
        let bytes = u16::try_from(left).unwrap_or(BLOCK_BYTES);
        left -= u64::from(bytes);
        let block = &mut block[..bytes.into()];
        content.read_exact(block)?;
        check.write(block);
        to.write_all(&[u8::from(left == 0)])?;
        to.write_all(&bytes.to_le_bytes())?;
        to.write_all(&(!bytes).to_le_bytes())?;
        to.write_all(block)?;
        if left == 0 {
            break;
        }
    }
    to.write_all(&check.finish().to_be_bytes())?;
    Ok(check.finish())
}
