//! An error as it is logged or shown: with all its causes, in one line.

use std::error::Error;
use std::iter;

/// The error and its causes, from the outermost, each after a colon.
pub fn causes(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn causes_follow_their_error_from_the_outermost() {
        let inner = Link("the disk is full", None);
        let error = Link("not stored", Some(Box::new(Link("no commit", Some(Box::new(inner))))));
        assert_eq!(causes(&error), "not stored: no commit: the disk is full");
        assert_eq!(causes(&Link("alone", None)), "alone");
    }
}
