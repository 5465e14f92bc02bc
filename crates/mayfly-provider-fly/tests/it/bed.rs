//! A stand-in for Fly, its time, and providers over it.

use std::sync::Arc;
use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_fake_fly::{FakeFly, Setup};
use mayfly_provider::clock::{Clock as _, after};
use mayfly_provider::{Limits, Machine, MachineSpec, Provider, ProviderError, Sight};
use mayfly_provider_fly::{Fly, FlyConfig};
use mayfly_testkit::ManualClock;

pub(crate) const APP: &str = "workers";
pub(crate) const TOKEN: &str = "fm2_deploy";
/// Longer than anything that the provider waits for.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn image() -> String {
    format!("registry.fly.io/{APP}@sha256:{}", "ab".repeat(32))
}

pub(crate) struct Bed {
    pub(crate) fake: FakeFly,
    pub(crate) clock: ManualClock,
    pub(crate) config: FlyConfig,
}

impl Bed {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Setup)) -> Self {
        let clock = ManualClock::default();
        let mut setup = Setup::new(Arc::new(clock.clone()), APP, TOKEN, &image());
        adjust(&mut setup);
        let fake = FakeFly::start(setup).await;
        let orchestrator = "http://mayfly.flycast".parse().unwrap();
        let mut config = FlyConfig::new(APP, TOKEN.to_owned().into(), "d1", orchestrator);
        config.api = fake.url();
        config.image = image();
        config.regions = vec!["iad".to_owned(), "ord".to_owned()];
        config.answer_max = Duration::from_millis(500);
        Self { fake, clock, config }
    }

    pub(crate) fn provider(&self) -> Fly {
        Fly::new(self.config.clone(), Arc::new(self.clock.clone())).unwrap()
    }

    /// Lets the time run until it is done.
    pub(crate) async fn run<T>(&self, done: impl Future<Output = T>) -> T {
        self.clock.run(MOST, done).await
    }

    /// Nothing is left, and nothing was asked or answered that is not in the document.
    pub(crate) fn end(&self) {
        assert_eq!(self.fake.machines(), [], "left over");
        assert_eq!(self.fake.complaints(), [""; 0]);
    }
}

pub(crate) fn attempt(number: u32) -> AttemptId {
    format!("0193b2c4-0000-7000-8000-0123456789ab.{number}").parse().unwrap()
}

pub(crate) fn spec(attempt: AttemptId) -> MachineSpec {
    MachineSpec {
        attempt,
        ticket: "ticket".to_owned().into(),
        workspace: None,
        tools: Vec::new(),
        way_out: "/nowhere".into(),
        limits: Limits::default(),
    }
}

/// Asks again after what is unclear, as the engine does.
#[derive(Debug)]
pub(crate) struct Patient {
    pub(crate) fly: Fly,
    pub(crate) clock: ManualClock,
}

/// So often, and no more: then it is a failure of the provider.
const TRIES_MAX: u32 = 100;

impl Patient {
    async fn until_clear<T, F: Future<Output = Result<T, ProviderError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, ProviderError> {
        for _ in 0..TRIES_MAX {
            match ask().await {
                Err(ProviderError::Unclear { .. }) => {}
                clear => return clear,
            }
            self.clock.sleep_until(after(self.clock.now(), Duration::from_secs(10))).await;
        }
        ask().await
    }
}

#[async_trait::async_trait]
impl Provider for Patient {
    fn name(&self) -> &'static str {
        self.fly.name()
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        self.until_clear(|| self.fly.probe()).await
    }

    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        self.until_clear(|| self.fly.create(spec)).await
    }

    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        self.until_clear(|| self.fly.destroy(attempt)).await
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.until_clear(|| self.fly.list()).await
    }

    async fn look(&self, attempt: AttemptId) -> Result<Sight, ProviderError> {
        self.until_clear(|| self.fly.look(attempt)).await
    }
}
