//! Machines as virtual machines on this box, put together from `[microvm]`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_provider::Provider;
use mayfly_provider_microvm::{Guest, Microvm, MicrovmConfig};
use mayfly_server::ServerConfig;

use super::{HELLO_MAX, scratch, this_program, tried};
use crate::commands::doctor::Check;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::Stop;

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
    let good = "a machine was started by QEMU under emulation, asked for its task, and ended";
    Ok(vec![tried("microvm", microvm, good).await])
}

/// Refuses settings with which none can be made.
pub(super) fn can_be_made(settings: &Settings) -> Result<&Path, Stop> {
    let system = settings.values.system.as_ref().map(|given| given.value.as_path());
    system.ok_or_else(|| {
        Stop::wrong(
            "virtual machines need `system` in [microvm] of mayfly.toml, such as system = \"/var/lib/mayfly-system\": the \
             folder of their kernel, initramfs and image",
        )
    })
}

/// What can list and unmake those of a data folder.
pub(super) fn left(data: &Path) -> anyhow::Result<Arc<dyn Provider>> {
    let nothing = PathBuf::new;
    Ok(Arc::new(Microvm::new(MicrovmConfig {
        machines: data.join(FOLDER),
        mayfly: this_program()?,
        path: OsString::new(),
        guest: Guest { kernel: nothing(), initramfs: nothing(), image: nothing() },
        boot_max: Duration::ZERO,
    })))
}

fn microvm(settings: &Settings, environment: &Environment, data: &Path) -> Result<Microvm, Stop> {
    let system = can_be_made(settings)?;
    Ok(Microvm::new(MicrovmConfig {
        machines: data.join(FOLDER),
        mayfly: this_program()?,
        path: environment.path(),
        guest: Guest {
            kernel: system.join("vmlinuz"),
            initramfs: system.join("initramfs"),
            image: system.join("image.erofs"),
        },
        boot_max: settings.values.start_timeout.value,
    }))
}
