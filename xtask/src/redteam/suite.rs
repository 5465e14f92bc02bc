//! The tests that the threat model names, run by nextest, as a row for each threat.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::hunt::files;
use super::{Row, Verdict};
use crate::orchestrator::Place;

/// A row of the threat model's tables.
#[derive(Debug, PartialEq, Eq)]
struct Threat {
    case: String,
    words: String,
    tests: BTreeSet<String>,
}

/// What became of each test, by its name; several of one name are one.
#[derive(Debug, Default)]
struct Outcomes {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// Why a test that passed was none.
    skipped: BTreeMap<String, String>,
}

/// Runs them all, once.
pub(super) async fn run(place: &Place, provider: &str) -> anyhow::Result<Vec<Row>> {
    let threats = threats(&fs::read_to_string(top().join("docs/threat-model.md"))?);
    ensure!(!threats.is_empty(), "docs/threat-model.md has no rows");
    let tests: BTreeSet<&String> = threats.iter().flat_map(|threat| &threat.tests).collect();
    let outcomes = outcomes(place, &tests).await?;
    Ok(threats.into_iter().map(|threat| outcomes.row(threat, provider)).collect())
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows `| S01 | words | what holds | tests |`.
fn threats(text: &str) -> Vec<Threat> {
    let rows = text.lines().filter(|line| line.starts_with("| S"));
    let threat = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [case, words, _, tests] = cells[..] else { return None };
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some(Threat { case: case.to_owned(), words: words.to_owned(), tests })
    };
    rows.filter_map(threat).collect()
}

async fn outcomes(place: &Place, tests: &BTreeSet<&String>) -> anyhow::Result<Outcomes> {
    let names: Vec<&str> = tests.iter().map(|test| test.as_str()).collect();
    let (packages, skipped) = (packages(&top().join("crates"), tests)?, place.home.join("skipped"));
    let mut command = Command::new("cargo");
    command.args(["nextest", "run", "--locked", "--features", "mayfly/failpoints"]);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    command.args(["--no-fail-fast", "--message-format", "libtest-json"]);
    command.args(["-E", &format!("test(/(^|::)({})$/)", names.join("|"))]);
    command.env("NEXTEST_EXPERIMENTAL_LIBTEST_JSON", "1");
    command.env("MAYFLY_TEST_CLAUDE", &place.claude).env("MAYFLY_TEST_SKIPPED", &skipped);
    command.current_dir(top()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().context("cannot run `cargo nextest`")?;
    let mut lines = BufReader::new(child.stdout.take().context("its standard output is a pipe")?).lines();
    let mut outcomes = Outcomes::default();
    while let Some(line) = lines.next_line().await? {
        if let Some(over) = outcomes.hear(&line) {
            // With this form of output nextest says nothing else.
            eprintln!("{over}");
        }
    }
    child.wait().await?;
    outcomes.skips(&fs::read_to_string(skipped).unwrap_or_default());
    ensure!(!outcomes.passed.is_empty(), "no test ran: see what cargo says");
    Ok(outcomes)
}

/// The packages with a function of a test's name: no others need to be built.
fn packages(folder: &Path, tests: &BTreeSet<&String>) -> anyhow::Result<BTreeSet<String>> {
    let mut packages = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let entry = entry?;
        if has_one(&entry.path(), tests)? {
            packages.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(packages)
}

/// Whether a file below a folder has a function of one of these names.
fn has_one(folder: &Path, tests: &BTreeSet<&String>) -> anyhow::Result<bool> {
    let sources = files(folder)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs"));
    for source in sources {
        let text =
            fs::read_to_string(&source).with_context(|| format!("cannot read `{}`", source.display()))?;
        let mut functions = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
        if functions.any(|function| tests.contains(&function.to_owned())) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Outcomes {
    /// Takes in a line that nextest printed, which is an object; what it says of a test that is over.
    fn hear(&mut self, line: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Line {
            r#type: String,
            event: String,
            #[serde(default)]
            name: String,
        }
        let line: Line = serde_json::from_str(line).ok()?;
        let name = line.name.rsplit([':', '$']).next().unwrap_or_default().to_owned();
        let over = format!("{} {name}", line.event);
        match (line.r#type.as_str(), line.event.as_str()) {
            ("test", "ok") => drop(self.passed.insert(name)),
            ("test", "failed" | "timeout") => drop(self.failed.insert(name)),
            _ => return None,
        }
        Some(over)
    }

    /// Reads the file of skips: `skipped NAME: why`.
    fn skips(&mut self, lines: &str) {
        for line in lines.lines().filter_map(|line| line.strip_prefix("skipped ")) {
            if let Some((name, why)) = line.split_once(": ") {
                let name = name.rsplit("::").next().unwrap_or_default();
                self.skipped.insert(name.to_owned(), why.to_owned());
            }
        }
    }

    fn row(&self, threat: Threat, provider: &str) -> Row {
        let all = threat.tests.len();
        let among = |set: &BTreeSet<String>| threat.tests.intersection(set).cloned().collect::<Vec<_>>();
        let unheard: Vec<String> = threat
            .tests
            .iter()
            .filter(|test| !self.passed.contains(*test) && !self.failed.contains(*test))
            .cloned()
            .collect();
        let failed = [among(&self.failed), unheard].concat();
        let skipped: Vec<&String> = threat.tests.iter().filter_map(|test| self.skipped.get(test)).collect();
        let (verdict, detail) = match (failed.is_empty(), skipped.first()) {
            (false, _) => (Verdict::Failed, format!("failed, or did not run: {}", failed.join(", "))),
            (true, Some(why)) if skipped.len() == all => (Verdict::NotHere, (*why).clone()),
            (true, Some(why)) => {
                (Verdict::Held, format!("{} of {all} tests; not here: {why}", all - skipped.len()))
            }
            (true, None) => (Verdict::Held, format!("{all} tests")),
        };
        Row { case: threat.case, provider: provider.to_owned(), tried: threat.words, verdict, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threat() -> Threat {
        threats("| S01 | hooks | not run | `a`, `b` |\n| case | x | y | z |").remove(0)
    }

    fn verdict(lines: &str, skips: &str) -> Verdict {
        let mut outcomes = Outcomes::default();
        assert!(lines.lines().all(|line| outcomes.hear(line).is_some()));
        assert_eq!(outcomes.hear(r#"{"type":"suite","event":"ok"}"#), None);
        outcomes.skips(skips);
        outcomes.row(threat(), "sandbox").verdict
    }

    /// A package counts for a test of its own alone.
    #[test]
    fn only_packages_with_a_test_are_built() {
        let dir = tempfile::tempdir().expect("a folder");
        for (package, text) in
            [("one", "#[test]\nfn a() {}"), ("two", "fn ab() { a(); }"), ("three", "// `a`")]
        {
            fs::create_dir_all(dir.path().join(package).join("src")).expect("made");
            fs::write(dir.path().join(package).join("src/lib.rs"), text).expect("written");
        }
        let tests = threat().tests;
        let found = packages(dir.path(), &tests.iter().collect()).expect("read");
        assert_eq!(found, BTreeSet::from(["one".to_owned()]));
    }

    /// A row holds only if every test of it ran and passed.
    #[test]
    fn a_row_is_as_good_as_the_worst_of_its_tests() {
        assert_eq!(threat().tests.len(), 2);
        let line = |name: &str, event: &str| {
            format!(
                "{{\"type\":\"test\",\"event\":\"{event}\",\"name\":\"mayfly::real$isolation::{name}\"}}\n"
            )
        };
        let both = line("a", "ok") + &line("b", "ok");
        assert_eq!(verdict(&both, ""), Verdict::Held);
        assert_eq!(verdict(&(both.clone() + &line("b", "failed")), ""), Verdict::Failed);
        assert_eq!(verdict(&line("a", "ok"), ""), Verdict::Failed);
        assert_eq!(verdict(&both, "skipped x::b: no root\n"), Verdict::Held);
        assert_eq!(verdict(&both, "skipped x::b: no root\nskipped a: no claude\n"), Verdict::NotHere);
    }
}
