//! How tasks and attempts are named.
//!
//! A task is a `UUIDv7`, so that ids sort by age. People see its short form, the last eight hex digits.
//! An attempt is its task and a number from 1: `<task>.<number>`, which is also a valid file name.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::task::Attempt;

/// Names a task. The caller makes the `UUIDv7`: this crate has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The task named by `uuid`.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The whole id.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// What people type and see: the last eight hex digits.
    pub fn short(self) -> String {
        let whole = self.0.simple().to_string();
        whole[whole.len() - 8..].to_owned()
    }

    /// One of this task's attempts.
    pub const fn attempt(self, attempt: Attempt) -> AttemptId {
        AttemptId { task: self, attempt }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        text.parse().map(Self).map_err(|_| BadId { text: shown(text) })
    }
}

/// Names an attempt, and with it the one machine that it may own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// Whose attempt it is.
    pub task: TaskId,
    /// Which one, from 1.
    pub attempt: Attempt,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.attempt.0)
    }
}

impl FromStr for AttemptId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: shown(text) };
        let (task, number) = text.split_once('.').ok_or_else(bad)?;
        let number: u32 = number.parse().map_err(|_| bad())?;
        Ok(task.parse::<TaskId>()?.attempt(Attempt(number)))
    }
}

/// A text that names no task or attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: expected a UUID, and for an attempt `<uuid>.<number>`")]
pub struct BadId {
    text: String,
}

/// At most the length of an attempt's id, so that an error never repeats a megabyte.
fn shown(text: &str) -> String {
    text.chars().take(48).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_survives_being_written_and_read() {
        let text = "0193b2c4-0000-7000-8000-0123456789ab.12";
        let attempt: AttemptId = text.parse().expect("a good id");
        assert_eq!(attempt.to_string(), text);
        assert_eq!(attempt.task.short(), "456789ab");
    }

    #[test]
    fn what_is_not_an_id_is_named_in_the_error() {
        for text in
            ["", "x", "0193b2c4-0000-7000-8000-0123456789ab", "0193b2c4-0000-7000-8000-0123456789ab.-1"]
        {
            let error = text.parse::<AttemptId>().expect_err("no attempt");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
