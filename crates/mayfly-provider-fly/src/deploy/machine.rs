//! The orchestrator's own machine.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly_provider::clock::after;
use mayfly_wire::boot::MAYFLY;

use super::{Deployment, Failed, Look, READY_MAX, SETTLE, Step};
use crate::api::{
    self, ApiError, Check, CreateMachine, File, Guest, Init, Kind, Mount, Port, Restart, Service,
    ServiceConfig, State, StopConfig,
};
use crate::{BASE_URL, exit};

/// What it is called.
const NAME: &str = "orchestrator";
/// Where its volume is, and the folder in it that is its data folder: the volume itself is not empty.
const VOLUME_PATH: &str = "/data";
const DATA: &str = "/data/mayfly";
/// Where its configuration is.
const CONFIGURATION: &str = "/etc/mayfly/mayfly.toml";
/// Where it listens, and workers find it.
const PORT: u16 = 8080;
/// In its metadata: where machines may be, and its own size.
pub(super) const REGIONS: &str = "mayfly_regions";
pub(super) const SIZE: &str = "mayfly_size";
/// What it has to end: Fly allows 5 min.
const STOP: &str = "120s";

impl Deployment {
    /// The orchestrator's machine, if there is one.
    pub(super) async fn orchestrator(&self) -> Result<Option<api::Machine>, ApiError> {
        let machines = self.app.machines().await?;
        let is_it = |machine: &api::Machine| machine.name == NAME && machine.state != State::Gone;
        Ok(machines.into_iter().find(is_it))
    }

    pub(super) async fn look_at_machine(&self) -> Result<Look, Failed> {
        let Some(machine) = self.orchestrator().await? else {
            return Ok(Look::Missing(self.would(Step::Machine)));
        };
        let image = machine.config.map(|config| config.image).unwrap_or_default();
        if !self.wanted.image.is_empty() && image != self.wanted.image {
            return Err(Failed::Wrong(format!(
                "the orchestrator runs {image}: `mayfly fly upgrade --image {}` changes that",
                self.wanted.image
            )));
        }
        Ok(Look::There(format!("orchestrator {} in {}, from {image}", machine.id, machine.region)))
    }

    /// Whether it runs, and all its checks pass.
    pub(super) async fn look_whether_ready(&self) -> Result<Look, Failed> {
        let Some(machine) = self.orchestrator().await? else {
            return Ok(Look::Missing(self.would(Step::Ready)));
        };
        if let State::Ended(state) = &machine.state {
            let why = exit::words(machine.events.as_deref().unwrap_or_default());
            let why = why.unwrap_or_else(|| format!("it is `{state}`"));
            let (id, app) = (&machine.id, &self.wanted.app);
            return Err(Failed::Wrong(format!(
                "the orchestrator does not run ({why}): `fly logs -a {app}` says more, and `fly machine start {id} -a {app}` \
                 starts it"
            )));
        }
        let checks = machine.checks.unwrap_or_default();
        let passes = !checks.is_empty() && checks.iter().all(|check| check.status == "passing");
        Ok(match (&machine.state, passes) {
            (State::Running(_), true) => Look::There("it answers".to_owned()),
            _ => Look::Missing(self.would(Step::Ready)),
        })
    }

    /// Waits until it is ready, or for long enough.
    pub(super) async fn wait(&self) -> Result<(), ApiError> {
        let deadline = after(self.clock.now(), READY_MAX);
        while self.clock.now() < deadline {
            match self.look_whether_ready().await {
                Ok(Look::Missing(_)) => {}
                Err(Failed::Api(error)) if error.kind != Kind::Absent => return Err(error),
                // Whoever waits looks for themselves.
                _ => return Ok(()),
            }
            self.clock.sleep_until(after(self.clock.now(), SETTLE)).await;
        }
        Ok(())
    }

    /// What is asked for.
    pub(super) async fn machine(&self) -> Result<CreateMachine<ServiceConfig>, Failed> {
        let wrong = |what: &str| {
            Failed::Wrong(format!("{what} is not there any more: `mayfly fly deploy` makes it again"))
        };
        let volume = self.volume().await?.ok_or_else(|| wrong("the volume"))?;
        let ip = self.flycast().await?.ok_or_else(|| wrong("the Flycast address"))?;
        let guest = Guest::preset(&self.wanted.size).map_err(|bad| Failed::Wrong(bad.to_string()))?;
        let guest = Guest { memory_mb: guest.memory_mb.max(1024), ..guest };
        let mut env = BTreeMap::new();
        if self.wanted.api != crate::API {
            env.insert(BASE_URL, self.wanted.api.clone());
        }
        let check = Check {
            kind: "http",
            port: PORT,
            method: "GET",
            path: "/healthz",
            interval: "15s",
            timeout: "5s",
            grace_period: "20s",
        };
        let handlers = |handlers: &[&'static str]| handlers.to_vec();
        let service = Service {
            protocol: "tcp",
            internal_port: PORT,
            autostop: "off",
            autostart: true,
            min_machines_running: 1,
            // No workers come from elsewhere: a shared address has the two ports of the web alone.
            ports: vec![
                Port { port: 443, handlers: handlers(&["tls", "http"]) },
                Port { port: PORT, handlers: handlers(&["http"]) },
            ],
        };
        let config = ServiceConfig {
            image: self.wanted.image.clone(),
            guest,
            restart: Restart { policy: "always" },
            init: Init { exec: [MAYFLY, "--config", CONFIGURATION, "serve"].map(str::to_owned).to_vec() },
            stop_config: StopConfig { signal: "SIGTERM", timeout: STOP.to_owned() },
            env,
            metadata: BTreeMap::from([
                (REGIONS, self.wanted.regions.join(",")),
                (SIZE, self.wanted.size.clone()),
            ]),
            mounts: vec![Mount { volume: volume.id, path: VOLUME_PATH }],
            services: vec![service],
            checks: BTreeMap::from([("healthz", check)]),
            files: vec![File {
                guest_path: CONFIGURATION,
                raw_value: STANDARD.encode(self.configuration(&ip)),
                mode: 0o444,
            }],
        };
        let region = volume.region;
        Ok(CreateMachine { name: NAME.to_owned(), region, skip_launch: false, skip_secrets: false, config })
    }

    /// Its `mayfly.toml`. Fly's proxy has the certificate, and its networks are private.
    fn configuration(&self, ip: &str) -> String {
        let super::Wanted { app, regions, image, .. } = &self.wanted;
        let (workers, regions) = (self.workers.app(), regions.join(","));
        format!(
            "data = \"{DATA}\"\n[serve]\nprovider = \"fly\"\nlisten = \"[::]:{PORT}\"\nlisten_without_tls = true\n\
             host_names = \"{app}.fly.dev\"\n[fly]\napp = \"{workers}\"\nimage = \"{image}\"\nregions = \"{regions}\"\n\
             orchestrator = \"http://[{ip}]:{PORT}\"\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use mayfly_testkit::ManualClock;

    use super::*;
    use crate::deploy::{VOLUME, Wanted};

    fn beside(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/fly").join(name);
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_is_there_for_those_who_deploy_by_hand_is_the_same() {
        let size = "shared-cpu-2x";
        let wanted = Wanted {
            api: crate::API.to_owned(),
            token: "made-up".to_owned().into(),
            organisation: "personal".to_owned(),
            app: "my-mayfly".to_owned(),
            regions: vec!["iad".to_owned(), "ord".to_owned()],
            image: format!("registry.fly.io/my-mayfly@sha256:{}", "0".repeat(64)),
            volume_gb: 10,
            size: size.to_owned(),
            owner_token: "made-up".to_owned().into(),
        };
        let image = wanted.image.clone();
        let deployment = Deployment::new(wanted, Arc::new(ManualClock::default())).unwrap();
        assert_eq!(beside("mayfly.toml"), deployment.configuration("fdaa:0:0:0:1::2"));
        let fly = beside("fly.toml");
        for line in [
            format!("image = \"{image}\""),
            format!("app = \"--config {CONFIGURATION} serve\""),
            format!("guest_path = \"{CONFIGURATION}\""),
            format!("source = \"{VOLUME}\"\n  destination = \"{VOLUME_PATH}\""),
            format!("internal_port = {PORT}"),
            format!("kill_timeout = \"{STOP}\""),
            format!("size = \"{size}\""),
        ] {
            assert!(fly.contains(&line), "{line}");
        }
    }
}
