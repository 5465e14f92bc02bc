//! Everything that the followed tasks say, on its way to the user.
//!
//! Three forms: a [`live`] view on a terminal, plain labelled lines elsewhere, and the events as they came
//! (`--json`), one JSON object a line with nothing else on standard output. What a person reads is [`Shown`].
//!
//! Writing never ends a run: the work must still come home. The first error is kept for the end.

mod board;
mod live;
mod said;
mod shown;

use std::io::{self, IsTerminal as _, Write};

use mayfly_wire::event::Event;
use serde::Serialize;

use crate::environment::Environment;
use crate::exit::{Exit, Stop};

pub(crate) use board::Row;
use live::Live;
use said::Said;
pub(crate) use said::merged_lines;
pub(crate) use shown::Shown;

/// Shows what tasks say.
pub(crate) struct Printer {
    rows: Vec<Row>,
    form: Form,
    colors: bool,
    out: Box<dyn Write + Send>,
    asides: Box<dyn Write + Send>,
    broken: Option<io::Error>,
}

/// How it is shown.
#[derive(Debug)]
enum Form {
    Live(Live),
    Plain,
    Json,
}

impl Printer {
    /// The printer of this process.
    pub(crate) fn of_process(json: bool, environment: &Environment) -> Self {
        let terminal =
            io::stdout().is_terminal() && environment.get("TERM").is_some_and(|term| term != "dumb");
        let form = match () {
            () if json => Form::Json,
            () if terminal => Form::Live(Live::new()),
            () => Form::Plain,
        };
        let colors = terminal && !json && environment.get("NO_COLOR").is_none();
        Self { colors, ..Self::with(form, Box::new(io::stdout()), Box::new(io::stderr())) }
    }

    /// The printer of a command without a view: lines, or JSON.
    pub(crate) fn of_lines(json: bool, environment: &Environment) -> Self {
        let mut printer = Self::of_process(json, environment);
        printer.end();
        printer
    }

    fn with(form: Form, out: Box<dyn Write + Send>, asides: Box<dyn Write + Send>) -> Self {
        Self { rows: Vec::new(), form, colors: false, out, asides, broken: None }
    }

    /// The tasks that are followed from here on, in the order of their index.
    pub(crate) fn follow(&mut self, rows: Vec<Row>) {
        self.rows = rows;
        self.update();
    }

    /// Whether any task was accepted.
    pub(crate) fn follows_any(&self) -> bool {
        !self.rows.is_empty()
    }

    /// What is known of a task.
    pub(crate) fn row(&self, index: usize) -> &Row {
        &self.rows[index]
    }

    /// Shows one line of a task's event stream.
    pub(crate) fn event(&mut self, index: usize, line: &str) {
        let said = Event::parse(line).map(|event| said::said(&event)).unwrap_or_default();
        if matches!(self.form, Form::Json) {
            let written = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
            self.keep_error(written);
        }
        for said in &said {
            self.rows[index].take(said);
            self.say(index, said);
        }
        self.update();
    }

    fn update(&mut self) {
        if let Form::Live(live) = &mut self.form {
            live.update(&self.rows, |index| label(&self.rows, index));
        }
    }

    fn say(&mut self, index: usize, said: &Said) {
        let (color, lines) = match said {
            Said::Text(lines) => (None, lines.clone()),
            Said::Call(call) => (Some(DIM), vec![call.clone()]),
            Said::ToolError(text) => (Some(RED), vec![Shown::line(&format!("failed: {text}"), usize::MAX)]),
            Said::Note(text) | Said::Library(text) => (Some(YELLOW), vec![text.clone()]),
            // What a library holds an agent to is of interest; what the CLI has by itself is not.
            Said::Tools(text) if self.rows[index].of_library => (Some(YELLOW), vec![text.clone()]),
            Said::State(state, _) => (Some(DIM), vec![state.clone()]),
            Said::Finished(outcome, _) => (Some(BOLD), vec![outcome.clone()]),
            Said::Turn(_) | Said::Totals { .. } | Said::Tools(_) => return,
        };
        // The view has the states; a line each would only push the messages away.
        if matches!((said, &self.form), (Said::State(..), Form::Live(_)) | (_, Form::Json)) {
            return;
        }
        let label = label(&self.rows, index);
        let label = self.paint(Some(LABELS[index % LABELS.len()]), &label);
        for line in lines {
            let line = self.paint(color, line.as_str());
            self.line(&format!("{label}  {line}"));
        }
    }

    /// Tells the user something that is no part of the result.
    pub(crate) fn aside(&mut self, text: &str) {
        for line in Shown::lines(text, ASIDE_LINES_MAX, ASIDE_CHARS_MAX) {
            let line = format!("mayfly: {line}");
            if let Form::Live(_) = self.form {
                self.line(&self.paint(Some(YELLOW), &line));
            } else {
                // Standard error is the last resort: there is no other place to complain about it.
                let _ = writeln!(self.asides, "{line}");
            }
        }
    }

    /// Ends the live view; what follows is [`closing`](Self::closing).
    pub(crate) fn end(&mut self) {
        if let Form::Live(live) = &mut self.form {
            let cleared = live.clear();
            self.form = Form::Plain;
            self.keep_error(cleared);
        }
    }

    /// One of the last lines. With `--json` they go to standard error.
    pub(crate) fn closing(&mut self, line: &str) {
        let line = Shown::line(line, usize::MAX);
        let written = match self.form {
            Form::Json => writeln!(self.asides, "{line}"),
            Form::Plain | Form::Live(_) => return self.line(line.as_str()),
        };
        self.keep_error(written);
    }

    /// What a command was asked for, as JSON on a line of standard output.
    pub(crate) fn json(&mut self, value: &impl Serialize) {
        let mut line = serde_json::to_vec(value).expect("the API's types are JSON");
        line.push(b'\n');
        self.bytes(&line);
    }

    /// What a command was asked for, as it is.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let written = self.out.write_all(bytes).and_then(|()| self.out.flush());
        self.keep_error(written);
    }

    /// A line of a diff.
    pub(crate) fn code(&mut self, line: &str) {
        let color = match line.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', ..] => Some(BOLD),
            [b'@', ..] => Some(CYAN),
            [b'+', ..] => Some(GREEN),
            [b'-', ..] => Some(RED),
            _ => None,
        };
        self.line(&self.paint(color, Shown::code(line).as_str()));
    }

    /// Whether whoever read standard output has gone away.
    pub(crate) fn unread(&self) -> bool {
        self.broken.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit of a command that has done all else: output that nobody reads ends it quietly, and output that
    /// cannot be written is an error.
    pub(crate) fn exit(self, exit: Exit) -> Result<Exit, Stop> {
        match self.broken {
            None => Ok(exit),
            Some(_) if self.unread() => Ok(exit.max(Exit::Unread)),
            Some(error) => Err(anyhow::Error::new(error).context("cannot write to standard output").into()),
        }
    }

    fn line(&mut self, text: &str) {
        let written = match &self.form {
            Form::Live(view) => view.print(text),
            Form::Plain | Form::Json => writeln!(self.out, "{text}").and_then(|()| self.out.flush()),
        };
        self.keep_error(written);
    }

    fn keep_error(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.broken.get_or_insert(error);
        }
    }

    fn paint(&self, color: Option<u8>, text: &str) -> String {
        match color.filter(|_| self.colors) {
            Some(color) => format!("\u{1b}[{color}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }
}

/// A task's label, as wide as the widest; a lone task needs no title.
fn label(rows: &[Row], index: usize) -> String {
    let row = &rows[index];
    if rows.len() == 1 {
        return row.short.to_string();
    }
    let width = rows.iter().map(|row| row.title.len()).max().unwrap_or_default();
    format!("{} {:width$}", row.short, row.title)
}

const BOLD: u8 = 1;
const DIM: u8 = 2;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const CYAN: u8 = 36;
/// The colours that tell labels apart.
const LABELS: [u8; 5] = [36, 32, 35, 34, 33];
/// The most lines of an aside.
const ASIDE_LINES_MAX: usize = 10;
/// The most characters of one of its lines.
const ASIDE_CHARS_MAX: usize = 500;

#[cfg(test)]
mod tests;
