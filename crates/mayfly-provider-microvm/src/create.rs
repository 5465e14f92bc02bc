//! Makes a machine, or finds it made: all that its holder is told is put together here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_holder::{Failure, Folder, Kind, Lock, Making, Places, Purpose, Step, make_private};
use mayfly_provider::{Limits, MachineSpec};
use mayfly_wire::boot::{BASE, Boot, CLAUDE, DiskLimit, HOME, ORCHESTRATOR_PORT, WAY_OUT_SOCKET, WORKSPACE};
use mayfly_wire::{Endpoint, Secret};
use secrecy::ExposeSecret as _;

use crate::holder::{HOLDER_VERB, Spec};
use crate::machine;
use crate::memory;
use crate::programs::Programs;
use crate::{Guest, MicrovmConfig, NAME};

/// What a holder may take besides its guest.
const UP_MAX: Duration = Duration::from_secs(30);
/// What a disk has room for besides a task's files: its worker ends a task that goes over the limit before it is full.
const DISK_SPARE_BYTES: u64 = 1 << 30;
/// The least that a guest starts in.
const MEMORY_BYTES_MIN: u64 = 256 << 20;
/// Where the guest's kernel counts kills for lack of memory.
const STATISTICS: &str = "/proc/vmstat";
/// Where the agent's programs put what is temporary; on the disk, as all is in a VM.
const TEMPORARY: &str = "/tmp";

impl Kind for MicrovmConfig {
    const NAME: &'static str = NAME;

    fn places(&self) -> Places {
        Places::new(self.machines.clone())
    }

    fn notes(folder: &Folder) -> Vec<String> {
        machine::state(folder).notes
    }

    fn make(
        &self,
        spec: &MachineSpec,
        purpose: Purpose,
        folder: &Folder,
        lock: &Lock,
    ) -> Result<Vec<String>, Failure> {
        if let Some(tool) = spec.tools.first() {
            return Err(Failure::new(format!(
                "it cannot bring the programs at {} of the library's servers into a machine yet: put them into the image",
                tool.inside
            )));
        }
        let memory_bytes = spec.limits.memory_bytes_max.max(MEMORY_BYTES_MIN);
        memory::room(memory_bytes)?;
        make_private(folder.path()).step(format!("make the folder {}", folder.path().display()))?;
        let Limits { pids_max, disk_bytes_max, .. } = spec.limits;
        let holder_spec = Spec {
            folder: folder.clone(),
            door: match purpose {
                Purpose::Work => Some(whole(&spec.way_out)?.join(WAY_OUT_SOCKET)),
                Purpose::Probe => None,
            },
            mayfly: whole(&self.mayfly)?,
            programs: Programs::find(&self.path)?,
            guest: found(&self.guest)?,
            boot_max: self.boot_max,
            memory_bytes,
            disk_bytes: disk_bytes_max + DISK_SPARE_BYTES,
            pids_max,
            boot: boot(spec),
        };
        // Who only wants to know whether the guest starts waits for that, a second try included.
        let up_max = match purpose {
            Purpose::Work => UP_MAX,
            Purpose::Probe => UP_MAX + 2 * self.boot_max,
        };
        let making = Making { program: &self.mayfly, verb: HOLDER_VERB, lock, up_max };
        making.make(&holder_spec, || ())
    }

    fn clear(folder: &Folder) -> Result<(), Failure> {
        machine::clear(folder)
    }
}

/// Whether all of the guest can be read.
fn found(guest: &Guest) -> Result<Guest, Failure> {
    let at = |what: &str, path: &Path| {
        let path = whole(path)?;
        let opened = File::open(&path).and_then(|file| file.metadata());
        match opened.step(format!("read the guest's {what} at {}", path.display()))?.is_file() {
            true => Ok(path),
            false => Err(Failure::new(format!("the guest's {what} at {} is no file", path.display()))),
        }
    };
    Ok(Guest {
        kernel: at("kernel", &guest.kernel)?,
        initramfs: at("initramfs", &guest.initramfs)?,
        image: at("image", &guest.image)?,
    })
}

/// A path that holds in the machine's folder too, where the holder works.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).step(format!("find {}", path.display()))
}

fn boot(spec: &MachineSpec) -> Boot {
    let folders = [HOME, WORKSPACE, BASE, TEMPORARY].map(Into::into).to_vec();
    Boot {
        attempt: spec.attempt.to_string(),
        ticket: Secret::from(spec.ticket.expose_secret().to_owned()),
        endpoint: Endpoint::Vsock(ORCHESTRATOR_PORT),
        claude: CLAUDE.into(),
        home: HOME.into(),
        workspace: WORKSPACE.into(),
        memory_events: Some(STATISTICS.into()),
        processes: None,
        disk: Some(DiskLimit { max: spec.limits.disk_bytes_max, folders }),
        closed_to: Vec::new(),
    }
}
