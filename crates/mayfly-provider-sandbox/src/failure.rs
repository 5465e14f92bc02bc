//! Why a machine was not made, as it travels from the process that failed to the caller of `create`.

use std::fmt;
use std::io;

use mayfly_provider::ProviderError;
use serde::{Deserialize, Serialize};

/// One step that failed. It crosses two pipes as JSON, so it holds the error's number, not the error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What could not be done, and what to do about it.
    pub(crate) reason: String,
    /// The system's error number, if it was one.
    pub(crate) errno: Option<i32>,
}

impl Failure {
    /// A failure that the system had no word for.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), errno: None }
    }

    /// As the provider's answer: nothing was made.
    pub(crate) fn refused(self) -> ProviderError {
        let source = self.errno.map(|errno| io::Error::from_raw_os_error(errno).into());
        ProviderError::Refused { provider: crate::NAME, reason: self.reason, source }
    }
}

/// Names the step of an error.
pub(crate) trait Step<T> {
    /// On an error: `cannot <step>`.
    fn step(self, step: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            match error.raw_os_error() {
                Some(errno) => Failure { reason: format!("cannot {step}"), errno: Some(errno) },
                None => Failure::new(format!("cannot {step} ({error})")),
            }
        })
    }
}
