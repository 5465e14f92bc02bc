//! `mayfly doctor`: what a task needs, tried on this host; and what is in force, with its origin.
//!
//! Nothing is concluded from versions: a machine is made and unmade, and each part of it is tried by itself.
//! The folder, the database and the port are looked at by the checks of a start, and nothing there is made or changed.
//! What is made for a trial is in a temporary folder, on the file system of the data folder if that can be.

mod checks;
mod place;
mod report;

use std::io::{self, Write as _};

use crate::cli::DoctorArgs;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
pub(crate) use report::Check;
use report::{Listing, Report};

pub(crate) async fn doctor(
    args: &DoctorArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    if args.settings {
        let listing = Listing::of(settings, environment);
        say(&if args.json { json(&listing)? } else { listing.text() })?;
        return Ok(Exit::Success);
    }
    let report = Report { checks: checks::all(settings, environment).await? };
    say(&if args.json { json(&report)? } else { report.text() })?;
    Ok(report.exit())
}

fn json(what: &impl serde::Serialize) -> Result<String, Stop> {
    Ok(serde_json::to_string(what)? + "\n")
}

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
