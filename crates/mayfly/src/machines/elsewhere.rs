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

/// What the doctor says instead of trying one.
pub(crate) async fn checks(_data: &Path, _claude: Option<&Claude>) -> Result<Vec<Check>, Stop> {
    Ok(vec![Check::failed("sandbox", refusal("a task").into_error().to_string(), None)])
}
