//! The ways a task can end.

use std::fmt;
use std::str::FromStr;

/// How a task ended. There is exactly one, and it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// `claude` exited with 0 and its last result was no error.
    Succeeded,
    /// It ended otherwise; the failure says how.
    Failed(Failure),
    /// The user asked for its end.
    Cancelled,
}

/// Why a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// `claude` reported an error of its own that is none of those below.
    Claude,
    /// The model API refused or failed, after the retries of `claude`.
    Api,
    /// The model API takes no more requests at once, after the retries of `claude`: 429.
    RateLimit,
    /// The model API has more to do than it can, after the retries of `claude`: 529.
    Overloaded,
    /// The subscription's usage limit is reached.
    UsageLimit,
    /// The limit of turns is reached.
    MaxTurns,
    /// The limit of money is reached.
    MaxBudget,
    /// An answer did not fit into what the model may say at once, also where `claude` had asked it to go on.
    MaxTokens,
    /// `claude` exited with 0 and never printed a result.
    NoResult,
    /// `claude` could not start, or exited before its first message.
    Startup,
    /// `claude` was killed by a signal that was not ours, or exited with a code of its own.
    Killed,
    /// The machine's memory limit was reached and `claude` was killed for it.
    OutOfMemory,
    /// The machine's limit of processes was reached and `claude` died meanwhile.
    ProcessLimit,
    /// The machine's files took more of the disk than they may.
    DiskLimit,
    /// What `claude` said it would run with is not what was asked for.
    InitMismatch,
    /// The workspace could not be made ready.
    Workspace,
    /// A set-up command of the repository failed, or all of them took too long.
    Setup,
    /// The log of the task reached its limit.
    LogFull,
    /// The time allowed for the whole task is over.
    Timeout,
    /// Nothing was heard from `claude` for too long.
    IdleTimeout,
    /// The machine was made, and its worker was never heard.
    LaunchTimeout,
    /// The provider will not make this machine, or it is not shut in as it must be.
    Refused,
    /// The machine is gone, or silent for too long.
    Lost,
}

impl Failure {
    /// Whether the same task may end otherwise when it is run again: the one place that says for which failures a
    /// retry is worth its price.
    pub fn may_pass(self) -> bool {
        use Failure::*;
        match self {
            // The model's service has its bad hours, and a new credential may be handed in meanwhile.
            Api | RateLimit | Overloaded => true,
            // An agent takes another way each time, and what killed or hung it once may not be there again.
            Claude | NoResult | Startup | Killed | IdleTimeout => true,
            // The machine, or all of this host, was what failed.
            LaunchTimeout | Lost => true,
            // It ends in hours, or at a time that its owner knows better.
            UsageLimit => false,
            // What its owner allows is used up, and would be again; a whole run was paid for to know it.
            MaxTurns | MaxBudget | MaxTokens | Timeout => false,
            OutOfMemory | ProcessLimit | DiskLimit | LogFull => false,
            // The CLI, the workspace and the provider are the same for the next attempt.
            InitMismatch | Workspace | Setup | Refused => false,
        }
    }
}

/// Each ending with the one word that it has in the database, on the wire and on a screen.
const NAMES: [(Outcome, &str); 25] = [
    (Outcome::Succeeded, "succeeded"),
    (Outcome::Cancelled, "cancelled"),
    (Outcome::Failed(Failure::Claude), "claude-error"),
    (Outcome::Failed(Failure::Api), "api-error"),
    (Outcome::Failed(Failure::RateLimit), "rate-limit"),
    (Outcome::Failed(Failure::Overloaded), "overloaded"),
    (Outcome::Failed(Failure::UsageLimit), "usage-limit"),
    (Outcome::Failed(Failure::MaxTurns), "max-turns"),
    (Outcome::Failed(Failure::MaxBudget), "max-budget"),
    (Outcome::Failed(Failure::MaxTokens), "max-tokens"),
    (Outcome::Failed(Failure::NoResult), "no-result"),
    (Outcome::Failed(Failure::Startup), "startup"),
    (Outcome::Failed(Failure::Killed), "killed"),
    (Outcome::Failed(Failure::OutOfMemory), "out-of-memory"),
    (Outcome::Failed(Failure::ProcessLimit), "process-limit"),
    (Outcome::Failed(Failure::DiskLimit), "disk-limit"),
    (Outcome::Failed(Failure::InitMismatch), "init-mismatch"),
    (Outcome::Failed(Failure::Workspace), "workspace"),
    (Outcome::Failed(Failure::Setup), "setup"),
    (Outcome::Failed(Failure::LogFull), "log-full"),
    (Outcome::Failed(Failure::Timeout), "timeout"),
    (Outcome::Failed(Failure::IdleTimeout), "idle-timeout"),
    (Outcome::Failed(Failure::LaunchTimeout), "launch-timeout"),
    (Outcome::Failed(Failure::Refused), "refused"),
    (Outcome::Failed(Failure::Lost), "lost"),
];

impl Outcome {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(outcome, _)| outcome)
    }

    /// The one word for it.
    pub fn name(self) -> &'static str {
        let named = NAMES.iter().find(|&&(outcome, _)| outcome == self);
        named.expect("the table names every outcome, and a test walks it").1
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Outcome {
    type Err = UnknownOutcome;

    fn from_str(name: &str) -> Result<Self, UnknownOutcome> {
        let found = NAMES.iter().find(|&&(_, known)| known == name);
        found.map(|&(outcome, _)| outcome).ok_or(UnknownOutcome)
    }
}

/// A word that names no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no outcome has this name")]
pub struct UnknownOutcome;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_name_that_reads_back() {
        // Spelled out, so that a new failure does not compile until the table is looked at.
        let place = |outcome: Outcome| match outcome {
            Outcome::Succeeded | Outcome::Cancelled => 0,
            Outcome::Failed(failure) => match failure {
                Failure::Claude | Failure::Api | Failure::UsageLimit | Failure::MaxTurns => 1,
                Failure::MaxBudget | Failure::NoResult | Failure::Startup | Failure::Killed => 2,
                Failure::MaxTokens | Failure::RateLimit | Failure::Overloaded => 2,
                Failure::OutOfMemory | Failure::InitMismatch | Failure::LogFull => 3,
                Failure::Workspace | Failure::Setup => 3,
                Failure::Timeout | Failure::IdleTimeout | Failure::LaunchTimeout => 4,
                Failure::Refused | Failure::Lost | Failure::ProcessLimit | Failure::DiskLimit => 5,
            },
        };
        let counts = Outcome::all().fold([0; 6], |mut counts, outcome| {
            counts[place(outcome)] += 1;
            counts
        });
        assert_eq!(counts, [2, 4, 7, 5, 3, 4]);
        for outcome in Outcome::all() {
            assert_eq!(outcome.name().parse(), Ok(outcome));
        }
    }

    #[test]
    fn a_retry_is_spent_only_on_what_another_run_may_mend() {
        let failures = Outcome::all().filter_map(|outcome| match outcome {
            Outcome::Failed(failure) => Some((failure, outcome.name())),
            _ => None,
        });
        let worth_it: Vec<_> =
            failures.filter(|(failure, _)| failure.may_pass()).map(|(_, name)| name).collect();
        let expected = [
            "claude-error",
            "api-error",
            "rate-limit",
            "overloaded",
            "no-result",
            "startup",
            "killed",
            "idle-timeout",
            "launch-timeout",
            "lost",
        ];
        assert_eq!(worth_it, expected);
    }
}
