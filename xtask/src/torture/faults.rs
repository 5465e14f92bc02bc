//! What is done to the processes, and when: all of it decided by the seed, but for which machines there are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use mayfly_core::TaskId;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout_at};

use super::proxy::Proxy;
use super::{Ends, Place};
use crate::machines::{Machine, machines};
use crate::orchestrator::Serving;

/// The pause before a fault, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 100..1800;
/// How long nobody is there after a kill.
const AWAY_MS: std::ops::Range<u64> = 0..1500;
/// How long an orchestrator or a worker stands still.
const STILL_MS: std::ops::Range<u64> = 200..4000;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillOrchestrator,
    StopOrchestrator,
    KillTunnel,
    KillWorker,
    StopWorker,
    KillClaude,
    CutProxy,
}

impl Fault {
    /// Each as often as it is in this list.
    const CHOICE: [Self; 13] = [
        Self::KillOrchestrator,
        Self::KillOrchestrator,
        Self::KillOrchestrator,
        Self::StopOrchestrator,
        Self::KillTunnel,
        Self::KillTunnel,
        Self::KillWorker,
        Self::StopWorker,
        Self::KillClaude,
        Self::CutProxy,
        Self::CutProxy,
        Self::CutProxy,
        Self::CutProxy,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::KillOrchestrator => "the orchestrator is killed",
            Self::StopOrchestrator => "the orchestrator stands still",
            Self::KillTunnel => "the tunnel is killed",
            Self::KillWorker => "a worker is killed",
            Self::StopWorker => "a worker stands still",
            Self::KillClaude => "a claude is killed",
            Self::CutProxy => "the proxy cuts",
        }
    }
}

/// A fault with its times, and a number that picks a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pause: Duration,
    fault: Fault,
    lasts: Duration,
    pick: usize,
}

/// The next step of the seed's plan.
pub(crate) fn step(random: &mut fastrand::Rng) -> Step {
    let pause = Duration::from_millis(random.u64(PAUSE_MS));
    let fault = Fault::CHOICE[random.usize(..Fault::CHOICE.len())];
    let (away, still, pick) = (random.u64(AWAY_MS), random.u64(STILL_MS), random.usize(..));
    let stands = matches!(fault, Fault::StopOrchestrator | Fault::StopWorker);
    let lasts = if stands { still } else { away };
    Step { pause, fault, lasts: Duration::from_millis(lasts), pick }
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) faults: std::collections::BTreeMap<Fault, usize>,
    /// The tasks whose worker or `claude` was killed.
    pub(crate) hit: BTreeSet<TaskId>,
}

/// The two ends while they are being killed.
pub(crate) struct Tormentor<'a> {
    pub(crate) place: &'a Place,
    pub(crate) proxy: &'a Proxy,
    pub(crate) listen: SocketAddr,
    pub(crate) ends: Ends,
    pub(crate) done: Done,
}

impl Tormentor<'_> {
    /// Follows the plan until the time is over. Both ends are there then.
    pub(crate) async fn run(
        mut self,
        mut random: fastrand::Rng,
        until: Instant,
    ) -> anyhow::Result<(Ends, Done)> {
        loop {
            let step = step(&mut random);
            if timeout_at(until, sleep(step.pause)).await.is_err() {
                return Ok((self.ends, self.done));
            }
            let Step { fault, lasts, pick, .. } = step;
            let (what, log) = (fault.words(), self.place.log());
            if self
                .inflict(fault, lasts, pick)
                .await
                .with_context(|| format!("{what}: see {}", log.display()))?
            {
                *self.done.faults.entry(fault).or_default() += 1;
                println!("{:>7.1?} left  {what}", until.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// Whether there was anything to do it to.
    async fn inflict(&mut self, fault: Fault, lasts: Duration, pick: usize) -> anyhow::Result<bool> {
        match fault {
            Fault::KillOrchestrator => {
                kill(&mut self.ends.orchestrator).await?;
                sleep(lasts).await;
                self.ends.orchestrator = Some(self.place.serve(self.listen).await?);
            }
            Fault::StopOrchestrator => {
                let orchestrator = self.ends.orchestrator.as_ref().context("it is there")?;
                orchestrator.signal(Signal::STOP)?;
                sleep(lasts).await;
                orchestrator.signal(Signal::CONT)?;
            }
            Fault::KillTunnel => {
                kill(&mut self.ends.tunnel).await?;
                sleep(lasts).await;
                self.ends.tunnel = Some(super::tunnel(self.place, None).await?);
            }
            Fault::StopWorker => {
                let Some(machine) = self.pick(pick) else { return Ok(false) };
                machine.worker.signal(Signal::STOP)?;
                sleep(lasts).await;
                return machine.worker.signal(Signal::CONT);
            }
            Fault::KillWorker | Fault::KillClaude => return self.hit(fault, pick),
            Fault::CutProxy => self.proxy.cut(),
        }
        Ok(true)
    }

    fn pick(&self, number: usize) -> Option<Machine> {
        let machines = machines(self.place);
        machines.get(number % machines.len().max(1)).copied()
    }

    fn hit(&mut self, fault: Fault, pick: usize) -> anyhow::Result<bool> {
        let Some(machine) = self.pick(pick) else { return Ok(false) };
        let process = match fault {
            Fault::KillWorker => Some(machine.worker),
            _ => machine.claude(),
        };
        let Some(process) = process else { return Ok(false) };
        // Before the deed: it may end the task at once.
        self.done.hit.insert(machine.attempt.task);
        process.signal(Signal::KILL)
    }
}

async fn kill(serving: &mut Option<Serving>) -> anyhow::Result<()> {
    serving.take().context("it is there")?.end(Signal::KILL).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_the_plan_and_each_fault_is_in_one() {
        let plan = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..100).map(|_| step(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let faults: BTreeSet<Fault> = plan(1).iter().map(|step| step.fault).collect();
        assert_eq!(faults, BTreeSet::from(Fault::CHOICE));
    }
}
