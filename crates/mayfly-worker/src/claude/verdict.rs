//! How a run of `claude` ended: one outcome from the end of its process and its last result.
//!
//! The process decides: a result that tells of success counts only with an exit code of 0, or if the process
//! said it and then would not exit. Among errors the CLI's `terminal_reason` decides, since its exit code and
//! `subtype` do not tell them apart.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use jiff::Timestamp;
use mayfly_core::{Failure, Outcome};
use rustix::process::Signal;

use super::interpret::{OVERLOADED, TOO_MANY, TurnResult};
use crate::limits::Met;

/// An outcome and its reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) detail: Option<String>,
}

impl Verdict {
    pub(crate) fn new(outcome: Outcome, detail: impl Into<Option<String>>) -> Self {
        Self { outcome, detail: detail.into() }
    }

    pub(crate) fn failed(failure: Failure, detail: impl Into<String>) -> Self {
        Self::new(Outcome::Failed(failure), Some(detail.into()))
    }
}

/// What is known once the process is gone.
#[derive(Debug)]
pub(crate) struct End<'a> {
    /// How the process ended.
    pub(crate) status: ExitStatus,
    /// Whether an `init` was seen.
    pub(crate) initialised: bool,
    /// The last result.
    pub(crate) last: Option<&'a TurnResult>,
    /// When the last usage limit ends.
    pub(crate) resets_at: Option<i64>,
    /// Whether the worker ended it because it would not exit after its result.
    pub(crate) was_at_rest: bool,
    /// The machine's limits that something of it met while the process ran.
    pub(crate) met: Met,
    /// The end of its standard error.
    pub(crate) stderr_tail: &'a str,
}

impl End<'_> {
    /// The verdict on a run that nobody asked to stop.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.last {
            Some(last) if last.is_error => self.error(last),
            Some(_) if self.status.success() || self.was_at_rest => Verdict::new(Outcome::Succeeded, None),
            Some(_) => self.died(),
            None if self.status.success() => {
                Verdict::failed(Failure::NoResult, "claude exited with 0 and printed no result")
            }
            None if self.status.signal().is_none() && !self.initialised => {
                Verdict::failed(Failure::Startup, format!("claude {}: {}", self.exit(), self.stderr_tail))
            }
            None => self.died(),
        }
    }

    fn error(&self, last: &TurnResult) -> Verdict {
        match last.terminal_reason.as_str() {
            "api_error" if last.usage_limit => Verdict::failed(Failure::UsageLimit, self.usage_limit(last)),
            "api_error" if last.token_limit => Verdict::failed(Failure::MaxTokens, last.words.clone()),
            "api_error" => {
                let status = last.api_status.map(|status| format!(" ({status})")).unwrap_or_default();
                let failure = match last.api_status {
                    Some(TOO_MANY) => Failure::RateLimit,
                    Some(OVERLOADED) => Failure::Overloaded,
                    _ => Failure::Api,
                };
                Verdict::failed(failure, format!("{}{status}", last.words))
            }
            "max_turns" => Verdict::failed(Failure::MaxTurns, last.words.clone()),
            "budget_exhausted" => Verdict::failed(Failure::MaxBudget, last.words.clone()),
            reason => Verdict::failed(Failure::Claude, format!("{reason}: {}", last.words)),
        }
    }

    fn usage_limit(&self, last: &TurnResult) -> String {
        let resets = self.resets_at.and_then(|seconds| Timestamp::from_second(seconds).ok());
        match resets {
            Some(at) => format!("{} (ends at {at})", last.words),
            None => last.words.clone(),
        }
    }

    fn died(&self) -> Verdict {
        // The kernel's kill is this signal; a tool of the agent may have been killed for memory long before.
        if self.met.memory && self.status.signal() == Some(Signal::KILL.as_raw()) {
            return Verdict::failed(Failure::OutOfMemory, "the machine's memory limit was reached");
        }
        match self.met.too_many() {
            Some(limit) => Verdict::failed(Failure::ProcessLimit, format!("claude {}; {limit}", self.exit())),
            None => Verdict::failed(Failure::Killed, format!("claude {}", self.exit())),
        }
    }

    fn exit(&self) -> String {
        match (self.status.signal(), self.status.code()) {
            (Some(signal), _) => format!("was killed by signal {signal}"),
            (None, Some(code)) => format!("exited with {code}"),
            (None, None) => "is gone".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUCCESS: i32 = 0;
    const FAILURE: i32 = 1 << 8;
    const SIGABRT: i32 = 6;
    const SIGTERM: i32 = 15;
    const SIGKILL: i32 = 9;

    fn result(is_error: bool, reason: &str) -> TurnResult {
        let terminal_reason = reason.to_owned();
        TurnResult {
            is_error,
            terminal_reason,
            api_status: None,
            usage_limit: false,
            token_limit: false,
            words: "words".to_owned(),
        }
    }

    fn end(status: i32, last: Option<&TurnResult>) -> End<'_> {
        End {
            status: ExitStatus::from_raw(status),
            initialised: true,
            last,
            resets_at: None,
            was_at_rest: false,
            met: Met::default(),
            stderr_tail: "",
        }
    }

    fn name(end: &End<'_>) -> &'static str {
        end.verdict().outcome.name()
    }

    #[test]
    fn a_success_needs_a_good_result_and_a_good_exit() {
        let good = result(false, "completed");
        assert_eq!(name(&end(SUCCESS, Some(&good))), "succeeded");
        assert_eq!(name(&end(FAILURE, Some(&good))), "killed");
        assert_eq!(name(&end(SIGTERM, Some(&good))), "killed");
        assert_eq!(name(&End { was_at_rest: true, ..end(SIGTERM, Some(&good)) }), "succeeded");
        assert_eq!(name(&end(SUCCESS, None)), "no-result");
    }

    #[test]
    fn an_error_is_an_error_whatever_the_exit_code() {
        for status in [SUCCESS, FAILURE, SIGTERM] {
            assert_eq!(name(&end(status, Some(&result(true, "max_turns")))), "max-turns");
            assert_eq!(name(&end(status, Some(&result(true, "budget_exhausted")))), "max-budget");
            assert_eq!(name(&end(status, Some(&result(true, "api_error")))), "api-error");
            assert_eq!(name(&end(status, Some(&result(true, "error_during_execution")))), "claude-error");
        }
    }

    #[test]
    fn limits_of_the_api_are_told_apart() {
        let named = |status| {
            let last = TurnResult { api_status: Some(status), ..result(true, "api_error") };
            name(&end(FAILURE, Some(&last)))
        };
        assert_eq!([429, 529, 500].map(named), ["rate-limit", "overloaded", "api-error"]);
    }

    #[test]
    fn a_usage_limit_names_its_end() {
        let limit = TurnResult { usage_limit: true, ..result(true, "api_error") };
        let verdict = End { resets_at: Some(4_102_444_800), ..end(FAILURE, Some(&limit)) }.verdict();
        assert_eq!(verdict, Verdict::failed(Failure::UsageLimit, "words (ends at 2100-01-01T00:00:00Z)"));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_no_error_of_the_api() {
        let limit = TurnResult { token_limit: true, ..result(true, "api_error") };
        assert_eq!(end(FAILURE, Some(&limit)).verdict(), Verdict::failed(Failure::MaxTokens, "words"));
    }

    #[test]
    fn only_a_kill_of_the_kernel_is_for_memory() {
        let met = Met { memory: true, ..Met::default() };
        assert_eq!(name(&End { met, ..end(SIGKILL, None) }), "out-of-memory");
        assert_eq!(name(&End { met, ..end(SIGTERM, None) }), "killed");
        assert_eq!(name(&end(SIGKILL, None)), "killed");
    }

    #[test]
    fn a_death_at_the_limit_of_processes_names_it() {
        let met = Met { processes: Some(64), ..Met::default() };
        let detail =
            "claude was killed by signal 6; the machine reached its limit of 64 processes and threads";
        let died = End { met, ..end(SIGABRT, None) };
        assert_eq!(died.verdict(), Verdict::failed(Failure::ProcessLimit, detail));
        let good = result(false, "completed");
        assert_eq!(
            End { met, ..end(SUCCESS, Some(&good)) }.verdict(),
            Verdict::new(Outcome::Succeeded, None)
        );
    }
}
