//! Entries of what git lists, one at a time, out of the pieces that come.

/// The entry that has not come to its end yet.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    rest: Vec<u8>,
}

impl Entries {
    /// Gives each entry that ends with a zero byte in `piece` to `each`. How long the one is that is under way.
    pub(crate) fn take(&mut self, piece: &[u8], each: impl FnMut(&[u8])) -> usize {
        self.take_until(0, piece, each)
    }

    /// The same for entries that end with another byte.
    pub(crate) fn take_until(&mut self, end: u8, piece: &[u8], mut each: impl FnMut(&[u8])) -> usize {
        self.rest.extend_from_slice(piece);
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|&byte| byte == end) {
            each(&self.rest[from..from + length]);
            from += length + 1;
        }
        self.rest.drain(..from);
        self.rest.len()
    }
}
