//! Where machines come from: the one place that names the providers, and the systems that have them.
//!
//! Sandboxes and virtual machines ([`microvm`]) are Linux', and made on this box. VMs of Fly.io are made from anywhere ([`fly`]). Without either the program is
//! the user's side alone, for an orchestrator that runs elsewhere; [`can_be_made`] says so before anything is fetched or
//! made.

pub(crate) mod fly;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod microvm;
#[cfg(target_os = "linux")]
use linux::{checks as sandbox_checks, scratch, this_program};
#[cfg(target_os = "linux")]
pub(crate) use linux::{left_here, role, sandboxes};

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
use elsewhere::{checks as sandbox_checks, microvm};
#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{left_here, role, sandboxes};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use mayfly_core::causes;
use mayfly_provider::{Provider, ProviderError};
use mayfly_server::ServerConfig;

use crate::claude::{self, Claude};
use crate::commands::doctor::Check;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::Stop;
use crate::values::ProviderName;

/// What a worker has from its machine's start to its hello, besides the time to start.
const HELLO_MAX: Duration = Duration::from_secs(60);

/// What makes the machines of the orchestrator that `config` is of, and sets what of it depends on where they are.
pub(crate) fn provider(
    settings: &Settings,
    environment: &Environment,
    claude: Option<&Claude>,
    config: &mut ServerConfig,
) -> Result<Arc<dyn Provider>, Stop> {
    match settings.provider() {
        ProviderName::Fly => fly::provider(settings, environment, config),
        ProviderName::Sandbox | ProviderName::Microvm => here(settings, environment, claude, config),
    }
}

/// What the doctor says where one machine tells all; `good` is said of one that could be made.
async fn tried<P: Provider>(
    name: &'static str,
    provider: Result<P, Stop>,
    good: impl AsyncFnOnce(&P) -> Result<Check, ProviderError>,
) -> Check {
    let provider = match provider {
        Ok(provider) => provider,
        Err(stop) => return Check::failed(name, format!("{:#}", stop.into_error()), None),
    };
    let check = async {
        provider.probe().await?;
        good(&provider).await
    };
    check.await.unwrap_or_else(|error| Check::failed(name, causes(&error), None))
}

/// The same for machines on this box, which are sandboxes unless they are to be virtual ones.
pub(crate) fn here(
    settings: &Settings,
    environment: &Environment,
    claude: Option<&Claude>,
    config: &mut ServerConfig,
) -> Result<Arc<dyn Provider>, Stop> {
    match settings.provider() {
        ProviderName::Microvm => microvm::provider(settings, environment, config),
        ProviderName::Sandbox | ProviderName::Fly => {
            let claude = claude.expect("sandboxes have this box's CLI").path.clone();
            Ok(sandboxes(&config.data, claude)?)
        }
    }
}

/// The CLI that machines are given, found or fetched. Those with an image have their own in it.
pub(crate) async fn cli(
    settings: &Settings,
    named: Option<PathBuf>,
    environment: &Environment,
) -> Result<Option<Claude>, Stop> {
    match (settings.provider(), &named) {
        (ProviderName::Fly | ProviderName::Microvm, None) => Ok(None),
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
        ProviderName::Microvm => microvm::checks(settings, environment, data).await,
        ProviderName::Fly => fly::checks(settings, environment, data).await,
    }
}

/// Refuses what has no such machines on this system, or as the settings are; `what` needs them.
pub(crate) fn can_be_made(settings: &Settings, environment: &Environment, what: &str) -> Result<(), Stop> {
    match settings.provider() {
        ProviderName::Fly => fly::can_be_made(settings, environment),
        ProviderName::Sandbox | ProviderName::Microvm => here_can_be_made(settings, environment, what),
    }
}

/// The same for machines on this box.
pub(crate) fn here_can_be_made(
    settings: &Settings,
    environment: &Environment,
    what: &str,
) -> Result<(), Stop> {
    match (cfg!(target_os = "linux"), settings.provider()) {
        (true, ProviderName::Microvm) => microvm::can_be_made(settings, environment),
        (true, _) => Ok(()),
        (false, _) => Err(refusal(what)),
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
