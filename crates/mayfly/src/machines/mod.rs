//! Where machines come from: the one place that names the providers, and the systems that have them.
//!
//! Sandboxes are Linux', and made on this box. VMs of Fly.io are made from anywhere ([`fly`]). Without either the program is
//! the user's side alone, for an orchestrator that runs elsewhere; [`can_be_made`] says so before anything is fetched or
//! made.

pub(crate) mod fly;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux::checks as sandbox_checks;
#[cfg(target_os = "linux")]
pub(crate) use linux::{role, sandboxes};

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
use elsewhere::checks as sandbox_checks;
#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{role, sandboxes};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use mayfly_provider::Provider;
use mayfly_server::ServerConfig;

use crate::claude::{self, Claude};
use crate::commands::doctor::Check;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::Stop;
use crate::values::ProviderName;

/// What makes the machines of the orchestrator that `config` is of, and sets what of it depends on where they are.
pub(crate) fn provider(
    settings: &Settings,
    environment: &Environment,
    claude: Option<&Claude>,
    config: &mut ServerConfig,
) -> Result<Arc<dyn Provider>, Stop> {
    match settings.provider() {
        ProviderName::Sandbox => {
            let claude = claude.expect("machines on this box have its CLI").path.clone();
            Ok(sandboxes(&config.data, claude)?)
        }
        ProviderName::Fly => fly::provider(settings, environment, config),
    }
}

/// The CLI that machines are given, found or fetched. Those elsewhere have their own, in their image.
pub(crate) async fn cli(
    settings: &Settings,
    named: Option<PathBuf>,
    environment: &Environment,
) -> Result<Option<Claude>, Stop> {
    match (settings.provider(), &named) {
        (ProviderName::Fly, None) => Ok(None),
        _ => Ok(Some(claude::find(named, environment).await?)),
    }
}

/// What the doctor says of them.
pub(crate) async fn checks(
    settings: &Settings,
    environment: &Environment,
    data: &Path,
    claude: Option<&Claude>,
) -> Result<Vec<Check>, Stop> {
    match settings.provider() {
        ProviderName::Sandbox => sandbox_checks(data, claude).await,
        ProviderName::Fly => fly::checks(settings, environment, data).await,
    }
}

/// Refuses what has no such machines on this system, or as the settings are; `what` needs them.
pub(crate) fn can_be_made(settings: &Settings, environment: &Environment, what: &str) -> Result<(), Stop> {
    match settings.provider() {
        ProviderName::Fly => fly::can_be_made(settings, environment),
        ProviderName::Sandbox => here_can_be_made(what),
    }
}

/// The same for machines on this box.
pub(crate) fn here_can_be_made(what: &str) -> Result<(), Stop> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err(refusal(what)),
    }
}

fn refusal(what: &str) -> Stop {
    anyhow!("{what} needs Linux, since machines are Linux sandboxes: run `mayfly serve` on a Linux box")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_refusal_names_what_was_wanted_and_where_it_can_be_had() {
        let stop = refusal("mayfly demo");
        let lines: Vec<String> = stop.lines().iter().map(ToString::to_string).collect();
        let words = "mayfly: mayfly demo needs Linux, since machines are Linux sandboxes: run `mayfly serve` on a Linux box";
        assert_eq!((stop.exit, lines), (Exit::Trouble, vec![words.to_owned()]));
    }
}
