//! Machines as sandboxes on this box, and the roles that this program has in and beside one.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use mayfly_core::causes;
use mayfly_provider::Provider;
use mayfly_provider_sandbox::{HOLDER_VERB, Layer, LayerState, Sandbox, SandboxConfig};
use mayfly_server::check_data_folder;
use tempfile::TempDir;

use super::microvm;
use crate::claude::Claude;
use crate::commands::doctor::Check;
use crate::exit::Stop;
use crate::log;

/// What the first process of a machine is started as.
const WORKER_VERB: &str = "worker";

/// Plays the part that `first`, the program's first argument, names; none if it names none.
pub(crate) fn role(first: &OsStr, rest: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if first == HOLDER_VERB {
        return Some(mayfly_provider_sandbox::holder_main(rest));
    }
    if first == mayfly_provider_microvm::HOLDER_VERB {
        return Some(mayfly_provider_microvm::holder_main(rest));
    }
    (first == WORKER_VERB).then(|| {
        log::to_stderr(None, mayfly_core::Secrets::default());
        #[cfg(feature = "failpoints")]
        mayfly_failpoint::arm_by(Path::new(mayfly_wire::boot::HOME).join(".mayfly-failpoint"));
        mayfly_worker::main(rest)
    })
}

/// What makes the machines of the data folder `data`, with the CLI `claude` in them. Limits are handed down to them.
pub(crate) fn sandboxes(data: &Path, claude: PathBuf) -> anyhow::Result<Arc<dyn Provider>> {
    Sandbox::step_aside();
    Ok(Arc::new(sandbox(data, claude, this_program()?)))
}

fn sandbox(data: &Path, claude: PathBuf, mayfly: PathBuf) -> Sandbox {
    let (machines, bases) = (data.join("machines"), data.join("bases"));
    Sandbox::new(SandboxConfig { machines, bases, claude, mayfly })
}

/// What can list and unmake the machines of this box in the data folder `data`, whatever they are; none is made.
pub(crate) fn left_here(data: &Path) -> anyhow::Result<Vec<Arc<dyn Provider>>> {
    Ok(vec![sandboxes(data, PathBuf::new())?, microvm::left(data)?])
}

pub(super) fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program is")
}

/// What the doctor says: the sandbox's layers, and the whole of it, where a machine is made and unmade.
pub(crate) async fn checks(data: &Path, claude: Option<&Claude>) -> Result<Vec<Check>, Stop> {
    // As an orchestrator does: else what it could limit would not be seen.
    Sandbox::step_aside();
    let folder = scratch(data)?;
    let mayfly = this_program()?;
    // A CLI that is not here yet has a stand-in: this program is one that a machine can show.
    let claude = claude.map_or_else(|| mayfly.clone(), |claude| claude.path.clone());
    let sandbox = sandbox(folder.path(), claude, mayfly);
    let mut checks = match sandbox.layers().await {
        Ok(layers) => layers.into_iter().map(Check::from).collect(),
        Err(error) => vec![Check::failed("layers", causes(&error), None)],
    };
    checks.push(match sandbox.probe().await {
        Ok(()) => Check::ok("sandbox", "a machine was made, and unmade"),
        Err(error) => Check::failed("sandbox", causes(&error), None),
    });
    Ok(checks)
}

/// Where machines are to be, or on the same file system, and out of the way of those that are there.
pub(super) fn scratch(data: &Path) -> Result<TempDir, Stop> {
    let mut builder = tempfile::Builder::new();
    // A folder with somebody else's files is left alone.
    let near =
        check_data_folder(data).is_ok().then(|| data.ancestors().find(|above| above.is_dir())).flatten();
    let made = near.map(|near| builder.prefix(".mayfly-doctor-").tempdir_in(near));
    let made = made.and_then(Result::ok).map_or_else(|| builder.tempdir(), Ok);
    made.context("cannot make a temporary folder (is TMPDIR right, and has it room?)").map_err(Stop::from)
}

impl From<Layer> for Check {
    fn from(Layer { name, state, detail, fix }: Layer) -> Self {
        match state {
            LayerState::Works => Self::ok(&name, detail),
            LayerState::Limited => Self::warning(&name, detail, fix),
            LayerState::Missing => Self::failed(&name, detail, fix),
        }
    }
}
