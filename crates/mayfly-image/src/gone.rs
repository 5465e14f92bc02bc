//! Whether anybody still waits.

use std::io;

/// Hears how far a step is, in words, and says whether it is to go on.
pub type Watch<'a> = &'a mut dyn FnMut(&str) -> bool;

/// The error of a step that is not to go on.
pub(crate) fn given_up() -> io::Error {
    io::Error::other("it was given up")
}
