//! What Fly is asked for.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mayfly_core::AttemptId;
use mayfly_provider::clock::after;
use mayfly_provider::{MachineSpec, ProviderError};
use mayfly_wire::Secret;
use mayfly_wire::boot::{BASE, Boot, CLAUDE, DiskLimit, HOME, MAYFLY, WORKSPACE};
use secrecy::ExposeSecret as _;

use crate::api::{Config, CreateMachine, Dns, File, Init, Restart, RootFs, StopConfig};
use crate::{Fly, NAME};

/// Where a machine finds its boot record.
pub const BOOT_FILE: &str = "/etc/mayfly/boot.json";
/// Only root may read it.
const BOOT_MODE: u32 = 0o400;
/// What gives the worker processes of its own: Fly's init is the first of the VM, and the worker has to be of them.
/// It is of every Debian's essential packages.
const NAMESPACE: [&str; 5] = ["/usr/bin/unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];
/// What an image takes of the disk besides the files of a task, in GiB.
const IMAGE_GIB: u64 = 4;
/// Where a VM's kernel counts kills for lack of memory.
const VM_STATISTICS: &str = "/proc/vmstat";
/// Where the agent's programs put what is temporary; on the disk, as all is in a VM.
const TEMPORARY: &str = "/tmp";
/// The time between the polite end and the other.
const STOP_SECONDS: u32 = 30;

/// In each machine's metadata: that it is ours, whose, and until when. Programs in the machine can change all of it.
pub(crate) const MARK: &str = "mayfly";
pub(crate) const DEADLINE: &str = "mayfly_deadline";
const DEPLOYMENT: &str = "mayfly_deployment";
const ATTEMPT: &str = "mayfly_attempt";

impl Fly {
    /// For one region, which is put in by whoever asks.
    pub(crate) fn request(&self, spec: &MachineSpec) -> Result<CreateMachine, ProviderError> {
        let refused = |reason| ProviderError::Refused { provider: NAME, reason, source: None };
        if let Some(tool) = spec.tools.first() {
            let reason = format!(
                "it cannot bring the programs at {} of the library's servers into a machine yet: put them into the image",
                tool.inside
            );
            return Err(refused(reason));
        }
        let guest = match &self.0.guest {
            Some(guest) => guest.clone(),
            None => crate::Guest::holding(&spec.limits).map_err(|bad| refused(bad.to_string()))?,
        };
        let boot = serde_json::to_vec(&self.boot(spec)).expect("a boot record is plain data");
        let exec = NAMESPACE.into_iter().chain([MAYFLY, "worker", "--boot", BOOT_FILE]);
        let exec = exec.map(str::to_owned).collect();
        let config = Config {
            image: self.0.config.image.clone(),
            guest,
            auto_destroy: true,
            restart: Restart { policy: "no" },
            init: Init { exec },
            stop_config: StopConfig { signal: "SIGTERM", timeout: format!("{STOP_SECONDS}s") },
            rootfs: RootFs { size_gb: spec.limits.disk_bytes_max.div_ceil(1 << 30) + IMAGE_GIB },
            dns: Dns { skip_registration: true },
            metadata: self.metadata(spec.attempt, self.0.clock.now()),
            files: vec![File { guest_path: BOOT_FILE, raw_value: STANDARD.encode(boot), mode: BOOT_MODE }],
        };
        let (name, region) = (self.name_of(spec.attempt), String::new());
        Ok(CreateMachine { name, region, skip_launch: false, skip_secrets: true, config })
    }

    fn boot(&self, spec: &MachineSpec) -> Boot {
        let folders = [HOME, WORKSPACE, BASE, TEMPORARY].map(Into::into).to_vec();
        Boot {
            attempt: spec.attempt.to_string(),
            ticket: Secret::from(spec.ticket.expose_secret().to_owned()),
            endpoint: self.0.config.orchestrator.clone(),
            claude: CLAUDE.into(),
            home: HOME.into(),
            workspace: WORKSPACE.into(),
            memory_events: Some(VM_STATISTICS.into()),
            processes: None,
            disk: Some(DiskLimit { max: spec.limits.disk_bytes_max, folders }),
            closed_to: self.0.config.closed_to.clone(),
        }
    }

    fn metadata(&self, attempt: AttemptId, now: Timestamp) -> BTreeMap<&'static str, String> {
        let deadline = after(now, self.0.config.life_max).as_second();
        BTreeMap::from([
            (MARK, "1".to_owned()),
            (DEPLOYMENT, self.0.config.deployment.clone()),
            (ATTEMPT, attempt.to_string()),
            (DEADLINE, deadline.to_string()),
        ])
    }
}
