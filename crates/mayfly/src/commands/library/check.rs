//! `mayfly library check`: all that is wrong, by mayfly and by the CLI.

use mayfly_engine::check_library;
use mayfly_library::Problem;

use super::{Place, counted, validate, wrong};
use crate::claude;
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
    let mut problems = check_library(&place.library);
    let claude = there(settings, environment).await?;
    if let Some(claude) = &claude {
        let mut interrupts = Interrupts::install()?;
        let asking = async { Ok(validate::validate(&place.library, &claude.path).await?) };
        problems.extend(interrupts.or_stop(asking).await?);
    }
    for problem in &problems {
        tell(problem, &mut printer, json);
    }
    if claude.is_none() {
        printer.aside(
            "skills and agents were not looked at by the CLI's own validator: no `claude` is here, and none is fetched for \
             a check; `mayfly demo` fetches it",
        );
    }
    if !problems.is_empty() {
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

/// The CLI, if it is here. One that the user names must be one.
async fn there(settings: &Settings, environment: &Environment) -> Result<Option<claude::Claude>, Stop> {
    let named = settings.claude();
    match claude::look(named.clone(), environment).await {
        Err(error) if named.is_some() => Err(Stop::usage(error)),
        found => Ok(found.ok().flatten()),
    }
}
