//! The life of a machine, seen from inside: join, run `claude` once, bring the work out, end.
//!
//! Each step that matters is told to the orchestrator before or after it, and the two that must not be lost
//! are waited for: that `claude` is about to start (from then on the task is never run again by itself), and
//! that the work is out (from then on the machine may be destroyed).

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mayfly_core::{Failure, Outcome, causes};
use mayfly_failpoint::failpoint;
use mayfly_library::Compiled;
use mayfly_link::{BackOff, Dial, Route};
use mayfly_wire::Secret;
use mayfly_wire::boot::Boot;
use mayfly_wire::worker::{Hello, PROTOCOL, Report, WorkOrder};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Surroundings;
use crate::checkout::Checkout;
use crate::checkpoint::Checkpoints;
use crate::checkpoint::state::State;
use crate::claude::command::{Launch, config_dir, empty, prepare};
use crate::claude::verdict::Verdict;
use crate::closed;
use crate::collect::Collector;
use crate::collect::git::GitError;
use crate::exchange::Exchange;
use crate::library;
use crate::limits::Limits;
use crate::listen::Activity;
use crate::reaper::Reaper;
use crate::relay::Relay;
use crate::resume::{TakeUp, TakeUpError};
use crate::setup::SettingUp;
use crate::setup::made::Made;
use crate::spool::Spool;
use crate::supervise::Supervisor;
use crate::uplink::{self, Duty, Link, Outlet};
use crate::words;

/// The time for seeing which files differ, before the set-up commands and after them.
const DIFFERING_MAX: Duration = Duration::from_secs(60);

/// Lives it to its end. Without an orchestrator, or rejected by it, it ends early and leaves nothing.
pub(crate) async fn live(boot: Boot, mut surroundings: Surroundings) -> Result<(), LifeError> {
    // Before all else, and beside what has to be waited for.
    let closed_to = boot.closed_to.clone();
    let reached = tokio::spawn(async move { closed::reached(&closed_to).await });
    let place = surroundings.place.take();
    let reaper = Reaper::start(surroundings.realm).map_err(LifeError::NoSignals)?.at(place);
    let hello = Hello {
        protocol: PROTOCOL,
        attempt: boot.attempt.clone(),
        ticket: boot.ticket.clone(),
        link: Secret::from(surroundings.link_secret.clone()),
    };
    let way: Arc<dyn Dial> = Arc::new(Route::from(boot.endpoint.clone()));
    // Before anything of the agent's runs: nothing can be in its way, or open the file while it has a name.
    let bounds = surroundings.bounds.within(boot.disk.as_ref());
    let spool = Spool::on_disk_of(&boot.home, bounds.spool);
    let back_off = BackOff::new(surroundings.random);
    let mut link = uplink::start(Arc::clone(&way), hello, back_off, (bounds, spool));
    let Ok(order) = (&mut link.order).await else { return Err(LifeError::NoOrder) };
    failpoint("order-taken");
    let away_max = Duration::from_millis(order.orphan_after_ms);
    let relay = crate::relay::start(Arc::clone(&way), surroundings.random, away_max);
    let relay = relay.await.map_err(LifeError::NoRelay)?;
    let egress_port = match &order.egress_token {
        Some(token) => {
            let port = crate::egress::start(Arc::clone(&way), token.clone()).await;
            Some(port.map_err(LifeError::NoRelay)?)
        }
        None => None,
    };
    let reached = reached.await.expect("it is not ended, and does not panic");
    let made = OnceLock::new();
    let life = Life { boot, surroundings, reaper, way, relay, egress_port, order, reached, made };
    let mut duty = link.duty.clone();
    tokio::select! {
        () = life.work(link) => Ok(()),
        _ = duty.wait_for(|duty| *duty == Duty::Quit) => {
            life.reaper.kill_all_others();
            Err(LifeError::Quit)
        }
    }
}

struct Life {
    boot: Boot,
    surroundings: Surroundings,
    reaper: Reaper,
    way: Arc<dyn Dial>,
    relay: Relay,
    /// Where programs find the way to other hosts.
    egress_port: Option<u16>,
    order: WorkOrder,
    /// Where the machine gets through to, and must not.
    reached: Option<String>,
    /// What the set-up commands made; once they have run, or there are none.
    made: OnceLock<Arc<Made>>,
}

impl Life {
    async fn work(&self, link: Link) {
        let outlet = link.outlet.clone();
        let checked_out = match self.shut_in() {
            Ok(()) => self.check_out(&link).await,
            open => open,
        };
        let (workspace, verdict) = match checked_out.and_then(|()| self.workspace_or_verdict()) {
            Ok(workspace) => {
                let verdict = self.claude(&workspace, link).await;
                (Some(workspace), verdict)
            }
            Err(verdict) => (None, verdict),
        };
        let Verdict { outcome, detail } = verdict;
        outlet.report(&Report::Ended { outcome: outcome.name().to_owned(), detail }).await;
        let collected = match &workspace {
            Some(workspace) => self.collector(workspace).collect().await,
            None => mayfly_wire::api::Collected::default(),
        };
        outlet.report_durably(&Report::Collected(collected)).await;
        failpoint("collect-told");
    }

    /// Runs `claude`, unless the task is over before it could start.
    async fn claude(&self, workspace: &Path, link: Link) -> Verdict {
        let Link { outlet, mut duty, .. } = link;
        let exchange = self.exchange();
        let mut library = match self.make_ready(workspace, &exchange, &outlet, &mut duty).await {
            Ok(library) => library,
            Err(verdict) => return verdict,
        };
        let started = outlet.report_durably(&Report::Started).await;
        failpoint("start-told");
        if !started || *duty.borrow() > Duty::Work {
            return stopped();
        }
        if let Err(error) = self.carry_words(workspace, &mut library, &outlet).await {
            let detail = format!("what the repository says cannot be given to claude: {error}");
            return Verdict::failed(Failure::Workspace, detail);
        }
        let order = self.order_with(&library);
        let launch = Launch {
            library: &library,
            binary: &self.boot.claude,
            home: &self.boot.home,
            cwd: workspace,
            port: self.relay.port,
            egress_port: self.egress_port,
            order: &order,
        };
        let limits = Limits::of(&self.boot);
        let (reaper, graces, disk) = (self.reaper.clone(), self.surroundings.graces, self.boot.disk.clone());
        let (busy, activity) = (self.relay.busy.clone(), watch::Sender::default());
        let checkpoints = self.checkpoints(workspace, &exchange, outlet.clone(), activity.subscribe());
        let mut supervisor = Supervisor { reaper, outlet, duty, busy, activity, graces, limits, disk };
        tokio::select! {
            verdict = Box::pin(supervisor.run(&launch)) => verdict,
            never = Box::pin(checkpoints.keep()) => match never {},
        }
    }

    /// Does what comes before `claude` and can be done again in another machine: gets the library, what an earlier task
    /// left, and what the set-up commands make. These run as the agent does, so the CLI's folder is filled after them, and
    /// with nothing of theirs.
    async fn make_ready(
        &self,
        workspace: &Path,
        exchange: &Exchange<'_>,
        outlet: &Outlet,
        duty: &mut watch::Receiver<Duty>,
    ) -> Result<Compiled, Verdict> {
        if *duty.borrow_and_update() > Duty::Work {
            return Err(stopped());
        }
        let library = library::prepare(&self.order, exchange, &self.boot.home);
        let library = unless_stopped(duty, library).await?;
        // Also without its library: what comes out of this machine holds what was left.
        unless_stopped(duty, self.take_up_work(workspace, exchange, outlet)).await??;
        let library = library.map_err(|error| {
            let detail = format!("what the task gets of the library is not there: {}", causes(&error));
            Verdict::failed(Failure::Startup, detail)
        })?;
        self.set_up(workspace, exchange, outlet, duty).await?;
        let home = &self.boot.home;
        empty(home).map_err(|error| not_written(home, &error))?;
        unless_stopped(duty, self.take_up_session(workspace, exchange)).await??;
        library::put(&library, home).map_err(|error| not_written(home, &error))?;
        Ok(library)
    }

    async fn set_up(
        &self,
        workspace: &Path,
        exchange: &Exchange<'_>,
        outlet: &Outlet,
        duty: &mut watch::Receiver<Duty>,
    ) -> Result<(), Verdict> {
        let Some(setup) = &self.order.setup else { return Ok(()) };
        let setting_up = SettingUp {
            setup,
            workspace,
            home: &self.boot.home,
            egress_port: self.egress_port,
            version: self.order.claude_version.as_deref(),
            exchange,
            reaper: &self.reaper,
            outlet,
            disk: self.boot.disk.clone(),
            is_resumed: self.order.resume.is_some(),
        };
        let keep = if setting_up.can_keep() { &*setup.keep } else { &[] };
        let before = unless_stopped(duty, self.differing(workspace)).await?;
        let ran = unless_stopped(duty, setting_up.prepare()).await;
        self.reaper.kill_all_others();
        // Whatever became of them: what they left is no work.
        let made = match (before, self.differing(workspace).await) {
            (Ok(before), Ok(after)) => Made::between(workspace, &before, after, keep),
            (Err(error), _) | (_, Err(error)) => {
                let text =
                    format!("what the set-up made cannot be told from the agent's work: {}", causes(&error));
                outlet.report(&Report::Warning { text }).await;
                Made::default()
            }
        };
        self.made.set(Arc::new(made)).expect("a workspace is set up once");
        ran?.map_err(|error| Verdict::failed(Failure::Setup, causes(&error)))
    }

    /// The files that differ from the commit that the repository is at.
    async fn differing(&self, workspace: &Path) -> Result<HashSet<PathBuf>, GitError> {
        self.state(workspace, Arc::default()).differing(Instant::now() + DIFFERING_MAX).await
    }

    fn made(&self) -> Arc<Made> {
        self.made.get().cloned().unwrap_or_default()
    }

    /// The way to ask the orchestrator for what is this attempt's.
    fn exchange(&self) -> Exchange<'_> {
        Exchange { way: &*self.way, token: &self.order.result_token, random: self.surroundings.random }
    }

    fn checkpoints<'a>(
        &'a self,
        workspace: &Path,
        exchange: &Exchange<'a>,
        outlet: Outlet,
        activity: watch::Receiver<Activity>,
    ) -> Checkpoints<'a> {
        Checkpoints {
            reaper: self.reaper.clone(),
            outlet,
            exchange: exchange.clone(),
            activity,
            pace: self.surroundings.pace,
            state: self.state(workspace, self.made()),
            home: &self.boot.home,
            session_id: &self.order.session_id,
        }
    }

    fn state(&self, workspace: &Path, made: Arc<Made>) -> State {
        State {
            reaper: self.reaper.gentle(),
            workspace: workspace.to_owned(),
            base: self.order.workspace.as_ref().map(|workspace| workspace.base.clone()),
            base_objects: self.surroundings.base.join(".git/objects"),
            places: [self.boot.home.clone(), self.surroundings.scratch.clone()],
            disk_max: self.boot.disk.as_ref().map(|disk| disk.max),
            made,
            begun: 0,
            folder: None,
        }
    }

    /// Goes on where an earlier task was, if that was asked for.
    async fn take_up_work(
        &self,
        workspace: &Path,
        exchange: &Exchange<'_>,
        outlet: &Outlet,
    ) -> Result<(), Verdict> {
        let Some(take_up) = self.take_up(workspace, exchange) else { return Ok(()) };
        for lost in take_up.work().await.map_err(|error| not_taken_up(&error))? {
            let text = format!("of what the earlier task left, this is not there: {lost}");
            outlet.report(&Report::Warning { text }).await;
        }
        Ok(())
    }

    /// The same, for what was said.
    async fn take_up_session(&self, workspace: &Path, exchange: &Exchange<'_>) -> Result<(), Verdict> {
        let Some(take_up) = self.take_up(workspace, exchange) else { return Ok(()) };
        take_up.session().await.map_err(|error| not_taken_up(&error))
    }

    fn take_up<'a>(&'a self, workspace: &'a Path, exchange: &'a Exchange<'a>) -> Option<TakeUp<'a>> {
        let resume = self.order.resume.as_ref()?;
        let base = self.order.workspace.as_ref().map(|workspace| workspace.base.as_str());
        Some(TakeUp { resume, base, reaper: &self.reaper, exchange, home: &self.boot.home, workspace })
    }

    /// The order, with the model of the agent that it is run by if the task has named none.
    fn order_with(&self, library: &Compiled) -> WorkOrder {
        let mut order = self.order.clone();
        let is_default = order.library.as_ref().is_some_and(|ordered| ordered.model_is_default);
        if let Some(model) = library.model.as_ref().filter(|_| is_default) {
            order.model.clone_from(model);
        }
        order
    }

    /// Gives `claude` what counts of the repository, and tells what does not.
    async fn carry_words(&self, workspace: &Path, library: &mut Compiled, outlet: &Outlet) -> io::Result<()> {
        if self.order.workspace.is_some() {
            for report in words::prepare(&self.order, workspace, &self.boot.home, library)? {
                outlet.report(&report).await;
            }
        }
        Ok(())
    }

    /// Refuses a machine that reaches what it must not.
    fn shut_in(&self) -> Result<(), Verdict> {
        let Some(place) = &self.reached else { return Ok(()) };
        let detail = format!(
            "its machine is not shut in: it gets through to {place}, and nothing was run there; on Fly, \
             `mayfly fly deploy` sets the workers' network policy, which holds for machines made after that"
        );
        Err(Verdict::failed(Failure::Refused, detail))
    }

    /// Gets the code, if the machine came without it.
    async fn check_out(&self, link: &Link) -> Result<(), Verdict> {
        let folder = self.workspace_path();
        let Some(workspace) = self.order.workspace.as_ref().filter(|_| !folder.exists()) else {
            return Ok(());
        };
        let exchange = self.exchange();
        let (reaper, base, home) = (&self.reaper, &*self.surroundings.base, &*self.boot.home);
        let disk_bytes_max = self.boot.disk.as_ref().map_or(u64::MAX, |disk| disk.max);
        let checkout =
            Checkout { workspace, folder: &folder, base, reaper, exchange: &exchange, home, disk_bytes_max };
        unless_stopped(&mut link.duty.clone(), checkout.make()).await?.map_err(|error| {
            let detail = format!("the repository is not in {}: {}", folder.display(), causes(&error));
            Verdict::failed(Failure::Workspace, detail)
        })
    }

    fn workspace_or_verdict(&self) -> Result<PathBuf, Verdict> {
        self.workspace().map_err(|error| {
            let detail = format!("{} cannot be used: {error}", self.workspace_path().display());
            Verdict::failed(Failure::Workspace, detail)
        })
    }

    /// Where the agent works, by its real path, as the CLI will name it.
    fn workspace(&self) -> io::Result<PathBuf> {
        prepare(&self.boot.home)?;
        let path = self.workspace_path().canonicalize()?;
        std::fs::read_dir(&path).map(|_| path)
    }

    fn workspace_path(&self) -> PathBuf {
        match &self.order.workspace {
            Some(workspace) => self.boot.workspace.join(&workspace.name),
            None => self.boot.workspace.clone(),
        }
    }

    fn collector<'a>(&'a self, workspace: &'a Path) -> Collector<'a> {
        Collector {
            reaper: self.reaper.clone(),
            surroundings: &self.surroundings,
            order: &self.order,
            way: &*self.way,
            workspace,
            home: &self.boot.home,
            made: self.made(),
        }
    }
}

/// Does a part of what comes before `claude`, unless nobody wants it any more.
async fn unless_stopped<T>(
    duty: &mut watch::Receiver<Duty>,
    part: impl Future<Output = T>,
) -> Result<T, Verdict> {
    tokio::select! {
        done = part => Ok(done),
        _ = duty.wait_for(|duty| *duty > Duty::Work) => Err(stopped()),
    }
}

fn not_taken_up(error: &TakeUpError) -> Verdict {
    let detail = format!("what the earlier task left cannot be taken up: {}", causes(error));
    Verdict::failed(Failure::Workspace, detail)
}

fn not_written(home: &Path, error: &io::Error) -> Verdict {
    let detail = format!("{} cannot be filled: {error}", config_dir(home).display());
    Verdict::failed(Failure::Startup, detail)
}

fn stopped() -> Verdict {
    Verdict::new(Outcome::Cancelled, "stopped before claude was started".to_owned())
}

/// Why a machine ended before its work was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifeError {
    /// The ends of processes cannot be heard.
    #[error("cannot listen to signals")]
    NoSignals(#[source] io::Error),
    /// There is no loopback to listen on.
    #[error("cannot listen on loopback for claude's requests")]
    NoRelay(#[source] io::Error),
    /// The orchestrator gave none.
    #[error("no order was given to this machine")]
    NoOrder,
    /// The orchestrator is gone or wants nothing of it any more.
    #[error("the machine has no business any more")]
    Quit,
}
