//! A system that has no machines.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use mayfly_provider::Provider;

use super::refusal;
use crate::claude::Claude;
use crate::commands::doctor::Check;
use crate::exit::Stop;

/// No process here has a part in or beside a machine.
pub(crate) fn role(_first: &OsStr, _rest: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    None
}

/// There is none.
pub(crate) fn sandboxes(_data: &Path, _claude: PathBuf) -> anyhow::Result<Arc<dyn Provider>> {
    Err(refusal("a machine").into_error())
}

/// There is none.
pub(crate) fn left_here(_data: &Path) -> anyhow::Result<Vec<Arc<dyn Provider>>> {
    Ok(Vec::new())
}

/// Nor of another kind.
pub(super) mod microvm {
    use super::{Arc, Check, Path, Provider, Stop, refusal};
    use crate::config::Settings;
    use crate::environment::Environment;
    use mayfly_server::ServerConfig;

    pub(crate) fn provider(
        _settings: &Settings,
        _environment: &Environment,
        _config: &mut ServerConfig,
    ) -> Result<Arc<dyn Provider>, Stop> {
        Err(refusal("a machine"))
    }

    pub(crate) async fn checks(
        _settings: &Settings,
        _environment: &Environment,
        _data: &Path,
    ) -> Result<Vec<Check>, Stop> {
        Ok(vec![Check::failed("microvm", refusal("a task").into_error().to_string(), None)])
    }

    pub(crate) fn can_be_made(_settings: &Settings, _environment: &Environment) -> Result<(), Stop> {
        Err(refusal("a machine"))
    }
}

/// What the doctor says instead of trying one.
pub(crate) async fn checks(_data: &Path, _claude: Option<&Claude>) -> Result<Vec<Check>, Stop> {
    Ok(vec![Check::failed("sandbox", refusal("a task").into_error().to_string(), None)])
}
