//! One seed: the processes, the faults that come over them for a while, and the calm after, in which all must settle.
//!
//! ```text
//! tick: what is due arrives ─► orchestrator ─► machines ─► tunnel ─► owner ─► the time is later
//! ```
//!
//! The processes take turns, and each lets the same time pass. A tick is short while something passes between them, and
//! grows while nothing does: hours go by in no time. A process that is killed stops between two steps of its tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use mayfly_core::AttemptId;
use mayfly_engine::Clock;
use mayfly_link::BackOff;
use mayfly_server::{Server, ServerConfig, Street};
use mayfly_tunnel::{Tunnel, TunnelConfig};
use mayfly_wire::boot::WAY_OUT_SOCKET;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::check::check;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::machines::Machines;
use crate::network::{Network, Weather};
use crate::owner::Owner;
use crate::played::Life;
use crate::stand_in;

/// The shortest tick.
const TICK_MIN: Duration = Duration::from_millis(1);
/// The longest.
const TICK_MAX: Duration = Duration::from_millis(250);
/// The time in which all must settle, once it is calm.
const SETTLE_MAX: Duration = Duration::from_secs(2 * 3600);
/// The time after all is over, in which nothing may change.
const AFTER: Duration = Duration::from_secs(120);
/// The most steps that a process takes in the moment in which it is killed.
const LAST_STEPS_MAX: u32 = 128;

/// The engine's clock: that of the process in which it is.
#[derive(Debug)]
struct ProcessClock {
    start: jiff::Timestamp,
    begun: tokio::time::Instant,
}

impl ProcessClock {
    fn new() -> Self {
        Self { start: jiff::Timestamp::now(), begun: tokio::time::Instant::now() }
    }
}

#[async_trait::async_trait]
impl Clock for ProcessClock {
    fn now(&self) -> jiff::Timestamp {
        self.start + self.begun.elapsed()
    }

    async fn sleep_until(&self, deadline: jiff::Timestamp) {
        if let Ok(left) = Duration::try_from(deadline.duration_since(self.now())) {
            tokio::time::sleep(left).await;
        }
    }
}

/// The faults that come by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Orchestrator,
    Tunnel,
    Machine,
    Network,
}

/// A process that is started again whenever it has ended.
#[derive(Debug, Default)]
struct Kept {
    host: Option<Host>,
    /// When it is started again.
    back: Duration,
    /// It is killed at the next moment in which it has something to do.
    doomed: bool,
}

/// One seed's world.
pub(crate) struct World {
    rng: Rng,
    ledger: Ledger,
    network: Network,
    machines: Machines,
    street: Street,
    config: ServerConfig,
    dir: TempDir,
    orchestrator: Kept,
    /// Asks the orchestrator to end by itself.
    stop: watch::Sender<bool>,
    tunnel: Kept,
    owner: Host,
    living: BTreeMap<AttemptId, Host>,
    /// When each fault comes, and how long it is between two of them.
    faults: BTreeMap<Fault, (Duration, Duration)>,
    storm: Duration,
    tick: Duration,
}

/// How many steps a process takes in the moment in which it is killed: often few.
fn last_steps(rng: &mut Rng) -> u32 {
    let most = LAST_STEPS_MAX >> rng.u32(0..6);
    rng.u32(1..=most)
}

/// The clocks of the processes know no shorter time.
fn whole_ms(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).expect("some hours"))
}

fn weather(rng: &mut Rng) -> Weather {
    let mut chance = |most: f64| if rng.bool() { 0.0 } else { rng.f64() * most };
    let (cut, deaf, refused) = (chance(0.6), chance(0.3), chance(0.4));
    let (one_byte, slow) = (chance(0.5), chance(0.8));
    let bytes_max = [200, 2000, 20_000, 200_000][rng.usize(0..4)];
    Weather { cut, deaf, refused, one_byte, slow, delay_ms_max: rng.u64(1..400), bytes_max }
}

impl World {
    /// Plays the seed to its end; gives what was seen, in a line.
    pub(crate) fn play(seed: u64, ledger: &Ledger) -> String {
        let mut world = Self::new(seed, ledger.clone());
        world.run_until(world.storm, |_| false);
        world.calm();
        let settled = world.settled();
        world.run_until(settled + AFTER, |_| false);
        world.read();
        check(ledger, &world.dir.path().join("tunnel"));
        world.report(settled)
    }

    fn new(seed: u64, ledger: Ledger) -> Self {
        let mut rng = Rng::with_seed(seed);
        let dir = tempfile::Builder::new().prefix("mfsim").tempdir().expect("a folder");
        let (street, most) = (Street::default(), rng.u32(1..=4));
        let network = Network::new(rng.fork(), weather(&mut rng), street.clone(), ledger.clone());
        let machines = Machines::new(rng.fork(), ledger.clone(), most as usize);
        let mut config = ServerConfig::in_dir(dir.path().join("data"));
        let rules = &mut config.rules;
        rules.policy.machines_max = most.try_into().expect("not 0");
        // No limit of time ends what a fault has only put off.
        (rules.timeout, rules.idle_timeout) = (Duration::from_secs(7200), Duration::from_secs(7200));
        rules.collect_max = Duration::from_secs(1200);
        let storm = Duration::from_secs_f64(rng.f64() * 200.0 + 5.0);
        let owner = Owner { way: network.way("owner", config.socket()), ledger: ledger.clone() };
        let within = u64::try_from(storm.as_millis()).expect("minutes") * 2 / 3;
        let owner = Host::start(owner.act(rng.u32(1..=7), within, rng.fork()));
        let mut faults = BTreeMap::new();
        for fault in [Fault::Orchestrator, Fault::Tunnel, Fault::Machine, Fault::Network] {
            if rng.u8(0..3) > 0 {
                let between = Duration::from_secs_f64(rng.f64() * 30.0 + 1.0);
                faults.insert(fault, (between.mul_f64(rng.f64()), between));
            }
        }
        let (orchestrator, tunnel, living) = (Kept::default(), Kept::default(), BTreeMap::new());
        let (stop, tick) = (watch::Sender::new(false), TICK_MIN);
        Self {
            rng,
            ledger,
            network,
            machines,
            street,
            config,
            dir,
            orchestrator,
            stop,
            tunnel,
            owner,
            living,
            faults,
            storm,
            tick,
        }
    }

    /// Goes on until then, or until it is so.
    fn run_until(&mut self, end: Duration, so: impl Fn(&Self) -> bool) {
        while stand_in::now() < end && !so(self) {
            self.step();
        }
    }

    fn calm(&mut self) {
        self.faults.clear();
        self.network.calm();
        self.machines.calm();
        (self.orchestrator.doomed, self.tunnel.doomed) = (false, false);
    }

    /// When all was settled.
    fn settled(&mut self) -> Duration {
        let end = stand_in::now() + SETTLE_MAX;
        self.run_until(end, |world| world.ledger.all_over() && world.machines.left().is_empty());
        if !self.ledger.all_over() {
            let open = self.ledger.facts();
            let waiting =
                open.tasks.iter().filter(|(_, task)| task.followed.is_none()).map(|(id, _)| id.to_string());
            let words =
                format!("not over: {:?}, all asked for: {}", waiting.collect::<Vec<_>>(), open.all_asked);
            drop(open);
            self.ledger.violated(words);
        }
        if !self.machines.left().is_empty() {
            self.ledger.violated(format!("G5: machines are left: {:?}", self.machines.left()));
        }
        stand_in::now()
    }

    /// Has the owner read all logs.
    fn read(&mut self) {
        let owner =
            Owner { way: self.network.way("reader", self.config.socket()), ledger: self.ledger.clone() };
        self.owner = Host::start(owner.read_all());
        self.run_until(stand_in::now() + Duration::from_secs(600), |world| world.owner.is_over());
        if self.ledger.facts().logs.is_none() {
            self.ledger.violated("the logs could not be read");
        }
    }

    /// One tick.
    fn step(&mut self) {
        self.come_over();
        let due = self.network.deliver();
        let busy = self.network.was_active();
        self.tick = if busy { TICK_MIN } else { (self.tick * 2).min(TICK_MAX) };
        let next = self.faults.values().map(|(at, _)| *at).chain(due).min();
        let until = next.map_or(self.tick, |next| next.saturating_sub(stand_in::now()));
        let tick = whole_ms(self.tick.min(until)).max(TICK_MIN);
        self.run_orchestrator(tick);
        self.sync_machines();
        for host in self.living.values() {
            host.run(tick);
        }
        self.run_tunnel(tick, busy);
        self.owner.run(tick);
        stand_in::set_now(stand_in::now() + tick);
    }

    /// The faults whose time it is.
    fn come_over(&mut self) {
        let now = stand_in::now();
        let due: Vec<Fault> =
            self.faults.iter().filter(|(_, (at, _))| *at <= now).map(|(fault, _)| *fault).collect();
        for fault in due {
            let again = self.rng.f64() * 2.0;
            let (at, between) = self.faults.get_mut(&fault).expect("it is due");
            *at = now + between.mul_f64(again) + TICK_MIN;
            match fault {
                Fault::Orchestrator if self.rng.u8(0..4) == 0 => drop(self.stop.send_replace(true)),
                Fault::Orchestrator => self.orchestrator.doomed = true,
                Fault::Tunnel => self.tunnel.doomed = true,
                Fault::Machine => self.kill_machine(),
                Fault::Network => {
                    self.ledger.fault("all links broken");
                    self.network.break_off(None, self.rng.bool());
                }
            }
        }
    }

    fn kill_machine(&mut self) {
        let Some(&attempt) = self.rng.choice(self.living.keys()) else { return };
        self.ledger.fault("machine killed");
        self.ledger.attempt(attempt, |attempt| attempt.killed = true);
        if let Some(host) = self.living.remove(&attempt) {
            host.steps(last_steps(&mut self.rng));
            if self.rng.bool() {
                self.network.break_off(Some(&attempt.to_string()), true);
            }
        }
        self.machines.die(attempt);
    }

    fn run_orchestrator(&mut self, tick: Duration) {
        let now = stand_in::now();
        if self.orchestrator.host.is_none() && self.orchestrator.back <= now {
            self.stop = watch::Sender::new(false);
            self.orchestrator = Kept { host: Some(self.start_orchestrator()), back: now, doomed: false };
            self.tick = TICK_MIN;
        }
        let came_up = self.network.came_up();
        let Some(host) = &self.orchestrator.host else { return };
        if self.orchestrator.doomed && came_up && self.orchestrator.back < now {
            self.ledger.fault("orchestrator killed");
            host.steps(last_steps(&mut self.rng));
            let back = now + self.away();
            self.orchestrator = Kept { host: None, back, doomed: false };
            return;
        }
        host.run(tick);
        if host.is_over() {
            self.ledger.fault("orchestrator ended");
            let back = now + self.away();
            self.orchestrator = Kept { host: None, back, doomed: false };
        }
    }

    /// How long a process stays away.
    fn away(&mut self) -> Duration {
        let longest = [0.1, 2.0, 60.0][self.rng.usize(0..3)];
        Duration::from_secs_f64(self.rng.f64() * longest)
    }

    fn start_orchestrator(&mut self) -> Host {
        let (config, street, machines) = (self.config.clone(), self.street.clone(), self.machines.clone());
        let (mut stop, ledger) = (self.stop.subscribe(), self.ledger.clone());
        Host::start(async move {
            let clock = Arc::new(ProcessClock::new());
            match Server::simulate(config, Arc::new(machines), clock, street).await {
                Ok(server) => {
                    let _ = stop.wait_for(|stop| *stop).await;
                    server.stop().await;
                }
                Err(mayfly_server::StartError::Engine(error)) => tracing::info!(%error, "not started"),
                Err(error) => ledger.violated(format!("no orchestrator: {}", mayfly_core::causes(&error))),
            }
        })
    }

    fn sync_machines(&mut self) {
        for spec in self.machines.made() {
            let host = self.start_machine(spec.clone());
            self.living.insert(spec.attempt, host);
        }
        for (attempt, _) in self.living.iter().filter(|(_, host)| host.is_over()) {
            self.machines.die(*attempt);
        }
        self.living.retain(|attempt, _| self.machines.is_alive(*attempt));
    }

    fn start_machine(&mut self, spec: mayfly_provider::MachineSpec) -> Host {
        let (rng, ledger, disk) = (self.rng.fork(), self.ledger.clone(), self.dir.path().to_owned());
        let way = self.network.way(&spec.attempt.to_string(), spec.way_out.join(WAY_OUT_SOCKET));
        ledger.attempt(spec.attempt, |_| {});
        Host::start(async move { Life::live(spec, way, rng, ledger, &disk).await })
    }

    fn run_tunnel(&mut self, tick: Duration, busy: bool) {
        let now = stand_in::now();
        if self.tunnel.host.is_none() && self.tunnel.back <= now {
            self.tunnel = Kept { host: Some(self.start_tunnel()), back: now, doomed: false };
        }
        let Some(host) = &self.tunnel.host else { return };
        // Its files are written by a thread, which no seed stops half-way: it dies between two ticks.
        if self.tunnel.doomed && busy && self.tunnel.back < now {
            self.ledger.fault("tunnel killed");
            let back = now + self.away();
            self.tunnel = Kept { host: None, back, doomed: false };
            return;
        }
        host.run(tick);
    }

    fn start_tunnel(&mut self) -> Host {
        let mut jitter = self.rng.fork();
        let config = TunnelConfig {
            way: self.network.way("tunnel", self.config.socket()),
            to: "the orchestrator".to_owned(),
            token: None,
            folder: self.dir.path().join("tunnel"),
            back_off: BackOff::new(move || jitter.u64(..)),
        };
        Host::start(async move {
            let _tunnel = Tunnel::start(config).expect("no token is a good one");
            std::future::pending::<()>().await;
        })
    }

    fn report(&self, settled: Duration) -> String {
        let facts = self.ledger.facts();
        let mut digest = self.network.digest();
        for (_, log) in facts.logs.iter().flat_map(BTreeMap::values) {
            digest =
                log.iter().fold(digest, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        }
        let faults: Vec<String> =
            facts.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        format!(
            "{} tasks, {} attempts, settled after {:.1} s, digest {digest:016x}; {}",
            facts.tasks.len(),
            facts.attempts.len(),
            settled.as_secs_f64(),
            faults.join(", "),
        )
    }
}
