//! Makes a machine, or finds it made.
//!
//! Fly takes no key that would make a create idempotent, but gives each name once. So whatever became of a request that
//! was not answered, the same request is safe: it makes the machine, or is told that it is there. Before that it is looked
//! for by its name, since a machine that has come needs no second request, which Fly would count.
//!
//! Bounds: [`TRIES_MAX`] requests in a row; the engine asks again after a pause.

use std::time::Duration;

use mayfly_provider::clock::after;
use mayfly_provider::{BoxError, Machine, MachineSpec, ProviderError};
use tracing::{info, warn};

use crate::Fly;
use crate::api::{self, ApiError, CreateMachine, Kind, Scope, State};
use crate::ring::Cooling;
use crate::told::{NoRoom, NotGone, OverQuota};

/// Requests to make one machine, in a row.
const TRIES_MAX: u32 = 8;
/// The pause before a machine is looked for that may have been made, and before a name is asked for again that is on its
/// way out: what one of Fly's hosts did is known to the others a little later.
const SETTLE: Duration = Duration::from_secs(1);

/// Where one request led.
enum Next {
    Made(Box<api::Machine>),
    /// Ask again: elsewhere, or when the name is free.
    Again(BoxError),
    Failed(ProviderError),
}

impl Fly {
    pub(crate) async fn make(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        let mut request = self.request(spec)?;
        let machine = self.allocate(&mut request).await?;
        info!(
            machine = machine.id,
            region = machine.region,
            state = machine.state.word(),
            "machine allocated"
        );
        self.memory().knows(spec.attempt, &machine.id, self.0.clock.now());
        Ok(Machine { attempt: spec.attempt, alive: true, notes: Vec::new() })
    }

    /// Asks one region after the other.
    pub(crate) async fn allocate(&self, request: &mut CreateMachine) -> Result<api::Machine, ProviderError> {
        let mut last: Option<BoxError> = None;
        for _ in 0..TRIES_MAX {
            let Some(region) = self.ring().pick(self.0.clock.now()) else { break };
            request.region.clone_from(&region);
            last = Some(match self.try_region(request, &region).await {
                Next::Made(machine) => return Ok(*machine),
                Next::Again(why) => why,
                Next::Failed(error) => return Err(error),
            });
        }
        let regions = self.ring().regions().to_vec();
        let source = last.unwrap_or_else(|| NoRoom { regions, said: None }.into());
        Err(ProviderError::Unclear { call: "create", source })
    }

    async fn try_region(&self, request: &CreateMachine, region: &str) -> Next {
        let error = match self.0.api.create(request).await {
            Ok(machine) => return Next::Made(Box::new(machine)),
            Err(error) => error,
        };
        warn!(%error, region, "no machine from this request");
        match &error.kind {
            Kind::Exists(id) => self.adopt(&request.name, id.as_deref()).await,
            Kind::Capacity(Scope::Host) => self.leave(region, Cooling::Host, error),
            Kind::Capacity(Scope::Region) => self.leave(region, Cooling::Region, error),
            Kind::Quota => self.leave(region, Cooling::Quota, error),
            kind if kind.is_open() => self.resolve(&request.name, error).await,
            _ => Next::Failed(self.told("create")(error)),
        }
    }

    /// This region not now.
    fn leave(&self, region: &str, why: Cooling, said: ApiError) -> Next {
        self.ring().cool(region, why, self.0.clock.now());
        let regions = self.ring().regions().to_vec();
        Next::Again(match why {
            Cooling::Quota => OverQuota { regions, said }.into(),
            _ => NoRoom { regions, said: Some(said) }.into(),
        })
    }

    /// The name is taken: by the machine that is wanted, unless that is on its way out.
    async fn adopt(&self, name: &str, id: Option<&str>) -> Next {
        let found = match id {
            Some(id) => self.by_id(id).await.map(|found| found.filter(|machine| machine.name == name)),
            None => Ok(None),
        };
        let found = match found {
            Ok(None) => self.listed(name).await,
            found => found,
        };
        match found {
            Ok(Some(machine)) if can_run(&machine.state) => Next::Made(Box::new(machine)),
            Ok(_) => {
                self.settle().await;
                Next::Again(NotGone.into())
            }
            Err(error) => Next::Failed(self.told("create")(error)),
        }
    }

    /// No answer: the machine may have been made.
    async fn resolve(&self, name: &str, error: ApiError) -> Next {
        self.settle().await;
        match self.listed(name).await {
            Ok(Some(machine)) if can_run(&machine.state) => Next::Made(Box::new(machine)),
            Ok(_) => Next::Again(error.into()),
            Err(error) => Next::Failed(self.told("create")(error)),
        }
    }

    /// The machine of this name, if the list has it.
    pub(crate) async fn listed(&self, name: &str) -> Result<Option<api::Machine>, ApiError> {
        let machines = self.0.api.machines().await?;
        Ok(machines.into_iter().find(|machine| machine.name == name && machine.state != State::Gone))
    }

    pub(crate) async fn settle(&self) {
        self.0.clock.sleep_until(after(self.0.clock.now(), SETTLE)).await;
    }
}

/// What cannot be said not to.
fn can_run(state: &State) -> bool {
    matches!(state, State::Booting(_) | State::Running(_) | State::Unknown(_))
}
