//! Why a machine was not made, as it travels from the process that failed to the caller of `create`.
//!
//! A failure either stands until somebody changes this host, or may pass by itself: a machine that failed for
//! want of a free page, descriptor or block may well be made a little later. The first is a refusal and ends
//! the task; after the second the engine asks again. Which it is, is decided where the system's word is heard.

use std::fmt;
use std::io;

use mayfly_provider::ProviderError;
use serde::{Deserialize, Serialize};

/// What the system lacks for the moment. Of namespaces `ENOSPC` is another thing: see [`Failure::of_namespaces`].
const PASSING: [i32; 10] = [
    libc::EAGAIN,
    libc::ENOMEM,
    libc::EINTR,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOSPC,
    libc::EDQUOT,
    libc::EIO,
    libc::EBUSY,
    libc::ETIMEDOUT,
];

/// One step that failed. It crosses two pipes as JSON, so it holds the error's number, not the error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What could not be done, and what to do about it.
    pub reason: String,
    /// The system's error number, if it was one.
    pub errno: Option<i32>,
    /// Whether it may work when it is tried again, with nothing changed by anybody.
    pub may_pass: bool,
}

impl Failure {
    /// A failure that the system had no word for, and that stands.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), errno: None, may_pass: false }
    }

    /// A failure that the system had a word for.
    pub fn of(reason: impl Into<String>, error: &io::Error) -> Self {
        let (reason, errno) = (reason.into(), error.raw_os_error());
        let may_pass =
            error.kind() == io::ErrorKind::TimedOut || errno.is_some_and(|errno| PASSING.contains(&errno));
        let reason = if errno.is_some() { reason } else { format!("{reason} ({error})") };
        Self { reason, errno, may_pass }
    }

    /// A failure that a program told in words: it may pass if the system's word among them does.
    pub fn said(reason: String, words: &str) -> Self {
        let text = |errno: i32| io::Error::from_raw_os_error(errno).to_string();
        let is_said = |errno: &i32| words.contains(text(*errno).split(" (").next().unwrap_or_default());
        Self { reason, errno: None, may_pass: PASSING.iter().any(is_said) }
    }

    /// Of a step that makes a namespace: there "no space" is a limit of their number, which stands.
    #[must_use]
    pub fn of_namespaces(mut self) -> Self {
        self.may_pass &= self.errno != Some(libc::ENOSPC);
        self
    }

    /// As the answer to `create`.
    pub fn answer(self, provider: &'static str) -> ProviderError {
        if self.may_pass {
            return self.unclear("create");
        }
        let source = self.cause().map(Into::into);
        ProviderError::Refused { provider, reason: self.reason, source }
    }

    /// As the answer to a `call` that is to be made again.
    pub fn unclear(self, call: &'static str) -> ProviderError {
        let cause = self.cause();
        ProviderError::Unclear { call, source: Unclear { reason: self.reason, cause }.into() }
    }

    /// The system's word, if it had one.
    fn cause(&self) -> Option<io::Error> {
        self.errno.map(io::Error::from_raw_os_error)
    }
}

/// With the system's word, for who sees no chain of causes.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause() {
            Some(cause) => write!(f, "{} ({cause})", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// A [`Failure`] as the source of an error.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct Unclear {
    reason: String,
    #[source]
    cause: Option<io::Error>,
}

/// Names the step of an error.
pub trait Step<T> {
    /// On an error: `cannot <step>`.
    fn step(self, step: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::of(format!("cannot {step}"), &error.into()))
    }
}

#[cfg(test)]
mod tests {
    use mayfly_core::causes;

    use super::*;

    fn failed(errno: i32) -> Failure {
        Err::<(), _>(io::Error::from_raw_os_error(errno)).step("make the folder /m/1").expect_err("an error")
    }

    #[test]
    fn what_the_system_lacks_for_the_moment_is_asked_for_again_and_said_in_words() {
        for errno in PASSING {
            assert!(matches!(failed(errno).answer("sandbox"), ProviderError::Unclear { .. }), "{errno}");
        }
        assert_eq!(
            causes(&failed(libc::ENOSPC).answer("sandbox")),
            "no clear answer to `create`: cannot make the folder /m/1: No space left on device (os error 28)"
        );
        let late = Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut)).step("make the machine in time");
        assert_eq!(
            causes(&late.expect_err("an error").answer("sandbox")),
            "no clear answer to `create`: cannot make the machine in time (timed out)"
        );
    }

    #[test]
    fn what_stands_is_refused_with_its_cause() {
        for errno in [libc::EPERM, libc::EACCES, libc::ENOENT, libc::EINVAL, libc::ENOSYS, libc::EUSERS] {
            assert!(matches!(failed(errno).answer("sandbox"), ProviderError::Refused { .. }), "{errno}");
        }
        assert_eq!(
            causes(&failed(libc::EACCES).answer("sandbox")),
            "the sandbox provider cannot make this machine: cannot make the folder /m/1: \
             Permission denied (os error 13)"
        );
        assert!(matches!(Failure::new("cannot find git").answer("sandbox"), ProviderError::Refused { .. }));
    }

    #[test]
    fn no_space_is_a_limit_that_stands_where_namespaces_are_made() {
        assert!(!failed(libc::ENOSPC).of_namespaces().may_pass);
        assert!(failed(libc::ENOMEM).of_namespaces().may_pass);
    }

    #[test]
    fn a_programs_words_are_sorted_by_the_systems_among_them() {
        let said = |words: &str| Failure::said("cannot run git".to_owned(), words).may_pass;
        assert!(said("fatal: write error: No space left on device"));
        assert!(said("error: unable to create file a: Too many open files"));
        assert!(!said("fatal: bad object"));
        assert!(!said(""));
    }
}
