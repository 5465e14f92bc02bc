//! The name of what is named by its content.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// The SHA-256 of all that can be read, in hex.
pub fn sha256_of(mut from: impl Read) -> io::Result<String> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_counts_however_much_that_is() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_of(io::empty()).expect("read"), nothing);
        let long = vec![7; 2 * READ_BYTES + 1];
        assert_eq!(sha256_of(&*long).expect("read"), hex::encode(Sha256::digest(&long)));
    }
}
