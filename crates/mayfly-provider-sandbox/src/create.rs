//! Makes a machine, or finds it made: all that its holder is told is put together here.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_failpoint::failpoint;
use mayfly_holder::{Failure, Folder, Kind, Lock, Making, Places, Purpose, Step, make_private};
use mayfly_provider::MachineSpec;
use mayfly_wire::{Endpoint, boot};
use secrecy::ExposeSecret;

use crate::holder::{HOLDER_VERB, HolderSpec, WorkspaceView};
use crate::machine::{self, State};
use crate::{AGENT_HOST_ID, NAME, SandboxConfig, bases};

/// From the holder's start to the worker's.
const UP_MAX: Duration = Duration::from_secs(30);

impl Kind for SandboxConfig {
    const NAME: &'static str = NAME;

    fn places(&self) -> Places {
        Places::new(self.machines.clone())
    }

    fn notes(folder: &Folder) -> Vec<String> {
        folder.state().map(|state: State| state.notes).unwrap_or_default()
    }

    fn make(
        &self,
        spec: &MachineSpec,
        purpose: Purpose,
        folder: &Folder,
        lock: &Lock,
    ) -> Result<Vec<String>, Failure> {
        check_files(self)?;
        let way_out = match purpose {
            Purpose::Work => Some(way_out(&spec.way_out)?),
            Purpose::Probe => None,
        };
        // The holder takes it over while we have it.
        let (workspace, _base) = workspace(self, spec)?.unzip();
        make_private(folder.path()).step(format!("make the folder {}", folder.path().display()))?;
        let tools = spec.tools.iter().map(|tool| Ok((tool.inside.clone(), whole(&tool.folder)?)));
        let tools = tools.collect::<Result<_, Failure>>()?;
        let spec = HolderSpec {
            tools,
            name: format!("mayfly-{}", spec.attempt),
            folder: folder.clone(),
            workspace,
            way_out,
            claude: self.claude.clone(),
            mayfly: self.mayfly.clone(),
            memory_bytes_max: spec.limits.memory_bytes_max,
            pids_max: spec.limits.pids_max,
            cpus_max: spec.limits.cpus_max,
            disk_bytes_max: spec.limits.disk_bytes_max,
            boot: boot_of(spec),
            probe: purpose == Purpose::Probe,
        };
        failpoint("machine-folder-made");
        let started = || failpoint("machine-holder-started");
        let making = Making { program: &self.mayfly, verb: HOLDER_VERB, lock, up_max: UP_MAX };
        making.make(&spec, started)
    }

    fn clear(folder: &Folder) -> Result<(), Failure> {
        machine::clear(folder)
    }
}

/// What every machine runs must be there.
fn check_files(config: &SandboxConfig) -> Result<(), Failure> {
    for (what, path) in [("the CLI", &config.claude), ("our own binary", &config.mayfly)] {
        let found = fs::metadata(path).step(format!("find {what} at {}", path.display()))?;
        // As anybody: the agent has no name on this host.
        if !found.is_file() || found.permissions().mode() & 0o5 != 0o5 {
            let path = path.display();
            return Err(Failure::new(format!(
                "{what} at {path} is no program that everybody may run: chmod a+rx it"
            )));
        }
    }
    Ok(())
}

/// A path that holds from `/` too, where the holder works.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).step(format!("find {}", path.display()))
}

/// Open to the agent, and named so that the holder finds it, which works from `/`.
fn way_out(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let step = format!("find the way out at {shown}");
    let path = std::path::absolute(path).step(&step)?;
    let found = fs::metadata(&path).step(step)?;
    let open =
        !rustix::process::geteuid().is_root() || found.mode() & 0o1 != 0 || found.uid() == AGENT_HOST_ID;
    if found.is_dir() && open {
        return Ok(path);
    }
    Err(Failure::new(format!("the way out at {shown} is no folder that the agent may enter: chmod a+x it")))
}

fn workspace(config: &SandboxConfig, spec: &MachineSpec) -> Result<Option<(WorkspaceView, Lock)>, Failure> {
    let Some(workspace) = &spec.workspace else { return Ok(None) };
    let bases = &config.bases;
    make_private(bases).step(format!("make the folder {}", bases.display()))?;
    let owner = rustix::process::geteuid().is_root().then_some(AGENT_HOST_ID);
    let terms = bases::Terms { owner, limits: spec.limits };
    let (base, held) = bases::checkout(bases, workspace, terms)?;
    Ok(Some((WorkspaceView { name: workspace.name.clone(), base }, held)))
}

/// As the machine sees it. The holder adds where the kernel counts.
fn boot_of(spec: &MachineSpec) -> boot::Boot {
    boot::Boot {
        attempt: spec.attempt.to_string(),
        ticket: spec.ticket.expose_secret().to_owned().into(),
        endpoint: Endpoint::Unix(Path::new(boot::WAY_OUT).join(boot::WAY_OUT_SOCKET)),
        claude: PathBuf::from(boot::CLAUDE),
        home: PathBuf::from(boot::HOME),
        workspace: boot::WORKSPACE.into(),
        memory_events: None,
        processes: None,
        disk: None,
        closed_to: Vec::new(),
    }
}
