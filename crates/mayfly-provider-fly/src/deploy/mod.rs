//! Brings an orchestrator about at Fly, step by step.
//!
//! ```text
//! step ── look ── there ─────────────────────────► the next one
//!          ▲  └── missing ── act ── answered or not ──┐
//!          └────────────────────────────────────────┘
//! ```
//!
//! Each step is looked at before anything is done, and again afterwards: so a deployment that broke off is taken up where it
//! is, one that is whole is left as it is, and what would be done can be told beforehand. What Fly has is the only record.
//!
//! Two apps: the orchestrator's, with a volume for its data, and the workers', on a private network, from which nothing but
//! the orchestrator's Flycast address can be reached. The orchestrator has a deploy token of the workers' app, which ends;
//! whoever deploys keeps theirs.
//!
//! Bounds: [`TRIES_MAX`] for each step, [`READY_MAX`] until the orchestrator answers.

mod machine;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mayfly_provider::clock::{Clock, after};
use mayfly_wire::boot::OWNER_TOKEN;
use secrecy::{ExposeSecret as _, SecretString};

use crate::api::{self, Api, ApiError, CreateVolume, Kind, Policy, Rule, Selector, State};
use crate::config::{base, has_digest, is_app};
use crate::{BadFlyConfig, TOKEN};

/// How often a step is done until it is seen to be done.
const TRIES_MAX: u32 = 5;
/// The pause before something is looked at again.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the orchestrator may take until it answers.
const READY_MAX: Duration = Duration::from_secs(5 * 60);
/// How long the orchestrator's token of the workers' app is good: an upgrade renews it.
const TOKEN_EXPIRY: &str = "2160h";
/// What the volume and the policy are called.
const VOLUME: &str = "mayfly_data";
const POLICY: &str = "mayfly-nothing-but-flycast";

/// What is to be there.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where the Machines API is.
    pub api: String,
    /// A token of the organisation.
    pub token: SecretString,
    /// Whose it is to be, by its slug.
    pub organisation: String,
    /// What the orchestrator's app is called; the workers' is called so, and `-workers`.
    pub app: String,
    /// Where machines may be; the orchestrator is in the first.
    pub regions: Vec<String>,
    /// What both boot, by its digest.
    pub image: String,
    /// The size of the volume, in GB.
    pub volume_gb: u32,
    /// What the orchestrator's own machine is, as one of Fly's sizes.
    pub size: String,
    /// What opens the orchestrator for its owner.
    pub owner_token: SecretString,
}

/// One thing that is brought about. Each needs those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The orchestrator's app.
    App,
    /// The workers' app, on a network of its own.
    Workers,
    /// What machines of the workers' app may reach: nothing.
    Policy,
    /// Where the orchestrator keeps its data.
    Volume,
    /// Where workers reach the orchestrator.
    Flycast,
    /// Where its owner does.
    Address,
    /// What the orchestrator has in its environment.
    Secrets,
    /// The orchestrator's machine.
    Machine,
    /// It answers.
    Ready,
}

impl Step {
    /// In their order.
    pub const ALL: [Self; 9] = [
        Self::App,
        Self::Workers,
        Self::Policy,
        Self::Volume,
        Self::Flycast,
        Self::Address,
        Self::Secrets,
        Self::Machine,
        Self::Ready,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => "the orchestrator's app",
            Self::Workers => "the workers' app",
            Self::Policy => "the workers' network policy",
            Self::Volume => "the volume",
            Self::Flycast => "the Flycast address",
            Self::Address => "the shared address",
            Self::Secrets => "the secrets",
            Self::Machine => "the orchestrator's machine",
            Self::Ready => "an answer of the orchestrator",
        }
    }
}

/// What the orchestrator's machine is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// What it boots.
    pub image: String,
    /// Where machines may be.
    pub regions: Vec<String>,
    /// Its size.
    pub size: String,
}

/// What was found of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is as it is to be; in words.
    There(String),
    /// It is not; what would be done about it, in words.
    Missing(String),
}

/// Why a deployment goes no further.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// What is there is not what is wanted, and is not changed by itself. It says what to do.
    #[error("{0}")]
    Wrong(String),
    /// Fly said no; with what to do.
    #[error("{reason}")]
    Refused {
        /// What to do.
        reason: String,
        /// What Fly said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It may pass. The same command goes on where this one ended.
    #[error("it is not done yet, and may be soon: run the same command again, which goes on from here")]
    Unclear {
        /// What Fly said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was done, and is not seen.
    #[error("Fly does not show what was made ({0}): run the same command again, which goes on from here")]
    Unseen(String),
}

/// A deployment, as it is and as it is to be.
#[derive(Debug)]
pub struct Deployment {
    wanted: Wanted,
    app: Api,
    workers: Api,
    clock: Arc<dyn Clock>,
}

impl Deployment {
    /// Nothing is asked of Fly yet.
    pub fn new(wanted: Wanted, clock: Arc<dyn Clock>) -> Result<Self, BadFlyConfig> {
        let workers = format!("{}-workers", wanted.app);
        if !is_app(&workers) || !is_app(&wanted.app) {
            return Err(BadFlyConfig::App(wanted.app.clone()));
        }
        // Where nothing is made from one, none is named.
        if !wanted.image.is_empty() && !has_digest(&wanted.image) {
            return Err(BadFlyConfig::Image(wanted.image.clone()));
        }
        let make = format!("fly tokens create org -o {} -x 2h", wanted.organisation);
        let (base, token) = base(&wanted.api, &wanted.token, &make)?;
        let api = |app: String| {
            let place = (base.clone(), app);
            Api::new(place, token.clone(), Arc::clone(&clock), api::ANSWER_MAX).map_err(BadFlyConfig::Http)
        };
        let (app, workers) = (api(wanted.app.clone())?, api(workers)?);
        Ok(Self { wanted, app, workers, clock })
    }

    /// What its owner reaches it by.
    pub fn url(&self) -> String {
        format!("https://{}.fly.dev", self.wanted.app)
    }

    /// What is there of a step.
    pub async fn look(&self, step: Step) -> Result<Look, DeployError> {
        match self.look_at(step).await {
            Err(Failed::Api(error)) => Err(self.told(error)),
            Err(Failed::Wrong(words)) => Err(DeployError::Wrong(words)),
            Ok(look) => Ok(look),
        }
    }

    /// Has a step be as it is to be; gives how it is, in words.
    pub async fn bring_about(&self, step: Step) -> Result<String, DeployError> {
        let mut missing = String::new();
        for _ in 0..TRIES_MAX {
            match self.look(step).await? {
                Look::There(words) => return Ok(words),
                Look::Missing(words) => missing = words,
            }
            match self.act(step).await {
                Ok(()) => {}
                // What became of it is seen.
                Err(error) if error.kind.is_open() => {}
                Err(error) => return Err(self.told(error)),
            }
            if let Look::There(words) = self.look(step).await? {
                return Ok(words);
            }
            self.clock.sleep_until(after(self.clock.now(), SETTLE)).await;
        }
        Err(DeployError::Unseen(missing))
    }

    /// What the orchestrator's machine is now.
    pub async fn current(&self) -> Result<Current, DeployError> {
        let app = &self.wanted.app;
        let machine = self.orchestrator().await.map_err(|error| self.told(error))?;
        let none = || {
            DeployError::Wrong(format!(
                "there is no orchestrator in the app `{app}`: `mayfly fly deploy` makes one"
            ))
        };
        let config = machine.and_then(|machine| machine.config).ok_or_else(none)?;
        let said = |key: &str| config.metadata.get(key).cloned().unwrap_or_default();
        let regions = said(machine::REGIONS).split(',').map(str::to_owned).collect();
        Ok(Current { image: config.image.clone(), regions, size: said(machine::SIZE) })
    }

    /// Renews the orchestrator's secrets, and has its machine boot the image that is wanted. It drains before it ends, and
    /// live workers dial the new one.
    pub async fn upgrade(&self) -> Result<(), DeployError> {
        self.renew_secrets().await.map_err(|error| self.told(error))?;
        let done = async {
            let machine = self.orchestrator().await?.ok_or_else(|| missing(&self.wanted.app))?;
            let wanted = self.machine().await?;
            self.app.update(&machine.id, &wanted).await.map_err(Failed::Api)
        };
        match done.await {
            // What became of it is seen when it is waited for.
            Ok(()) => Ok(()),
            Err(Failed::Api(error)) if error.kind.is_open() => Ok(()),
            Err(Failed::Api(error)) => Err(self.told(error)),
            Err(Failed::Wrong(words)) => Err(DeployError::Wrong(words)),
        }
    }

    /// How many machines the workers' app has.
    pub async fn workers(&self) -> Result<usize, DeployError> {
        match self.workers.machines().await {
            Ok(machines) => Ok(machines.iter().filter(|machine| machine.state != State::Gone).count()),
            Err(error) if error.kind == Kind::Absent => Ok(0),
            Err(error) => Err(self.told(error)),
        }
    }

    /// Unmakes all of it: machines, volume, addresses, both apps. What is gone already is a success.
    pub async fn destroy(&self) -> Result<(), DeployError> {
        for api in [&self.app, &self.workers] {
            match api.destroy_app().await {
                Ok(()) => {}
                Err(error) if error.kind == Kind::Absent => {}
                Err(error) => return Err(self.told(error)),
            }
        }
        Ok(())
    }

    async fn look_at(&self, step: Step) -> Result<Look, Failed> {
        let looked = match step {
            Step::App => self.look_at_app(&self.app, None).await,
            Step::Workers => self.look_at_app(&self.workers, Some(self.workers.app())).await,
            Step::Policy => self.look_at_policy().await,
            Step::Volume => self.look_at_volume().await,
            Step::Flycast => self.look_at_flycast().await,
            Step::Address => self.look_at_address().await,
            Step::Secrets => self.look_at_secrets().await,
            Step::Machine => self.look_at_machine().await,
            Step::Ready => self.look_whether_ready().await,
        };
        match looked {
            // What it belongs to is not there yet.
            Err(Failed::Api(error)) if error.kind == Kind::Absent => Ok(Look::Missing(self.would(step))),
            looked => looked,
        }
    }

    /// What is done about a step, in words.
    fn would(&self, step: Step) -> String {
        let Wanted { organisation, app, regions, image, volume_gb, size, .. } = &self.wanted;
        let (workers, region) = (self.workers.app(), regions.first().map_or("", String::as_str));
        match step {
            Step::App => format!("make the app `{app}` in the organisation `{organisation}`"),
            Step::Workers => {
                format!("make the app `{workers}` on a private network of its own, `{workers}`")
            }
            Step::Policy => {
                format!("let machines of `{workers}` reach nothing but Flycast, and nobody reach them")
            }
            Step::Volume => format!("make a volume of {volume_gb} GB in {region}"),
            Step::Flycast => format!("give `{app}` a Flycast address in the network `{workers}`"),
            Step::Address => format!("give `{app}` a shared address, for {}", self.url()),
            Step::Secrets => format!(
                "make a deploy token of `{workers}` for {TOKEN_EXPIRY}, and set it and the owner's token as secrets of `{app}`"
            ),
            Step::Machine => format!("start the orchestrator, {size} in {region}, from {image}"),
            Step::Ready => "wait until it answers".to_owned(),
        }
    }

    async fn act(&self, step: Step) -> Result<(), ApiError> {
        let Wanted { organisation, regions, volume_gb, .. } = &self.wanted;
        let region = regions.first().map_or("", String::as_str);
        match step {
            Step::App => self.app.create_app(organisation, None).await,
            Step::Workers => self.workers.create_app(organisation, Some(self.workers.app())).await,
            Step::Policy => {
                let id = self.policy().await?.and_then(|policy| policy.id);
                self.workers.set_policy(&Policy { id, ..nothing() }).await
            }
            Step::Volume => {
                let volume = CreateVolume { name: VOLUME, region, size_gb: *volume_gb, encrypted: true };
                self.app.create_volume(&volume).await
            }
            Step::Flycast => self.app.assign("private_v6", Some(self.workers.app())).await,
            Step::Address => self.app.assign("shared_v4", None).await,
            Step::Secrets => self.renew_secrets().await,
            Step::Machine => match self.machine().await {
                Ok(machine) => self.app.create(&machine).await.map(drop),
                Err(Failed::Api(error)) => Err(error),
                // The look says the same, with more room for words.
                Err(Failed::Wrong(_)) => Ok(()),
            },
            Step::Ready => self.wait().await,
        }
    }

    async fn look_at_app(&self, api: &Api, network: Option<&str>) -> Result<Look, Failed> {
        let (app, name) = (api.app_info().await?, api.app());
        if let Some(network) = network
            && app.network != network
        {
            return Err(Failed::Wrong(format!(
                "the app `{name}` is on the network `{}`, which cannot be changed: workers need one of their own; destroy \
                 it with `fly apps destroy {name}` if it is not needed, or choose another name with --app",
                app.network
            )));
        }
        Ok(Look::There(format!("app `{name}`")))
    }

    async fn policy(&self) -> Result<Option<Policy>, ApiError> {
        let policies = self.workers.policies().await?;
        Ok(policies.into_iter().find(|policy| policy.name == POLICY))
    }

    async fn look_at_policy(&self) -> Result<Look, Failed> {
        let policies = self.workers.policies().await?;
        // Whatever else is allowed there is allowed.
        if let Some(other) = policies.iter().find(|policy| policy.name != POLICY) {
            let (name, workers) = (&other.name, self.workers.app());
            return Err(Failed::Wrong(format!(
                "the app `{workers}` has another network policy, `{name}`: delete it, since what any policy allows is allowed"
            )));
        }
        let is_whole = policies.iter().any(|policy| Policy { id: None, ..policy.clone() } == nothing());
        Ok(match is_whole {
            true => Look::There("workers reach nothing but Flycast".to_owned()),
            false => Look::Missing(self.would(Step::Policy)),
        })
    }

    async fn look_at_volume(&self) -> Result<Look, Failed> {
        Ok(match self.volume().await? {
            Some(volume) => {
                Look::There(format!("volume {}, {} GB in {}", volume.id, volume.size_gb, volume.region))
            }
            None => Look::Missing(self.would(Step::Volume)),
        })
    }

    async fn volume(&self) -> Result<Option<api::Volume>, ApiError> {
        let mut volumes = self.app.volumes().await?;
        volumes.retain(|volume| volume.name == VOLUME && !volume.state.contains("destroy"));
        // Of two that an unanswered request left behind, always the same.
        volumes.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(volumes.into_iter().next())
    }

    async fn look_at_flycast(&self) -> Result<Look, Failed> {
        Ok(match self.flycast().await? {
            Some(ip) => Look::There(format!("Flycast address {ip}")),
            None => Look::Missing(self.would(Step::Flycast)),
        })
    }

    /// The address in the workers' network.
    async fn flycast(&self) -> Result<Option<String>, ApiError> {
        let network = self.workers.app();
        let is_it =
            |address: &api::Address| address.network.as_ref().is_some_and(|known| known.name == network);
        Ok(self.app.addresses().await?.into_iter().find(is_it).map(|address| address.ip))
    }

    async fn look_at_address(&self) -> Result<Look, Failed> {
        let addresses = self.app.addresses().await?;
        Ok(match addresses.iter().find(|address| address.shared == Some(true)) {
            Some(address) => Look::There(format!("{}, by {}", self.url(), address.ip)),
            None => Look::Missing(self.would(Step::Address)),
        })
    }

    async fn look_at_secrets(&self) -> Result<Look, Failed> {
        let secrets = self.app.secrets().await?;
        let has = |name: &str| secrets.iter().any(|secret| secret == name);
        Ok(match has(TOKEN) && has(OWNER_TOKEN) {
            true => Look::There(format!("secrets {TOKEN} and {OWNER_TOKEN}")),
            false => Look::Missing(self.would(Step::Secrets)),
        })
    }

    async fn renew_secrets(&self) -> Result<(), ApiError> {
        let token = self.workers.deploy_token(TOKEN_EXPIRY).await?;
        let owner = self.wanted.owner_token.expose_secret().to_owned();
        let secrets = BTreeMap::from([(TOKEN, token.expose_secret().to_owned()), (OWNER_TOKEN, owner)]);
        self.app.set_secrets(secrets).await
    }

    fn told(&self, error: ApiError) -> DeployError {
        let Wanted { organisation, app, .. } = &self.wanted;
        let reason = match &error.kind {
            Kind::Token => format!(
                "Fly does not take the token: it has expired or was revoked; make another with `fly tokens create org -o \
                 {organisation} -x 2h`, and set it as {TOKEN}"
            ),
            Kind::Forbidden => format!(
                "the token may not do this in the organisation `{organisation}`, or an app called `{app}` is another one's: \
                 name the organisation with --org, make a token with `fly tokens create org -o ORG -x 2h`, or choose another \
                 name with --app"
            ),
            Kind::Taken => format!(
                "the name `{app}` or `{app}-workers` is taken: names of apps are global at Fly; choose another with --app"
            ),
            Kind::Image => {
                "the image is not in the registry: push it, and name it by the digest that was pushed (right \
                            after a push, Fly may need a minute)"
                    .to_owned()
            }
            Kind::Region => {
                "Fly does not know the region: `fly platform regions` lists those that there are".to_owned()
            }
            Kind::Quota => format!(
                "the organisation `{organisation}` has used up its quota: end other machines, or ask Fly for more \
                 (billing@fly.io)"
            ),
            Kind::Absent => format!("there is no app `{app}`: `mayfly fly deploy` makes it"),
            Kind::Capacity(_) => {
                "Fly has no room there now: run the same command again later, or with another region first"
                    .to_owned()
            }
            Kind::Invalid | Kind::Exists(_) | Kind::State => "Fly does not take the request".to_owned(),
            Kind::Unsent | Kind::Unanswered | Kind::Late | Kind::Rate(_) | Kind::Server => {
                return DeployError::Unclear { source: error.into() };
            }
        };
        DeployError::Refused { reason, source: error.into() }
    }
}

/// Why a look sees nothing.
#[derive(Debug)]
enum Failed {
    Api(ApiError),
    Wrong(String),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

fn missing(app: &str) -> Failed {
    Failed::Wrong(format!("there is no orchestrator in the app `{app}`: `mayfly fly deploy` makes one"))
}

/// The policy that allows nothing, either way. Flycast does not go by it.
fn nothing() -> Policy {
    let rule = |direction: &str| Rule {
        action: "allow".to_owned(),
        direction: direction.to_owned(),
        ports: Vec::new(),
    };
    Policy {
        id: None,
        name: POLICY.to_owned(),
        selector: Selector { all: true },
        rules: vec![rule("ingress"), rule("egress")],
    }
}
