//! In what machines run: as it was chosen, or found out by starting a guest.
//!
//! That the kernel offers its virtualisation says little: it may be another's emulation, in which no Linux comes up. So a
//! guest is started by Firecracker, with a deadline, before the first machine is made; where it does not come up QEMU makes
//! this machine and all others of this process, and each says why. There is no other way round, and no second look.

use std::sync::{Mutex, PoisonError};

use mayfly_holder::Failure;

use crate::programs::Monitor;
use crate::{MicrovmConfig, Vmm};

/// In what a machine is to run, and what its owner should know about that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) monitor: Monitor,
    pub(crate) notes: Vec<String>,
}

/// What was found out, once it was.
#[derive(Debug, Default)]
pub(crate) struct Decided(Mutex<Option<Choice>>);

impl Decided {
    /// `starts` starts a guest, and ends it. What failed for the moment alone decides nothing.
    pub(crate) fn choose(
        &self,
        config: &MicrovmConfig,
        starts: impl FnOnce(Monitor) -> Result<(), Failure>,
    ) -> Result<Choice, Failure> {
        let plain = |monitor| Choice { monitor, notes: Vec::new() };
        match config.vmm {
            Vmm::Qemu => return Monitor::qemu(&config.path).map(plain),
            Vmm::Firecracker => return Monitor::firecracker(&config.path).map(plain),
            Vmm::Auto => {}
        }
        let mut decided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decided) = &*decided {
            return Ok(decided.clone());
        }
        let tried = Monitor::firecracker(&config.path)
            .and_then(|monitor| starts(monitor.clone()).map(|()| plain(monitor)));
        let choice = match tried {
            Ok(choice) => choice,
            Err(failure) if failure.may_pass => return Err(failure),
            Err(failure) => Choice {
                monitor: Monitor::qemu(&config.path).map_err(|qemu| neither(&failure, &qemu))?,
                notes: vec![format!(
                    "its processor is emulated by QEMU, many times slower, since no guest starts by Firecracker: {failure}"
                )],
            },
        };
        Ok(decided.insert(choice).clone())
    }

    /// Why it is QEMU.
    pub(crate) fn fell_back(&self) -> Option<String> {
        let decided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        decided.as_ref()?.notes.first().cloned()
    }
}

fn neither(firecracker: &Failure, qemu: &Failure) -> Failure {
    Failure::new(format!("{qemu}; and no guest starts by Firecracker: {firecracker}"))
}
