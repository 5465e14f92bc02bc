//! What the doctor says: lines for a person, or one object.

use serde::Serialize;

use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::printer::Shown;

/// The most lines of one detail or fix, and the most characters of one.
const LINES_MAX: usize = 10;
const LINE_CHARS_MAX: usize = 1000;

/// All that was tried.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What it is.
    pub(crate) name: String,
    pub(crate) state: State,
    /// What was found.
    pub(crate) detail: String,
    /// The command that puts it right, if there is one.
    pub(crate) fix: Option<String>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// A task can run all the same.
    Warning,
    /// No task can run.
    Failed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl Check {
    pub(crate) fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Ok, detail: detail.into(), fix: None }
    }

    pub(crate) fn warning(name: &str, detail: impl Into<String>, fix: Option<String>) -> Self {
        Self { state: State::Warning, fix, ..Self::ok(name, detail) }
    }

    pub(crate) fn failed(name: &str, detail: impl Into<String>, fix: Option<String>) -> Self {
        Self { state: State::Failed, fix, ..Self::ok(name, detail) }
    }
}

impl Report {
    /// Whether a task could run.
    pub(super) fn exit(&self) -> Exit {
        match self.failed().next() {
            Some(_) => Exit::Trouble,
            None => Exit::Success,
        }
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let paragraph = |check: &Check| {
            let mut lines =
                labelled(&format!("{:7}  {:width$}", check.state.word(), check.name), &check.detail);
            if let Some(fix) = &check.fix {
                lines.extend(labelled(&format!("{:7}  {:>width$}", "", "fix:"), fix));
            }
            lines
        };
        let failed: Vec<_> = self.failed().map(|check| check.name.as_str()).collect();
        let end = match failed[..] {
            [] => "\nA task can run here.\n".to_owned(),
            _ => format!("\nNo task can run here, for want of: {}\n", failed.join(", ")),
        };
        self.checks.iter().flat_map(paragraph).chain([end]).collect::<Vec<_>>().join("\n")
    }

    fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.state == State::Failed)
    }
}

/// The lines of `text` as a terminal may show them, the first with a label and the others below it.
fn labelled(label: &str, text: &str) -> Vec<String> {
    let blank = " ".repeat(label.len());
    let labels = std::iter::once(label).chain(std::iter::repeat(blank.as_str()));
    let lines = Shown::lines(text, LINES_MAX, LINE_CHARS_MAX);
    labels.zip(lines).map(|(label, line)| format!("{label}  {line}")).collect()
}

/// What is in force.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    /// The file that was read.
    file: Option<String>,
    settings: Vec<Setting>,
}

/// One key.
#[derive(Debug, Serialize)]
struct Setting {
    key: String,
    /// As TOML has it; none if there is none.
    value: Option<String>,
    /// What happens without a value.
    #[serde(skip)]
    instead: String,
    /// `flag`, `default`, or the place in the file.
    from: String,
}

impl Listing {
    /// The data folder is told as it is found, for it is always one.
    pub(super) fn of(settings: &Settings, environment: &Environment) -> Self {
        let data = || {
            environment
                .data_folder(settings.data())
                .ok()
                .map(|data| format!("{:?}", data.display().to_string()))
        };
        let rows = settings.rows().into_iter().map(|row| Setting {
            from: settings.origin(&row),
            value: if row.key == "data" { data() } else { row.value },
            key: row.key,
            instead: row.instead,
        });
        Self { file: settings.file().map(|file| file.display().to_string()), settings: rows.collect() }
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let value = |setting: &Setting| match &setting.value {
            Some(value) => Shown::line(value, LINE_CHARS_MAX),
            None => Shown::line(&format!("({})", setting.instead), LINE_CHARS_MAX),
        };
        let widest = |of: &dyn Fn(&Setting) -> usize| self.settings.iter().map(of).max().unwrap_or_default();
        let (keys, values) = (widest(&|setting| setting.key.len()), widest(&|setting| value(setting).len()));
        let line = |setting: &Setting| {
            let from = Shown::line(&setting.from, LINE_CHARS_MAX);
            format!("{:keys$}  {:values$}  {from}\n", setting.key, value(setting))
        };
        self.settings.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated() -> Report {
        let checks = vec![
            Check::ok("configuration", "/home/u/.config/mayfly/mayfly.toml"),
            Check::failed(
                "user namespaces",
                "cannot make a user namespace: user namespaces are off here: set the sysctl \
                 user.max_user_namespaces to 10000 (No space left on device (os error 28))",
                Some("sudo sysctl -w user.max_user_namespaces=10000".to_owned()),
            ),
            Check::warning(
                "memory limit",
                "none; machines run without it",
                Some("systemd-run --scope mayfly serve".to_owned()),
            ),
            Check::failed(
                "credential",
                "none\u{1b}[2J is set\nin the environment",
                Some("one\ntwo".to_owned()),
            ),
        ];
        Report { checks }
    }

    #[test]
    fn a_report_names_each_check_and_the_command_that_puts_it_right() {
        insta::assert_snapshot!(simulated().text());
        insta::assert_snapshot!(serde_json::to_string_pretty(&simulated()).expect("plain data"));
    }

    #[test]
    fn a_task_could_run_with_warnings_alone() {
        let mut report = simulated();
        assert_eq!(report.exit(), Exit::Trouble);
        report.checks.retain(|check| check.state != State::Failed);
        assert_eq!(report.exit(), Exit::Success);
        assert!(report.text().ends_with("\nA task can run here.\n"));
    }
}
