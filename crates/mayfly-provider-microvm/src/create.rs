//! Makes a machine, or finds it made: all that its holder is told is put together here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_holder::{Failure, Folder, Kind, Lock, Making, Places, Purpose, Step, make_private};
use mayfly_provider::MachineSpec;
use mayfly_wire::boot::{BASE, Boot, CLAUDE, DiskLimit, HOME, ORCHESTRATOR_PORT, WAY_OUT_SOCKET, WORKSPACE};
use mayfly_wire::{Endpoint, Secret};
use secrecy::ExposeSecret as _;

use crate::decide::Choice;
use crate::holder::{HOLDER_VERB, Spec};
use crate::machine;
use crate::memory;
use crate::programs::{Monitor, Programs};
use crate::{Host, NAME};

/// What a holder may take besides its guest.
const UP_MAX: Duration = Duration::from_secs(30);
/// What a disk has room for besides a task's files: its worker ends a task that goes over the limit before it is full.
const DISK_SPARE_BYTES: u64 = 1 << 30;
/// The least that a guest starts in.
const MEMORY_BYTES_MIN: u64 = 256 << 20;
/// How long a guest may take to start where it is tried whether one does: with hardware for it, it is a second.
const TRY_MAX: Duration = Duration::from_secs(20);
/// The most processors that Firecracker gives a guest.
const CPUS_MAX: f64 = 32.0;
/// Where the guest's kernel counts kills for lack of memory.
const STATISTICS: &str = "/proc/vmstat";
/// Where the agent's programs put what is temporary; on the disk, as all is in a VM.
const TEMPORARY: &str = "/tmp";

impl Kind for Host {
    const NAME: &'static str = NAME;

    fn places(&self) -> Places {
        Places::new(self.config.machines.clone())
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
        let config = &self.config;
        if let Some(tool) = spec.tools.first() {
            return Err(Failure::new(format!(
                "it cannot bring the programs at {} of the library's servers into a machine yet: put them into the image",
                tool.inside
            )));
        }
        memory::room(memory_bytes(spec), memory::promised(&self.places())?)?;
        let Choice { monitor, notes } = self.decided.choose(config, |monitor| {
            let tried = self.start(spec, Purpose::Probe, monitor, Vec::new(), TRY_MAX, folder, lock);
            machine::clear(folder)?;
            tried.map(drop)
        })?;
        self.start(spec, purpose, monitor, notes, config.boot_max, folder, lock)
    }

    fn clear(folder: &Folder) -> Result<(), Failure> {
        machine::clear(folder)
    }
}

impl Host {
    /// Has a holder make it, and says what its owner should know.
    #[expect(clippy::too_many_arguments, reason = "a trial differs from a machine in each of these")]
    fn start(
        &self,
        spec: &MachineSpec,
        purpose: Purpose,
        monitor: Monitor,
        notes: Vec<String>,
        boot_max: Duration,
        folder: &Folder,
        lock: &Lock,
    ) -> Result<Vec<String>, Failure> {
        let config = &self.config;
        let guest = self.system.guest(&config.system)?;
        make_private(folder.path()).step(format!("make the folder {}", folder.path().display()))?;
        let holder_spec = Spec {
            folder: folder.clone(),
            door: match purpose {
                Purpose::Work => Some(whole(&spec.way_out)?.join(WAY_OUT_SOCKET)),
                Purpose::Probe => None,
            },
            mayfly: whole(&config.mayfly)?,
            programs: Programs::with(monitor, &config.path)?,
            guest,
            boot_max,
            memory_bytes: memory_bytes(spec),
            disk_bytes: spec.limits.disk_bytes_max + DISK_SPARE_BYTES,
            pids_max: spec.limits.pids_max,
            cpus: cpus(spec.limits.cpus_max),
            notes,
            boot: boot(spec),
        };
        // Who only wants to know whether the guest starts waits for that, a second try included.
        let up_max = match purpose {
            Purpose::Work => UP_MAX,
            Purpose::Probe => UP_MAX + 2 * boot_max,
        };
        let making = Making { program: &config.mayfly, verb: HOLDER_VERB, lock, up_max };
        making.make(&holder_spec, || ())
    }
}

fn memory_bytes(spec: &MachineSpec) -> u64 {
    spec.limits.memory_bytes_max.max(MEMORY_BYTES_MIN)
}

/// The whole processors of a guest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and the most")]
fn cpus(most: f64) -> u8 {
    most.ceil().clamp(1.0, CPUS_MAX) as u8
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
