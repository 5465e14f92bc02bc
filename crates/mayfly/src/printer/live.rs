//! The view of a terminal: messages scroll by, and below them each task keeps a line of its own.
//!
//! ```text
//! 1a2b3c4d fix the bug    Edit src/greet.sh
//! 9f8e7d6c add a test     I will add a test for the empty name.
//! ⠙   4s 1a2b3c4d fix the bug  running  3 turns  Edit src/greet.sh
//! ⠙   3s 9f8e7d6c add a test   running  1 turn
//!        77a0c1d2 write docs   queued
//! 1 waiting, 2 running, 0 over
//! ```
//!
//! A task loses its line when it is over. Those that wait have one while all fit on the screen; else they are a
//! count, and the view is no higher than the number of machines. A line is cut where the terminal ends: one that
//! wraps cannot be drawn over.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::Row;

/// How often the view moves by itself.
const TICK: Duration = Duration::from_millis(120);
/// How often the view is drawn at most, each second.
const DRAWS_PER_SECOND: u8 = 12;
/// What of the screen is no task's: a message, and the count.
const OTHER_LINES: usize = 2;

// All but the message has a fixed width, and the message is cut to what is left.
const RUNNING: &str = "{spinner} {elapsed:>4} {wide_msg}";
const WAITING: &str = "       {wide_msg}";

#[derive(Debug)]
pub(crate) struct Live {
    view: MultiProgress,
    lines: HashMap<usize, Line>,
    foot: ProgressBar,
    /// How many lines the terminal has now.
    height: fn() -> usize,
}

/// One task's.
#[derive(Debug)]
struct Line {
    bar: ProgressBar,
    waits: bool,
}

impl Live {
    /// A view on the terminal of standard output.
    pub(crate) fn new() -> Self {
        let height = || rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_row.into());
        Self::on(ProgressDrawTarget::stdout_with_hz(DRAWS_PER_SECOND), height)
    }

    fn on(target: ProgressDrawTarget, height: fn() -> usize) -> Self {
        let view = MultiProgress::with_draw_target(target);
        let foot = view.add(ProgressBar::new_spinner().with_style(style("{wide_msg}")));
        Self { view, lines: HashMap::new(), foot, height }
    }

    /// Shows a line above the view.
    pub(crate) fn print(&self, line: &str) -> io::Result<()> {
        self.view.println(line)
    }

    /// Brings all lines, and the count, up to date.
    pub(crate) fn update(&mut self, rows: &[Row], label: impl Fn(usize) -> String) {
        let lines = rows.iter().filter(|row| !row.finished).count();
        let room = lines + OTHER_LINES <= (self.height)();
        for (index, row) in rows.iter().enumerate() {
            match row.finished || (waits(row) && !room) {
                true => drop(self.lines.remove(&index).inspect(|line| line.bar.finish_and_clear())),
                false => self.show(index, row, format!("{}  {}", label(index), doing(row))),
            }
        }
        self.foot.set_message(counts(rows));
    }

    fn show(&mut self, index: usize, row: &Row, text: String) {
        let waits = waits(row);
        let line = self.lines.entry(index).or_insert_with(|| {
            let bar = ProgressBar::new_spinner().with_style(style(WAITING));
            Line { bar: self.view.insert_before(&self.foot, bar), waits: true }
        });
        if line.waits && !waits {
            line.bar.set_style(style(RUNNING));
            line.bar.reset_elapsed();
            line.bar.enable_steady_tick(TICK);
        } else if waits && !line.waits {
            line.bar.disable_steady_tick();
            line.bar.set_style(style(WAITING));
        }
        line.waits = waits;
        if line.bar.message() != text {
            line.bar.set_message(text);
        }
    }

    /// Takes the view away.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.lines.drain().for_each(|(_, line)| line.bar.finish_and_clear());
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

fn waits(row: &Row) -> bool {
    !row.finished && row.state.as_str() == "queued"
}

fn counts(rows: &[Row]) -> String {
    let over = rows.iter().filter(|row| row.finished).count();
    let waiting = rows.iter().filter(|row| waits(row)).count();
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
        let mut live = Live::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())), || 10);
        let shown = |text: &str| Shown::line(text, 200);
        let mut rows =
            vec![Row::new("1a2b3c4d", &"long ".repeat(9)), Row::new("9f8e7d6c", &"漢字".repeat(12))];
        for row in &mut rows {
            row.take(&Said::State(shown("running"), jiff::Timestamp::UNIX_EPOCH));
            row.take(&Said::Call(shown(&"Edit ".repeat(30))));
        }
        live.update(&rows, |index| format!("{} {}", rows[index].short, rows[index].title));
        let screen = terminal.contents();
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines.len(), 3, "{screen}");
        assert!(lines[0].contains("1a2b3c4d long") && lines[1].contains("9f8e7d6c 漢字"), "{screen}");
        assert_eq!(lines[2], "0 waiting, 2 running, 0 over");
        live.clear().expect("written");
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn tasks_that_wait_have_lines_only_while_all_fit() {
        let terminal = InMemoryTerm::new(6, 60);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 250);
        let mut live = Live::on(target, || 6);
        let shown = |text: &str| Shown::line(text, 200);
        let mut rows: Vec<Row> = (0..5).map(|number| Row::new(&format!("task{number}"), "")).collect();
        let mut seen = |rows: &[Row]| {
            live.update(rows, |index| rows[index].short.to_string());
            // What was held back for being too soon is drawn by the next change.
            live.foot.tick();
            let screen = terminal.contents();
            screen.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        rows[3].take(&Said::State(shown("running"), jiff::Timestamp::UNIX_EPOCH));
        let lines = seen(&rows);
        assert!(lines.len() == 2 && lines[0].ends_with("task3  running"), "{lines:?}");
        rows[0].take(&Said::Finished(shown("succeeded"), jiff::Timestamp::UNIX_EPOCH));
        let lines = seen(&rows);
        assert!(lines[0].ends_with("task3  running"), "{lines:?}");
        assert_eq!(
            lines[1..],
            ["task1  queued", "task2  queued", "task4  queued", "3 waiting, 1 running, 1 over"]
        );
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
