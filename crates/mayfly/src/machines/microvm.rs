//! Machines as virtual machines on this box, put together from `[microvm]`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_provider::Provider;
use mayfly_provider_microvm::{Microvm, MicrovmConfig, Vmm};
use mayfly_server::ServerConfig;
use mayfly_wire::system::LIST;

use super::{HELLO_MAX, scratch, this_program, tried};
use crate::commands::doctor::Check;
use crate::commands::image;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::Stop;
use crate::values::MonitorName;

/// What the doctor calls them.
const NAME: &str = "microvm";
/// Where machines are in the data folder.
const FOLDER: &str = "microvms";

/// What makes the machines of an orchestrator. They have the time that they need, a second start included.
pub(crate) fn provider(
    settings: &Settings,
    environment: &Environment,
    config: &mut ServerConfig,
) -> Result<Arc<dyn Provider>, Stop> {
    let microvm = microvm(settings, environment, &config.data)?;
    config.rules.launch_max = 2 * settings.values.start_timeout.value + HELLO_MAX;
    Ok(Arc::new(microvm))
}

/// What the doctor says: a guest is started, and ended.
pub(super) async fn checks(
    settings: &Settings,
    environment: &Environment,
    data: &Path,
) -> Result<Vec<Check>, Stop> {
    let folder = scratch(data)?;
    let microvm = microvm(settings, environment, folder.path());
    let good = async |microvm: &Microvm| {
        let words =
            |monitor: &str| format!("a machine was started by {monitor}, asked for its task, and ended");
        Ok(match (microvm.fell_back().await?, settings.values.vmm.value) {
            (Some(why), _) => Check::warning(NAME, format!("{}: {why}", words("QEMU")), None),
            (None, MonitorName::Qemu) => Check::ok(NAME, words("QEMU, which emulates its processor")),
            (None, _) => Check::ok(NAME, words("Firecracker")),
        })
    };
    Ok(vec![tried(NAME, microvm, good).await])
}

/// Refuses settings with which none can be made.
pub(super) fn can_be_made(settings: &Settings, environment: &Environment) -> Result<(), Stop> {
    let system = system(settings, environment)?;
    match system.join(LIST).exists() {
        true => Ok(()),
        false => Err(Stop::wrong(format!(
            "there is nothing at `{}` that virtual machines start from: `mayfly image build --for microvm` makes it; or name \
             its folder by `system` in [microvm] of mayfly.toml",
            system.display()
        ))),
    }
}

/// The folder of what machines start from.
fn system(settings: &Settings, environment: &Environment) -> Result<PathBuf, Stop> {
    let named = settings.values.system.as_ref().map(|given| given.value.clone());
    let usual = || Some(environment.systems_folder()?.join(image::NAME));
    named.or_else(usual).ok_or_else(|| {
        Stop::wrong(
            "cannot tell where what virtual machines start from is: set HOME, or name its folder by `system` in [microvm] of \
             mayfly.toml",
        )
    })
}

/// What can list and unmake those of a data folder.
pub(super) fn left(data: &Path) -> anyhow::Result<Arc<dyn Provider>> {
    Ok(Arc::new(Microvm::new(MicrovmConfig {
        machines: data.join(FOLDER),
        mayfly: this_program()?,
        path: OsString::new(),
        system: PathBuf::new(),
        vmm: Vmm::Qemu,
        boot_max: Duration::ZERO,
    })))
}

fn microvm(settings: &Settings, environment: &Environment, data: &Path) -> Result<Microvm, Stop> {
    Ok(Microvm::new(MicrovmConfig {
        machines: data.join(FOLDER),
        mayfly: this_program()?,
        path: environment.path(),
        system: system(settings, environment)?,
        vmm: match settings.values.vmm.value {
            MonitorName::Auto => Vmm::Auto,
            MonitorName::Firecracker => Vmm::Firecracker,
            MonitorName::Qemu => Vmm::Qemu,
        },
        boot_max: settings.values.start_timeout.value,
    }))
}
