//! The exit codes, and how a command that stops says why.

use std::fmt;
use std::process::ExitCode;

use mayfly_core::{Failure, Outcome};

use crate::printer::Shown;

/// How a command ended; of several endings the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Everything that was asked for is done.
    Success,
    /// A task failed.
    Failed,
    /// It was asked to stop.
    Cancelled,
    /// Nobody reads standard output any more.
    Unread,
    /// What was typed, or what it names, is wrong; nothing was started.
    Usage,
    /// The orchestrator or the provider could not do its part.
    Trouble,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Trouble => 3,
            Self::Cancelled => 130,
            // As one who is ended by SIGPIPE.
            Self::Unread => 141,
        }
    }

    /// The exit for a task's outcome, by its name. An unknown name is a failure: it is none of the others.
    pub(crate) fn of_outcome(name: &str) -> Self {
        match name.parse() {
            Ok(Outcome::Succeeded) => Self::Success,
            Ok(Outcome::Cancelled) => Self::Cancelled,
            Ok(Outcome::Failed(Failure::Refused | Failure::LaunchTimeout | Failure::Lost)) => Self::Trouble,
            Ok(Outcome::Failed(_)) | Err(_) => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command stopped before its end.
#[derive(Debug)]
pub(crate) struct Stop {
    /// The code to exit with.
    pub(crate) exit: Exit,
    error: anyhow::Error,
}

impl Stop {
    /// What was typed, or what it names, is wrong.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    /// A wrong input, in words.
    pub(crate) fn wrong(words: impl fmt::Display) -> Self {
        Self::usage(anyhow::Error::msg(words.to_string()))
    }

    /// The user asked for it.
    pub(crate) fn cancelled() -> Self {
        Self { exit: Exit::Cancelled, error: anyhow::Error::msg("cancelled before any task was started") }
    }

    /// The user asked for it, while something was fetched or shown.
    pub(crate) fn interrupted() -> Self {
        Self { exit: Exit::Cancelled, error: anyhow::Error::msg("interrupted before it was done") }
    }

    /// Why, for one who goes on.
    pub(crate) fn into_error(self) -> anyhow::Error {
        self.error
    }

    /// Says why, on standard error, and gives the code.
    #[expect(clippy::print_stderr, reason = "the one place where an error is shown")]
    pub(crate) fn report(self) -> ExitCode {
        for line in self.lines() {
            eprintln!("{line}");
        }
        self.exit.into()
    }

    /// The error and its causes, safe for a terminal.
    pub(crate) fn lines(&self) -> Vec<Shown> {
        let mut lines = Shown::lines(&format!("mayfly: {:#}", self.error), LINES_MAX, LINE_CHARS_MAX);
        if lines.is_empty() {
            lines.push(Shown::line("mayfly: unknown error", LINE_CHARS_MAX));
        }
        lines
    }
}

/// The most lines of an error.
const LINES_MAX: usize = 30;
/// The most characters of one of its lines.
const LINE_CHARS_MAX: usize = 2000;

/// Whatever is not known to be the user's input is trouble of ours.
impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self { exit: Exit::Trouble, error: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_as_documented() {
        let codes = [Exit::Success, Exit::Failed, Exit::Usage, Exit::Trouble, Exit::Cancelled, Exit::Unread];
        assert_eq!(codes.map(Exit::code), [0, 1, 2, 3, 130, 141]);
    }

    #[test]
    fn of_several_endings_the_worst_counts() {
        let worst = |names: &[&str]| names.iter().map(|name| Exit::of_outcome(name)).max();
        assert_eq!(worst(&["succeeded", "succeeded"]), Some(Exit::Success));
        assert_eq!(worst(&["succeeded", "max-turns"]), Some(Exit::Failed));
        assert_eq!(worst(&["cancelled", "max-turns"]), Some(Exit::Cancelled));
        assert_eq!(worst(&["cancelled", "refused"]), Some(Exit::Trouble));
        assert_eq!(worst(&["an outcome of a later version"]), Some(Exit::Failed));
    }

    /// S45: an error can repeat what came from elsewhere.
    #[test]
    fn an_error_is_shown_with_its_causes_and_without_control_characters() {
        let error = anyhow::Error::msg("the cause\u{1b}[2J").context("cannot do it");
        let lines = Stop::usage(error).lines();
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [r"mayfly: cannot do it: the cause\u{1b}[2J"]);
    }
}
