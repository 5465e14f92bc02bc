//! Every attack that the threat model lists, tried here, and a table of what held.
//!
//! ```text
//! docs/threat-model.md ──► the tests that its rows name ──► a row each
//! a repository that means harm, a canary ──► mayfly run, the real claude, a real machine ──► rows by probe
//!                                    everything that is left ──► rows of the search for the canary
//! ```
//!
//! A row is from a run that this command made. What cannot run here is a row too, with its cause, and no success.

mod hunt;
mod live;
mod probes;
mod suite;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use mayfly_provider::Provider as _;
use serde::Serialize;

use crate::machines::sandbox;
use crate::orchestrator::{Build, Place};

const ABOUT: &str = "\
Tries every attack that docs/threat-model.md lists, and prints what held.

First the tests that its rows name are run. Then a repository that means harm is given to a real claude in a real
machine, by `mayfly run` with a scripted model; its agent tries what a machine bounds, and looks for the owner's
credential, a canary, in every file, environment and memory that it can read. Afterwards the canary is looked for in
all that is left: events, logs, the database and its journal, results, the repository. The exit code is 1 if a row
failed. Nothing of this needs an account or the internet.";

const EXAMPLES: &str = "\
Examples:
  cargo xtask redteam                   # all of it
  cargo xtask redteam --live            # a machine and the search alone: half a minute
  cargo xtask redteam --live --json     # one object a row";

#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Leave out the tests; try a machine, and search for the canary
    #[arg(long)]
    live: bool,
    /// Take the mayfly that is beside this program as it is, and build nothing; its tests are built all the same
    #[arg(long)]
    built: bool,
    /// Print one JSON object a row, and nothing else
    #[arg(long)]
    json: bool,
    /// The Claude Code CLI to run [default: the pinned one, fetched if need be]
    #[arg(long, value_name = "PATH")]
    claude: Option<PathBuf>,
}

/// What became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Held,
    Failed,
    /// It was not tried here; no success.
    NotHere,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// The threat's name in docs/threat-model.md.
    pub(crate) case: String,
    /// Where machines came from.
    pub(crate) provider: String,
    pub(crate) tried: String,
    pub(crate) verdict: Verdict,
    /// What held, or what did not.
    pub(crate) detail: String,
}

impl Row {
    /// Of something that was tried: what held, if it did, else what did not.
    fn of(provider: &str, case: &str, tried: &str, good: bool, (held, failed): (&str, &str)) -> Self {
        let (verdict, detail) = if good { (Verdict::Held, held) } else { (Verdict::Failed, failed) };
        let [case, provider, tried, detail] = [case, provider, tried, detail].map(str::to_owned);
        Self { case, provider, tried, verdict, detail }
    }

    /// Of a provider that makes no machines here.
    fn absent(provider: &str, why: &str) -> Self {
        let row = Self::of(provider, "all", "to make a machine", false, ("", why));
        Self { verdict: Verdict::NotHere, ..row }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Held => "held",
            Verdict::Failed => "FAILED",
            Verdict::NotHere => "not here",
        };
        write!(f, "{:<8} {:<8} {verdict:<8} {}: {}", self.case, self.provider, self.tried, self.detail)
    }
}

/// The rows so far, each shown as soon as it is there.
struct Table {
    rows: Vec<Row>,
    json: bool,
}

impl Table {
    fn add(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        for row in &rows {
            if self.json {
                println!("{}", serde_json::to_string(row)?);
            } else {
                println!("{row}");
            }
        }
        self.rows.extend(rows);
        Ok(())
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    fn end(&self) {
        if !self.json {
            let [held, failed, absent] =
                [Verdict::Held, Verdict::Failed, Verdict::NotHere].map(|verdict| self.count(verdict));
            println!("{held} held, {failed} failed, {absent} could not be tried here");
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let home = tempfile::tempdir()?;
    let build = if args.built { Build::Not } else { Build::First };
    let place = Place::prepare(home.path(), build, args.claude.clone()).await?;
    let mut table = Table { rows: Vec::new(), json: args.json };
    let absent = |(provider, why)| Row::absent(provider, why);
    let elsewhere = [
        ("microvm", "its guests need an image and minutes: the tests of mayfly-provider-microvm try them"),
        ("fly", "its machines are Fly's"),
    ];
    table.add(elsewhere.map(absent).to_vec())?;
    in_sandboxes(&place, args.live, &mut table).await?;
    table.end();
    ensure!(table.count(Verdict::Held) > 0, "nothing could be tried here");
    Ok(ExitCode::from(u8::from(table.count(Verdict::Failed) > 0)))
}

/// All of it in machines that are Linux sandboxes on this host, if there can be any.
async fn in_sandboxes(place: &Place, live: bool, table: &mut Table) -> anyhow::Result<()> {
    // In a folder of its own: an orchestrator takes none in which somebody was before.
    let trial = Place {
        mayfly: place.mayfly.clone(),
        claude: place.claude.clone(),
        home: place.home.join("trial"),
        environment: Vec::new(),
    };
    let sandbox = sandbox(&trial);
    if let Err(error) = sandbox.probe().await {
        return table.add(vec![Row::absent(sandbox.name(), &error.to_string())]);
    }
    if !live {
        table.add(suite::run(place, sandbox.name()).await?)?;
    }
    table.add(live::run(place, sandbox.name()).await?)
}
