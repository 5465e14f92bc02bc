//! `mayfly library check`: all that is wrong, by mayfly and by the CLI.

use mayfly_engine::check_library;
use mayfly_library::Problem;

use super::{Place, counted, validate, wrong};
use crate::claude::{self, ClaudeError};
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::printer::Printer;

pub(super) async fn check(
    place: &Place,
    settings: &Settings,
    environment: &Environment,
    json: bool,
) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(json, environment);
    // Told before the CLI is asked, which may fail, or take long.
    let own = check_library(&place.library);
    for problem in &own {
        tell(problem, &mut printer, json);
    }
    let theirs = by_claude(place, settings, environment).await?;
    for problem in theirs.iter().flatten() {
        tell(problem, &mut printer, json);
    }
    if theirs.is_none() {
        printer.aside(
            "skills and agents were not looked at by the CLI's own validator: no `claude` is here, and none is fetched for \
             a check; `mayfly demo` fetches it",
        );
    }
    if !own.is_empty() || theirs.is_some_and(|theirs| !theirs.is_empty()) {
        return printer.exit(Exit::Failed);
    }
    let count = place.library.ids().map_err(wrong)?.len();
    printer.aside(&format!("nothing is wrong: {} in `{}`", counted(count, "resource"), place.shown()));
    printer.exit(Exit::Success)
}

fn tell(problem: &Problem, printer: &mut Printer, json: bool) {
    match json {
        true => printer.json(problem),
        false => printer.closing(&problem.to_string()),
    }
}

/// What the CLI finds, or why it finds nothing. `None`: it is not here.
async fn by_claude(
    place: &Place,
    settings: &Settings,
    environment: &Environment,
) -> Result<Option<Vec<Problem>>, Stop> {
    let named = settings.claude();
    let claude = match claude::look(named.clone(), environment).await {
        Ok(Some(claude)) => claude,
        Ok(None) | Err(ClaudeError::NoPin | ClaudeError::NoCache) => return Ok(None),
        // One that the user names must be one.
        Err(error) if named.is_some() => return Err(Stop::usage(error)),
        Err(error) => return Ok(Some(vec![unasked(&error.into())])),
    };
    let mut interrupts = Interrupts::install()?;
    let asking = async { Ok(validate::validate(&place.library, &claude.path).await) };
    let found = interrupts.or_stop(asking).await?;
    Ok(Some(found.unwrap_or_else(|error| vec![unasked(&error)])))
}

/// A validator that fails has not said that all is well.
fn unasked(error: &anyhow::Error) -> Problem {
    let words = format!("skills and agents were not looked at by the CLI's own validator: {error:#}");
    Problem::new("the library", words)
}
