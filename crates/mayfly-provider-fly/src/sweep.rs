//! What no orchestrator destroys, on a clock of its own.
//!
//! The engine destroys each machine of this deployment that has no live attempt, by
//! [`Provider::list`](mayfly_provider::Provider::list). What is left for here: a machine of ours whose time is over
//! however well it works, and that of another deployment, past the deadline in its metadata, whose orchestrator is gone. A
//! program in a machine can move its own deadline and nobody else's, and no further here than for its own deployment.
//! Machines that are not mayfly's are reported once, and left alone.
//!
//! Bounds: one list a minute ([`SWEEP_EVERY`]), and [`GRACE`] for whoever does this better. A machine younger than
//! [`YOUNG`] is left alone whatever it says.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::causes;
use mayfly_provider::ProviderError;
use mayfly_provider::clock::after;
use tracing::{info, warn};

use crate::Fly;
use crate::api::{Machine, State};
use crate::name::{Owner, owner};
use crate::request::{DEADLINE, MARK};

/// The pause between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The time that the machine itself and its orchestrator have after its deadline.
const GRACE: Duration = Duration::from_secs(10 * 60);
/// The age up to which a machine is left alone.
const YOUNG: Duration = Duration::from_secs(5 * 60);

/// What a sweep did and found; machines by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Destroyed, and gone.
    pub destroyed: Vec<String>,
    /// Not mayfly's, or of another deployment and not over.
    pub strangers: Vec<String>,
}

/// Whom the log knows already.
pub(crate) type Reported = std::sync::Mutex<HashSet<String>>;

impl Fly {
    /// Sweeps from time to time, for ever.
    pub async fn keep_swept(&self) {
        loop {
            self.0.clock.sleep_until(after(self.0.clock.now(), SWEEP_EVERY)).await;
            if let Err(error) = self.sweep().await {
                warn!(error = causes(&error), "machines not swept");
            }
        }
    }

    /// Destroys what is over, and reports strangers.
    pub async fn sweep(&self) -> Result<Swept, ProviderError> {
        let mut swept = Swept::default();
        for machine in self.0.api.machines().await.map_err(self.told("sweep"))? {
            if machine.state == State::Gone {
                continue;
            }
            let owner = owner(&self.0.config.deployment, &machine.name);
            if self.is_over(owner, &machine) {
                warn!(machine = machine.id, name = machine.name, "destroying a machine past its deadline");
                self.unmake_machine(&machine.id).await.map_err(|error| self.failed(error))?;
                swept.destroyed.push(machine.id);
            } else if !matches!(owner, Owner::Ours(_)) {
                self.report(&machine);
                swept.strangers.push(machine.id);
            }
        }
        Ok(swept)
    }

    fn is_over(&self, owner: Owner, machine: &Machine) -> bool {
        let (now, life_max) = (self.0.clock.now(), self.0.config.life_max);
        let Some(created) = machine.created_at else { return false };
        if now < after(created, YOUNG) {
            return false;
        }
        match owner {
            Owner::Ours(_) => now >= after(after(created, life_max), GRACE),
            Owner::Other => deadline(machine).is_some_and(|deadline| now >= after(deadline, GRACE)),
            Owner::Stranger => false,
        }
    }

    fn report(&self, machine: &Machine) {
        let mut reported = self.0.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.insert(machine.id.clone()) {
            let (id, app) = (&machine.id, self.0.api.app());
            info!(
                machine = id,
                name = machine.name,
                "a machine in `{app}` that is not this orchestrator's is left alone; \
                 `fly machine destroy {id} -a {app}` ends it"
            );
        }
    }
}

/// What its metadata says, if it bears our mark.
fn deadline(machine: &Machine) -> Option<Timestamp> {
    let metadata = &machine.config.as_ref()?.metadata;
    metadata.get(MARK)?;
    Timestamp::from_second(metadata.get(DEADLINE)?.parse().ok()?).ok()
}
