//! The machines, and what happens to them as time goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use mayfly_provider::clock::{Clock, after};
use mayfly_test_needs::image_registry::{ImageRegistry, Login};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::access::{Rates, Token};
use crate::apps::{self, App};
use crate::fault::Script;
use crate::flycast::{Signer, Source};
use crate::{Exit, Run, Setup, Start};

/// How long a machine that is gone is still answered for, as `destroyed`.
const SHOWN_AFTER: Duration = Duration::from_secs(5);
/// How often a program is run again that ends with an error, where its owner has not said `no`.
const RESTARTS_MAX: u32 = 10;
/// How a program ends that is killed from outside.
const KILLED: Exit = Exit { code: 137, is_out_of_memory: false };

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) number: u64,
    /// It has none of its app's secrets.
    pub(crate) skips_secrets: bool,
    pub(crate) app: String,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) state: &'static str,
    pub(crate) created: Timestamp,
    pub(crate) host_status: &'static str,
    pub(crate) config: Value,
    /// Newest first.
    pub(crate) events: Vec<Value>,
    pub(crate) gone: Option<Timestamp>,
    /// It is not destroyed by so many requests.
    pub(crate) lingers: u32,
    /// Nobody hears of it any more.
    pub(crate) is_hidden: bool,
    killed: watch::Sender<bool>,
    /// How often its first program was killed from outside.
    crashes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) apps: BTreeMap<String, App>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) script: Script,
    pub(crate) rates: Rates,
    pub(crate) complaints: Vec<String>,
    pub(crate) requests: u64,
    pub(crate) rate_refusals: u64,
    last: u64,
}

/// All that the API knows.
pub(crate) struct World {
    pub(crate) setup: Setup,
    /// Where images are: it asks here what tokens are good for.
    pub(crate) registry: OnceLock<ImageRegistry>,
    /// What signs for the proxy.
    pub(crate) signer: Signer,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl World {
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        let app = |(name, organisation): (&String, &String)| {
            let policies = if setup.is_shut_in { vec![apps::shutting_in()] } else { Vec::new() };
            (name.clone(), App { organisation: organisation.clone(), policies, ..App::default() })
        };
        let (apps, tokens) = (setup.apps.iter().map(app).collect(), setup.tokens.clone());
        let state = Mutex::new(State { apps, tokens, ..State::default() });
        let (registry, signer) = (OnceLock::new(), Signer::new());
        Arc::new(Self { setup, registry, signer, state, changes: watch::Sender::new(0) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registry(&self) -> &ImageRegistry {
        self.registry.get().expect("it was started with the rest")
    }

    /// What a login is good for, where an app's images are pushed to.
    pub(crate) fn may_push(&self, (user, password): (&str, &str), app: &str) -> Login {
        let (state, now) = (self.state(), self.clock().now());
        // Tokens are sent there without the word that they have elsewhere.
        let token = state.tokens.iter().find(|token| user == "x" && token.is_good(password, now));
        let Some(token) = token else { return Login::Unknown };
        let is_ones_own = state.apps.get(app).is_some_and(|app| app.organisation == token.organisation);
        let is_for_it = token.app.as_ref().is_none_or(|only| only == app);
        match is_ones_own && is_for_it && !token.is_readonly {
            true => Login::Good,
            false => Login::Elsewhere,
        }
    }

    /// The layers of an image, for an app; none is one that it does not find. Images of all apps of an organisation are its
    /// own.
    pub(crate) fn layers(&self, app: &str, image: &str) -> Option<Vec<Bytes>> {
        if self.setup.images.iter().any(|known| known == image) {
            return Some(Vec::new());
        }
        let (place, digest) = image.split_once('@')?;
        let repository = place.strip_prefix(&format!("{}/", self.registry().host()))?;
        let organisation = |app: &str| Some(self.state().apps.get(app)?.organisation.clone());
        let is_ones_own = organisation(app).is_some() && organisation(app) == organisation(repository);
        self.registry().layers(repository, digest).filter(|_| is_ones_own)
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.setup.clock
    }

    /// Counts the changes of machines.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Makes one, and begins its life.
    pub(crate) fn make(self: &Arc<Self>, app: &str, request: &Value, region: &str, is_stuck: bool) -> Value {
        let now = self.clock().now();
        let (killed, kill) = watch::channel(false);
        let (crashes, crash) = watch::channel(0);
        let (id, shown) = {
            let mut state = self.state();
            state.last += 1;
            let number = state.last;
            let id = format!("{number:014x}");
            let name = request["name"].as_str().map_or_else(|| format!("wild-{number}"), str::to_owned);
            let machine = Machine {
                number,
                skips_secrets: request["skip_secrets"] == true,
                app: app.to_owned(),
                name,
                region: region.to_owned(),
                state: "created",
                created: now,
                host_status: "ok",
                config: request["config"].clone(),
                events: vec![event("launch", "created", now, &Value::Null)],
                gone: None,
                lingers: 0,
                is_hidden: false,
                killed,
                crashes,
            };
            let shown = machine.shown(&id, true);
            state.machines.insert(id.clone(), machine);
            (id, shown)
        };
        self.changed();
        let (world, is_launched) = (Arc::clone(self), request["skip_launch"] != true);
        if !is_stuck {
            tokio::spawn(async move { world.live(&id, is_launched, (kill, crash)).await });
        }
        shown
    }

    /// A machine's life, until it has stopped or was killed.
    async fn live(
        &self,
        id: &str,
        is_launched: bool,
        (mut kill, mut crash): (watch::Receiver<bool>, watch::Receiver<u64>),
    ) {
        let booted = after(self.clock().now(), self.setup.boot);
        tokio::select! {
            biased;
            _ = kill.wait_for(|killed| *killed) => return,
            () = self.clock().sleep_until(booted) => {}
        }
        if !is_launched {
            self.becomes(id, "stopped", None);
            return;
        }
        let mut restarts = 0;
        while restarts <= RESTARTS_MAX {
            let Some(start) = self.start(id) else { return };
            crash.mark_unchanged();
            // Who is killed ends with this.
            let exit = tokio::select! {
                biased;
                _ = kill.wait_for(|killed| *killed) => return,
                _ = crash.changed() => KILLED,
                exit = (self.setup.run)(start) => exit,
            };
            let policy = self.config(id, "/restart/policy");
            let is_again = policy == "always" || (policy != "no" && exit.code != 0);
            self.ended(id, exit);
            if !is_again {
                break;
            }
            restarts += u32::from(exit != KILLED);
        }
        let state = if self.config(id, "/auto_destroy") == true { "destroyed" } else { "stopped" };
        self.becomes(id, state, None);
    }

    fn config(&self, id: &str, pointer: &str) -> Value {
        let state = self.state();
        let value = state.machines.get(id).and_then(|machine| machine.config.pointer(pointer));
        value.cloned().unwrap_or_default()
    }

    fn start(&self, id: &str) -> Option<Start> {
        let mut complaint = None;
        let start = {
            let state = self.state();
            let machine = state.machines.get(id).filter(|machine| machine.state != "destroying")?;
            let texts = |pointer: &str| {
                let texts = machine.config.pointer(pointer).and_then(Value::as_array);
                texts.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
            };
            let files = machine.config["files"].as_array().into_iter().flatten();
            let file = |file: &Value| {
                let bytes = STANDARD.decode(file["raw_value"].as_str()?).ok()?;
                Some((file["guest_path"].as_str()?.to_owned(), bytes))
            };
            let mounts = machine.config["mounts"].as_array().into_iter().flatten();
            let mount = |mount: &Value| {
                Some((mount["volume"].as_str()?.to_owned(), mount["path"].as_str()?.to_owned()))
            };
            let app = state.apps.get(&machine.app)?;
            let given = machine.config["env"].as_object().into_iter().flatten();
            let given =
                given.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
            let secrets = app.secrets.clone().into_iter().filter(|_| !machine.skips_secrets);
            if !app.network.is_empty() && !app.is_closed() {
                complaint = Some(format!("a machine of `{}` starts, which may reach anybody", machine.app));
            }
            Start {
                id: id.to_owned(),
                name: machine.name.clone(),
                app: machine.app.clone(),
                environment: given.chain(secrets).collect(),
                mounts: mounts.filter_map(mount).collect(),
                region: machine.region.clone(),
                image: machine.config["image"].as_str().unwrap_or_default().to_owned(),
                exec: texts("/init/exec"),
                files: files.filter_map(file).collect(),
                layers: Vec::new(),
                is_shut_in: app.is_closed(),
                source: self.source(id, &machine.app, &app.organisation),
            }
        };
        self.state().complaints.extend(complaint);
        self.becomes(id, "started", Some(("start", Value::Null)));
        // It was there when the machine was made.
        let layers = self.layers(&start.app, &start.image).unwrap_or_default();
        Some(Start { layers, ..start })
    }

    fn source(&self, id: &str, app: &str, organisation: &str) -> Source {
        let who = format!("instance={id};app={app};org={organisation}");
        Source { who, clock: Arc::clone(self.clock()), signer: self.signer.clone() }
    }

    fn ended(&self, id: &str, exit: Exit) {
        let Exit { code, is_out_of_memory } = exit;
        let exit = json!({ "exit_event": {
            "exit_code": code, "guest_exit_code": code, "oom_killed": is_out_of_memory, "requested_stop": false,
        } });
        self.becomes(id, "stopped", Some(("exit", exit)));
    }

    /// Changes where a machine stands.
    pub(crate) fn becomes(&self, id: &str, to: &'static str, with: Option<(&str, Value)>) {
        let now = self.clock().now();
        if let Some(machine) = self.state().machines.get_mut(id).filter(|machine| machine.gone.is_none()) {
            machine.state = to;
            if let Some((kind, request)) = with {
                machine.events.insert(0, event(kind, to, now, &request));
            }
            if to == "destroyed" {
                machine.gone = Some(now);
                let _ = machine.killed.send(true);
            }
        }
        self.changed();
    }

    /// Kills its first program.
    pub(crate) fn crash(&self, id: &str) {
        if let Some(machine) = self.state().machines.get(id) {
            machine.crashes.send_modify(|count| *count += 1);
        }
    }

    /// Changes what a machine is made from, and starts it anew.
    pub(crate) fn update(&self, id: &str, config: &Value) {
        if let Some(machine) = self.state().machines.get_mut(id) {
            machine.config.clone_from(config);
        }
        self.becomes(id, "replacing", None);
        self.crash(id);
    }

    /// Ends a machine, and says nothing about it.
    pub(crate) fn vanish(&self, id: &str) {
        if let Some(machine) = self.state().machines.get_mut(id) {
            machine.is_hidden = true;
            let _ = machine.killed.send(true);
        }
        self.changed();
    }
}

impl Machine {
    /// Whether it is answered for.
    pub(crate) fn is_there(&self, now: Timestamp) -> bool {
        !self.is_hidden && self.gone.is_none_or(|gone| now < after(gone, SHOWN_AFTER))
    }

    /// Whether it has its name.
    pub(crate) fn is_live(&self) -> bool {
        !self.is_hidden && self.gone.is_none()
    }

    /// As an answer has it.
    pub(crate) fn shown(&self, id: &str, is_healthy: bool) -> Value {
        let status = if self.state == "started" && is_healthy { "passing" } else { "critical" };
        let names = self.config["checks"].as_object().into_iter().flat_map(|checks| checks.keys());
        let checks: Vec<Value> = names.map(|name| json!({ "name": name, "status": status })).collect();
        json!({
            "checks": checks,
            "id": id,
            "name": self.name,
            "state": self.state,
            "region": self.region,
            "instance_id": format!("01FAKE{:020}", self.number),
            "private_ip": format!("fdaa:0:1:a7b:1::{:x}", self.number & 0xffff),
            "created_at": self.created.to_string(),
            "updated_at": self.created.to_string(),
            "host_status": self.host_status,
            "config": self.config,
            "events": self.events,
        })
    }
}

fn event(kind: &str, status: &str, at: Timestamp, request: &Value) -> Value {
    let source = if kind == "launch" { "user" } else { "flyd" };
    json!({ "type": kind, "status": status, "request": request, "source": source, "timestamp": at.as_millisecond() })
}

/// What runs a machine.
pub(crate) type Running = Pin<Box<dyn Future<Output = Exit> + Send>>;

/// One that runs until it is killed.
pub(crate) fn forever() -> Run {
    Arc::new(|_| -> Running { Box::pin(std::future::pending()) })
}
