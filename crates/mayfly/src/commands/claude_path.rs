//! `mayfly claude-path`: the CLI that would be run, for tests and benchmarks that start it themselves.

use std::io::{self, Write as _};

use crate::claude;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};

pub(crate) async fn claude_path(settings: &Settings, environment: &Environment) -> Result<Exit, Stop> {
    let claude = claude::find(settings.claude(), environment).await?;
    writeln!(io::stdout(), "{}", claude.path.display())?;
    Ok(Exit::Success)
}
