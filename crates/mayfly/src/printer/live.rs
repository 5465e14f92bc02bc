//! The view of a terminal: messages scroll by, and below them each running task keeps a line of its own.
//!
//! ```text
//! 1a2b3c4d fix the bug    Edit src/greet.sh
//! 9f8e7d6c add a test     I will add a test for the empty name.
//! ⠙   4s 1a2b3c4d fix the bug  running  3 turns  Edit src/greet.sh
//! ⠙   3s 9f8e7d6c add a test   running  1 turn
//! 3 waiting, 2 running, 0 over
//! ```
//!
//! A task gets its line when it is launched and loses it when it is over, so that the view is no higher than
//! the number of machines. A line is cut where the terminal ends: one that wraps cannot be drawn over.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::Row;

/// How often the view moves by itself.
const TICK: Duration = Duration::from_millis(120);
/// How often the view is drawn at most, each second.
const DRAWS_PER_SECOND: u8 = 12;

#[derive(Debug)]
pub(crate) struct Live {
    view: MultiProgress,
    lines: HashMap<usize, ProgressBar>,
    foot: ProgressBar,
}

impl Live {
    /// A view on the terminal of standard output.
    pub(crate) fn new() -> Self {
        Self::on(ProgressDrawTarget::stdout_with_hz(DRAWS_PER_SECOND))
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let view = MultiProgress::with_draw_target(target);
        let foot = view.add(ProgressBar::new_spinner().with_style(style("{wide_msg}")));
        Self { view, lines: HashMap::new(), foot }
    }

    /// Shows a line above the view.
    pub(crate) fn print(&self, line: &str) -> io::Result<()> {
        self.view.println(line)
    }

    /// Brings the task's line, and the count, up to date.
    pub(crate) fn update(&mut self, index: usize, label: &str, rows: &[Row]) {
        let row = &rows[index];
        if row.finished || row.state.as_str() == "queued" {
            self.lines.remove(&index).inspect(ProgressBar::finish_and_clear);
        } else {
            let line = self.lines.entry(index).or_insert_with(|| {
                // All but the message has a fixed width, and the message is cut to what is left.
                let line = ProgressBar::new_spinner().with_style(style("{spinner} {elapsed:>4} {wide_msg}"));
                let line = self.view.insert_before(&self.foot, line);
                line.enable_steady_tick(TICK);
                line
            });
            line.set_message(format!("{label}  {}", doing(row)));
        }
        self.foot.set_message(counts(rows));
    }

    /// Takes the view away.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.lines.drain().for_each(|(_, line)| line.finish_and_clear());
        self.foot.finish_and_clear();
        self.view.clear()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates here are good")
}

/// What a task is doing, in one line.
fn doing(row: &Row) -> String {
    let figures = row.figures();
    let parts = [row.state.as_str(), figures.as_str(), row.action.as_str()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

fn counts(rows: &[Row]) -> String {
    let over = rows.iter().filter(|row| row.finished).count();
    let waiting = rows.iter().filter(|row| !row.finished && row.state.as_str() == "queued").count();
    format!("{waiting} waiting, {} running, {over} over", rows.len() - over - waiting)
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;
    use crate::printer::said::Said;
    use crate::printer::shown::Shown;

    #[test]
    fn on_a_narrow_terminal_each_task_still_has_one_line() {
        let terminal = InMemoryTerm::new(10, 40);
        let mut live = Live::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let shown = |text: &str| Shown::line(text, 200);
        let mut rows =
            vec![Row::new("1a2b3c4d", &"long ".repeat(9)), Row::new("9f8e7d6c", &"漢字".repeat(12))];
        for row in &mut rows {
            row.take(&Said::State(shown("running"), jiff::Timestamp::UNIX_EPOCH));
            row.take(&Said::Call(shown(&"Edit ".repeat(30))));
        }
        for index in 0..2 {
            live.update(index, &format!("{} {}", rows[index].short, rows[index].title), &rows);
        }
        let screen = terminal.contents();
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines.len(), 3, "{screen}");
        assert!(lines[0].contains("1a2b3c4d long") && lines[1].contains("9f8e7d6c 漢字"), "{screen}");
        assert_eq!(lines[2], "0 waiting, 2 running, 0 over");
        live.clear().expect("written");
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn a_line_tells_state_figures_and_the_last_action() {
        let mut row = Row::new("1a2b3c4d", "fix the bug");
        assert_eq!(doing(&row), "queued");
        let shown = |text| Shown::line(text, 100);
        row.take(&Said::State(shown("running"), jiff::Timestamp::UNIX_EPOCH));
        row.take(&Said::Turn("m1".to_owned()));
        row.take(&Said::Call(shown("Edit src/x.sh")));
        assert_eq!(doing(&row), "running  1 turn  Edit src/x.sh");
        let mut over = row.clone();
        over.take(&Said::Finished(shown("succeeded"), jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(counts(&[row, over, Row::new("9f8e7d6c", "wait")]), "1 waiting, 1 running, 1 over");
    }
}
