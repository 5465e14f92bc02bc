//! What is known of each followed task, kept up to date by what its events say.

use jiff::Timestamp;

use super::said::{STARTING, Said};
use super::shown::Shown;
use crate::values::span;

/// One task as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The task's short id.
    pub(crate) short: Shown,
    /// A few words for it.
    pub(crate) title: Shown,
    /// Where it stands, or its outcome.
    pub(crate) state: Shown,
    /// The last tool call, or nothing yet.
    pub(crate) action: Shown,
    /// The agent's turns so far.
    pub(crate) turns: u64,
    /// What it cost in US dollars, once the agent said so.
    pub(crate) cost_usd: Option<f64>,
    /// Whether the agent was started, in whichever attempt.
    pub(crate) began_to_work: bool,
    /// Whether it has something of the library.
    pub(crate) of_library: bool,
    /// Whether it is over.
    pub(crate) finished: bool,
    message: String,
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
}

impl Row {
    /// A task of which nothing was heard yet.
    pub(crate) fn new(short: &str, title: &str) -> Self {
        const SHORT_CHARS_MAX: usize = 8;
        const TITLE_CHARS_MAX: usize = 24;
        Self {
            short: Shown::line(short, SHORT_CHARS_MAX),
            title: Shown::line(title.trim(), TITLE_CHARS_MAX),
            state: Shown::line("queued", SHORT_CHARS_MAX),
            action: Shown::default(),
            turns: 0,
            cost_usd: None,
            began_to_work: false,
            of_library: false,
            finished: false,
            message: String::new(),
            began: None,
            ended: None,
        }
    }

    /// Takes one thing that was said about it.
    pub(crate) fn take(&mut self, said: &Said) {
        match said {
            Said::Turn(message) if *message != self.message => {
                self.message.clone_from(message);
                self.turns += 1;
            }
            Said::Call(call) => self.action = call.clone(),
            Said::Totals { turns, cost_usd } => {
                self.turns = turns.unwrap_or(self.turns);
                self.cost_usd = cost_usd.or(self.cost_usd);
            }
            Said::State(state, at) => {
                self.state = state.clone();
                match state.as_str() {
                    "launching" => self.began = Some(*at),
                    STARTING => self.began_to_work = true,
                    _ => {}
                }
            }
            Said::Finished(outcome, at) => {
                self.state = outcome.clone();
                self.ended = Some(*at);
                self.finished = true;
            }
            Said::Library(_) => self.of_library = true,
            Said::Turn(_) | Said::Text(_) | Said::ToolError(_) | Said::Tools(_) | Said::Note(_) => {}
        }
    }

    /// Its turns, its cost, and how long it ran, as far as they are known.
    pub(crate) fn figures(&self) -> String {
        let mut figures = Vec::new();
        if let (Some(began), Some(ended)) = (self.began, self.ended) {
            figures.push(span(ended.duration_since(began).as_secs().unsigned_abs()));
        }
        if self.turns > 0 {
            figures.push(format!("{} turn{}", self.turns, if self.turns == 1 { "" } else { "s" }));
        }
        figures.extend(self.cost_usd.map(|cost| format!("${cost:.4}")));
        figures.join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_turns_by_message_until_the_agent_says_how_many() {
        let mut row = Row::new("1a2b3c4d", "fix the bug");
        for id in ["m1", "m1", "m2"] {
            row.take(&Said::Turn(id.to_owned()));
        }
        assert_eq!(row.figures(), "2 turns");
        row.take(&Said::Totals { turns: Some(1), cost_usd: Some(0.5) });
        assert_eq!(row.figures(), "1 turn  $0.5000");
    }

    #[test]
    fn time_runs_from_the_launch_to_the_end() {
        let mut row = Row::new("1a2b3c4d", "fix the bug");
        let at = |second| Timestamp::from_second(second).expect("in range");
        row.take(&Said::State(Shown::line("queued", 9), at(0)));
        row.take(&Said::State(Shown::line("launching", 9), at(10)));
        row.take(&Said::Finished(Shown::line("succeeded", 9), at(85)));
        assert_eq!(row.figures(), "1m15s");
    }
}
