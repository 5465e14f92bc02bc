//! Machines as Firecracker VMs of Fly.io, all in one app, by the Machines API.
//!
//! ```text
//! create ──► ring of regions ──► api ──► POST machines          409: ours is there already
//!                ▲── no room ─────┘ └──► no answer: look for the name, then ask again
//! destroy ─► DELETE, wait for `destroyed`, look until 404 ──► DELETE again
//! look ────► GET: where it stands, what its events say; a 404 counts when it is repeated
//! list ────► GET machines, and a look at each that should be in it
//! sweep ───► what no orchestrator destroys: past its deadline; strangers are reported (`sweep`)
//! ```
//!
//! A machine is known by its [name](name), which Fly gives once in an app. What Fly says is believed when it is said of
//! one machine; a list is a hint, since wrong lists have been seen. A machine that should be there and is not counts as
//! gone only after [`GONE_AFTER`](look).
//!
//! No token is in a machine. Its boot record, with the ticket, is a file that root alone can read and that the worker
//! removes; who may read the app's machines can see the ticket, which is used up by then. [`deploy`] makes
//! the apps and the orchestrator's own machine. What is not here: the image; a machine does not get the folder of its own door, and dials the orchestrator's port.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod config;
mod create;
pub mod deploy;
mod destroy;
mod exit;
mod guest;
mod look;
mod name;
mod probe;
mod request;
mod ring;
mod sweep;
mod told;
mod turns;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mayfly_core::AttemptId;
use mayfly_provider::clock::Clock;
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError, Sight};

pub use api::Guest;
pub use api::bare_token;
pub use config::{API, BadFlyConfig, CLOSED_TO, FlyConfig};
pub use guest::BadGuest;
pub use request::BOOT_FILE;
pub use sweep::Swept;

use api::{Api, ApiError};
use look::Memory;
use ring::Ring;
use sweep::Reported;
use turns::Turns;

/// The variable of an environment that has the token.
pub const TOKEN: &str = "FLY_API_TOKEN";
/// The one that Fly's own programs take before it, which is none of ours.
pub const ACCESS_TOKEN: &str = "FLY_ACCESS_TOKEN";
/// The one that names another place of the Machines API, as for Fly's own programs.
pub const BASE_URL: &str = "FLY_FLAPS_BASE_URL";
/// The same for the registry.
pub const REGISTRY_HOST: &str = "FLY_REGISTRY_HOST";
/// Where a VM has the key by which Fly's proxy signs where requests come from, in hex.
pub const SOURCE_KEY_FILE: &str = "/.fly/fly-src.pub";

/// The provider's name.
const NAME: &str = "fly";

/// Makes machines as VMs of Fly.io. Clones are one provider.
#[derive(Debug, Clone)]
pub struct Fly(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    api: Api,
    config: FlyConfig,
    /// What each machine is made of, whatever its task says.
    guest: Option<Guest>,
    clock: Arc<dyn Clock>,
    ring: Mutex<Ring>,
    memory: Mutex<Memory>,
    turns: Turns,
    reported: Reported,
}

impl Fly {
    /// Nothing is asked of Fly until a verb is called.
    pub fn new(config: FlyConfig, clock: Arc<dyn Clock>) -> Result<Self, BadFlyConfig> {
        let config::Checked { base, token, guest } = config.checked()?;
        let app = (base, config.app.clone());
        let api = Api::new(app, token, Arc::clone(&clock), config.answer_max).map_err(BadFlyConfig::Http)?;
        let ring = Mutex::new(Ring::new(config.regions.clone()));
        let (memory, turns, reported) = (Mutex::default(), Turns::default(), Reported::default());
        Ok(Self(Arc::new(Inner { api, config, guest, clock, ring, memory, turns, reported })))
    }

    fn name_of(&self, attempt: AttemptId) -> String {
        name::name(&self.0.config.deployment, attempt)
    }

    fn told(&self, call: &'static str) -> impl Fn(ApiError) -> ProviderError {
        let app = self.0.config.app.clone();
        move |error| told::told(&app, call, error)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Provider for Fly {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        self.try_it().await
    }

    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        let _turn = self.0.turns.of(spec.attempt).await;
        self.make(spec).await
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        let _turn = self.0.turns.of(attempt).await;
        self.unmake(attempt).await.map_err(|error| self.failed(error))
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.all().await.map_err(self.told("list"))
    }

    async fn look(&self, attempt: AttemptId) -> Result<Sight, ProviderError> {
        self.sight(attempt).await.map_err(self.told("look"))
    }

    fn can_be_machine_of(&self, attempt: AttemptId, id: &str) -> bool {
        self.memory().id(attempt).is_none_or(|known| known == id)
    }
}
