//! Tells on standard error how a step goes that takes its time: a line that moves on a terminal, else a new line now
//! and then.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often [`Progress::tell`] is worth calling.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// How often a line is printed where nothing can move.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One step that takes its time.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    began: Instant,
    told: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to tell about `what`.
    pub(crate) fn new(what: String) -> Self {
        let mut progress = Self::if_slow(what);
        progress.told = None;
        progress.tell(0);
        progress
    }

    /// The same about something that may be quick: where nothing can move, it is told of once it is not.
    pub(crate) fn if_slow(what: String) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is good");
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| ProgressBar::new_spinner().with_style(style));
        Self { what, began: Instant::now(), told: Some(Instant::now()), bar }
    }

    /// Tells how many bytes there are by now.
    pub(crate) fn tell(&mut self, bytes: u64) {
        self.note(&format!("{} MB", bytes / 1_000_000));
    }

    /// Tells how far it is, in words.
    pub(crate) fn note(&mut self, words: &str) {
        let line = format!("{}: {}s, {words}", self.what, self.began.elapsed().as_secs());
        if let Some(bar) = &self.bar {
            bar.set_message(line);
            bar.tick();
        } else if self.told.is_none_or(|told| told.elapsed() >= LINE_EVERY) {
            self.told = Some(Instant::now());
            say(&line);
        }
    }

    /// The last line about it.
    pub(crate) fn end(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&format!("{}: done in {}s", self.what, self.began.elapsed().as_secs()));
    }
}

impl Drop for Progress {
    /// What moves goes with it.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// One line for the user; `text` is our own.
#[expect(clippy::print_stderr, reason = "the progress of a step before there is any other output")]
pub(crate) fn say(text: &str) {
    eprintln!("mayfly: {text}");
}
