//! A stand-in for the Machines API of Fly.io: tests alone use it.
//!
//! It is stateful, and strict: a request that the public document does not allow is refused and complained about (as is an
//! answer of its own), tokens open what they are for, nobody is served above the rate. Time is the test's, and what goes
//! wrong is its [script](Fault). Each machine's first program is a function of the test's: what it is given is what Fly
//! would give the machine, and what it returns is the program's end. Its registry is one too, with the same tokens.
//!
//! ```text
//! provider ──HTTP──► handle ─ document, access, fault ─► world ─► Run (a process, or nothing)
//! push ────────────► registry ───────────────────────────┘
//! ```
//!
//! What is not here: several regions' own room, leases, and all that neither a provider nor a deployment asks for.

mod access;
mod apps;
mod document;
mod fault;
pub mod flycast;
mod handle;
pub mod image;
pub mod vm;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use mayfly_provider::clock::Clock;
use mayfly_test_needs::image_registry::{ImageRegistry, Login, Wants};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use access::Token;
pub use document::{DEVIATIONS, Deviation};
pub use fault::{Fault, On, no_room};

use document::Document;
use handle::{Api, handle};
use world::{Running, World};

/// What runs a machine: its future is the first program, which is killed by being dropped.
pub type Run = Arc<dyn Fn(Start) -> Running + Send + Sync>;

/// What Fly is like.
#[derive(Clone)]
pub struct Setup {
    /// Its time.
    pub clock: Arc<dyn Clock>,
    /// The tokens that it takes.
    pub tokens: Vec<Token>,
    /// The organisation of each app.
    pub apps: BTreeMap<String, String>,
    /// The first is the nearest.
    pub regions: Vec<String>,
    /// What is in the registry, besides what is pushed to it.
    pub images: Vec<String>,
    /// Whether the apps begin with a policy by which their machines reach nothing but Flycast.
    pub is_shut_in: bool,
    /// How long a machine boots.
    pub boot: Duration,
    /// The organisation's quota of machines.
    pub machines_max: Option<usize>,
    /// The address that an app gets in a private network.
    pub flycast: Ipv6Addr,
    /// How a machine's checks are made.
    pub checks: Checks,
    /// What machines run.
    pub run: Run,
}

/// How a machine's checks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// A machine that is started passes them.
    Pass,
    /// By HTTP, on the loopback.
    Ask,
}

impl Setup {
    /// One app with one deploy token for it, two regions, and machines that run until they are destroyed.
    pub fn new(clock: Arc<dyn Clock>, app: &str, token: &str, image: &str) -> Self {
        const ORGANISATION: &str = "acme";
        Self {
            clock,
            tokens: vec![Token::deploy(token, ORGANISATION, app)],
            apps: BTreeMap::from([(app.to_owned(), ORGANISATION.to_owned())]),
            regions: vec!["iad".to_owned(), "ord".to_owned()],
            images: vec![image.to_owned()],
            is_shut_in: false,
            boot: Duration::from_secs(2),
            machines_max: None,
            flycast: Ipv6Addr::new(0xfdaa, 0, 1, 0, 1, 0, 0, 2),
            checks: Checks::Pass,
            run: world::forever(),
        }
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("apps", &self.apps).finish_non_exhaustive()
    }
}

/// What a machine finds when it has booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Its app.
    pub app: String,
    /// What it booted.
    pub image: String,
    /// Its first program.
    pub exec: Vec<String>,
    /// What that has in its environment, the app's secrets among it.
    pub environment: BTreeMap<String, String>,
    /// Its volumes: their ids, and where they are mounted.
    pub mounts: Vec<(String, String)>,
    /// Files that were put into it: path and bytes.
    pub files: Vec<(String, Vec<u8>)>,
    /// The layers of its image, packed, if that was pushed.
    pub layers: Vec<Bytes>,
    /// Whether it can reach nothing but Flycast, by its app's policies.
    pub is_shut_in: bool,
    /// What Fly's proxy says of where its requests come from.
    pub source: flycast::Source,
}

/// How a machine's first program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its code; -1 is a host that was lost.
    pub code: i64,
    /// The VM had no memory left.
    pub is_out_of_memory: bool,
}

/// A machine, as it really is.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its app.
    pub app: String,
    /// Its region.
    pub region: String,
    /// Where it stands.
    pub state: String,
    /// What it was made from.
    pub config: Value,
}

/// The API, on a port of the loopback until it is dropped.
#[derive(Debug)]
pub struct FakeFly {
    address: SocketAddr,
    world: Arc<World>,
    server: JoinHandle<()>,
}

impl FakeFly {
    /// Starts serving.
    ///
    /// # Panics
    ///
    /// If there is no port on the loopback.
    pub async fn start(setup: Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on the loopback");
        let address = listener.local_addr().expect("an address");
        let world = World::new(setup);
        let known = Arc::downgrade(&world);
        let admits = move |user: &str, password: &str, app: &str| {
            known.upgrade().map_or(Login::Unknown, |world| world.may_push((user, password), app))
        };
        let registry = ImageRegistry::admitting(Wants::Bearer, Box::new(admits)).await;
        assert!(world.registry.set(registry).is_ok(), "it has one");
        let api = Api { world: Arc::clone(&world), document: Arc::new(Document::new()) };
        let router = Router::new().fallback(handle).with_state(api);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, world, server }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where images are pushed to.
    pub fn registry(&self) -> String {
        self.world.registry().host()
    }

    /// How often a layer, or what names layers, was sent to the registry.
    pub fn uploads(&self) -> usize {
        self.world.registry().uploads()
    }

    /// Something happens to the next such call.
    pub fn once(&self, on: On, fault: Fault) {
        self.world.state().script.once(on, fault);
    }

    /// Something happens to each `nth` such call.
    pub fn each(&self, nth: u64, on: On, fault: Fault) {
        self.world.state().script.each(nth, on, fault);
    }

    /// Nothing happens any more.
    pub fn calm(&self) {
        self.world.state().script.end();
    }

    /// How many such calls were let in.
    pub fn count(&self, on: On) -> u64 {
        self.world.state().script.count(on)
    }

    /// How often something of the script happened.
    pub fn faults(&self) -> u64 {
        self.world.state().script.happened()
    }

    /// What was wrong with requests and answers.
    pub fn complaints(&self) -> Vec<String> {
        let complaints = self.world.state().complaints.clone();
        complaints.into_iter().chain(self.world.registry().complaints()).collect()
    }

    /// How many requests were refused for their rate.
    pub fn rate_refusals(&self) -> u64 {
        self.world.state().rate_refusals
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.world.state().requests
    }

    /// The machines that are really there.
    pub fn machines(&self) -> Vec<Seen> {
        let state = self.world.state();
        let live = state.machines.iter().filter(|(_, machine)| machine.is_live());
        let seen = |(id, machine): (&String, &world::Machine)| Seen {
            id: id.clone(),
            name: machine.name.clone(),
            app: machine.app.clone(),
            region: machine.region.clone(),
            state: machine.state.to_owned(),
            config: machine.config.clone(),
        };
        live.map(seen).collect()
    }

    /// Waits until the machines are as asked for.
    pub async fn until(&self, are: impl Fn(&[Seen]) -> bool) {
        let mut changes = self.world.changes();
        while !are(&self.machines()) {
            let _ = changes.changed().await;
        }
    }

    /// Makes a machine that somebody else asked for; gives its id.
    pub fn add(&self, request: &Value) -> String {
        let app = self.world.setup.apps.keys().next().expect("an app").clone();
        let made = self.world.make(&app, request, request["region"].as_str().unwrap_or("iad"), false);
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Has a machine be in a state.
    pub fn becomes(&self, id: &str, state: &'static str) {
        self.world.becomes(id, state, None);
    }

    /// Has something happen to a machine.
    pub fn happens(&self, id: &str, kind: &str, request: Value) {
        let state = self.world.state().machines.get(id).map(|machine| machine.state);
        self.world.becomes(id, state.expect("a machine"), Some((kind, request)));
    }

    /// Its first program is killed, and run again if its owner has said so.
    pub fn crash(&self, id: &str) {
        self.world.crash(id);
    }

    /// A secret of an app.
    pub fn secret(&self, app: &str, name: &str) -> Option<String> {
        self.world.state().apps.get(app)?.secrets.get(name).cloned()
    }

    /// The apps that are there.
    pub fn apps(&self) -> Vec<String> {
        self.world.state().apps.keys().cloned().collect()
    }

    /// A machine is gone, and the API knows nothing of it.
    pub fn vanish(&self, id: &str) {
        self.world.vanish(id);
    }

    /// Its host is not heard of.
    pub fn lose_host(&self, id: &str) {
        if let Some(machine) = self.world.state().machines.get_mut(id) {
            machine.host_status = "unreachable";
        }
    }

    /// It stays for so many more requests to destroy it.
    pub fn linger(&self, id: &str, times: u32) {
        if let Some(machine) = self.world.state().machines.get_mut(id) {
            machine.lingers = times;
        }
    }
}

impl Drop for FakeFly {
    fn drop(&mut self) {
        self.server.abort();
    }
}
