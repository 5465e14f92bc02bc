//! Runs `claude` once, from its start to the end of its output.
//!
//! ```text
//!            result, nothing left to do          rest grace
//!  Running ────────────────────────────► Resting ──────────┐
//!     │ ▲─────────── it goes on ────────────┘              ▼  term grace
//!     │    asked to collect                            Terminated ───────► Killed
//!     └────────────────► Interrupted ──────────────────────▲
//!     └──────────────── not what was asked for ────────────┘           ▲
//!     └──────────────── its files, or its log, take too much ───────────┘
//! ```
//!
//! A `result` is not the end: it closes the input, and if `claude` then does not exit by itself, signals
//! follow after their graces. Whatever it wrote before its end is read to the last byte and put into the
//! outbox before anybody looks at it. When it is over, every other process of the machine is killed.
//!
//! Bounds: [`Graces`]; [`STDERR_BYTES_MAX`](crate::listen::STDERR_BYTES_MAX) of its standard error, then one warning.

use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use mayfly_core::{Failure, Outcome};
use mayfly_wire::boot::DiskLimit;
use mayfly_wire::worker::Report;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::claude::command::Launch;
use crate::claude::input;
use crate::claude::interpret::{Asked, Interpreter};
use crate::claude::verdict::{End, Verdict};
use crate::disk;
use crate::limits::Limits;
use crate::listen::{Activity, Listener, Progress, stderr};
use crate::reaper::{Child, Handle, KillOnDrop, Reaper};
use crate::uplink::{Duty, Outlet};

/// How many texts may wait to be written to `claude`.
pub(crate) const INPUTS_MAX: usize = 64;

/// How long `claude` is waited for, before the next and harder step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Graces {
    /// From its result, with nothing left to do, to `SIGTERM`.
    pub(crate) rest: Duration,
    /// From the request to stop to `SIGTERM`.
    pub(crate) interrupt: Duration,
    /// From `SIGTERM` to `SIGKILL`.
    pub(crate) term: Duration,
    /// For each further byte of its output, once it is dead and something else holds the pipe.
    pub(crate) drain: Duration,
}

impl Graces {
    /// What a machine uses.
    pub(crate) const USUAL: Self = Self {
        rest: Duration::from_secs(10),
        interrupt: Duration::from_millis(1500),
        term: Duration::from_secs(3),
        drain: Duration::from_secs(2),
    };
}

/// What a run needs of the worker's other parts.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) reaper: Reaper,
    pub(crate) outlet: Outlet,
    pub(crate) duty: watch::Receiver<Duty>,
    /// How many exchanges with the model are under way.
    pub(crate) busy: watch::Receiver<usize>,
    /// Where it is told what tools do.
    pub(crate) activity: watch::Sender<Activity>,
    pub(crate) graces: Graces,
    pub(crate) limits: Limits,
    pub(crate) disk: Option<DiskLimit>,
}

/// How far the run is on its way out. A deadline leads to the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Resting(Instant),
    Interrupted(Instant),
    Terminated(Instant),
    Killed,
}

/// Why the worker ended the run, if it did.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    Asked,
    Mismatch(String),
    /// Its machine's files take too much of the disk.
    Disk(String),
    /// It has written more than its log may take.
    Log(String),
    /// It would not exit after its result.
    Rested,
}

impl Supervisor {
    /// Starts `claude`, and returns when it is over and all of its output is in the outbox.
    pub(crate) async fn run(&mut self, launch: &Launch<'_>) -> Verdict {
        let counted_before = self.limits.counts();
        // The descriptor is the child's from here on.
        let spawned = launch.command().and_then(|(mut command, _descriptor)| self.reaper.spawn(&mut command));
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let detail = format!("{} cannot be started: {error}", launch.binary.display());
                return Verdict::failed(Failure::Startup, detail);
            }
        };
        let parts = self.take_apart(child, launch);
        let (status, stop, (interpreter, stderr_tail)) = self.watch(parts).await;
        let met = self.limits.met_since(counted_before);
        for text in met.warnings() {
            self.outlet.report(&Report::Warning { text }).await;
        }
        let end = End {
            status,
            initialised: interpreter.initialised(),
            last: interpreter.last(),
            resets_at: interpreter.resets_at(),
            was_at_rest: stop == Some(Stop::Rested),
            met,
            stderr_tail: stderr_tail.trim(),
        };
        match stop {
            Some(Stop::Asked) => Verdict::new(Outcome::Cancelled, "stopped as asked".to_owned()),
            Some(Stop::Disk(detail)) => Verdict::failed(Failure::DiskLimit, detail),
            Some(Stop::Log(detail)) => Verdict::failed(Failure::LogFull, detail),
            Some(Stop::Mismatch(difference)) => Verdict::failed(Failure::InitMismatch, difference),
            Some(Stop::Rested) | None => end.verdict(),
        }
    }

    /// Gives each stream of the child its own task.
    fn take_apart(&self, child: Child, launch: &Launch<'_>) -> Parts {
        const PIPED: &str = "the command asks for three pipes";
        let (inputs, to_write) = mpsc::channel(INPUTS_MAX);
        tokio::spawn(feed(child.stdin.expect(PIPED), to_write));
        // The queue is empty, so there is room for the first.
        let _ = inputs.try_send(input::opening(&launch.order.prompt));

        let (progress_in, progress) = watch::channel(Progress::default());
        let exited = watch::Sender::new(false);
        let listener = Listener {
            interpreter: Interpreter::new(Asked::new(launch.order, launch.cwd, &launch.library.expected)),
            outlet: self.outlet.clone(),
            answers: inputs.downgrade(),
            progress: progress_in,
            activity: self.activity.clone(),
            exited: exited.subscribe(),
            drain: self.graces.drain,
            room: launch.order.log_bytes_max.unwrap_or(u64::MAX),
        };
        Parts {
            log_bytes_max: launch.order.log_bytes_max,
            _killed: KillOnDrop(child.handle.clone()),
            handle: child.handle,
            end: child.end,
            inputs: Some(inputs),
            progress,
            stdout: tokio::spawn(listener.listen(child.stdout.expect(PIPED))),
            stderr: tokio::spawn(stderr(
                child.stderr.expect(PIPED),
                self.outlet.clone(),
                exited.subscribe(),
                self.graces.drain,
            )),
            exited,
        }
    }

    /// Watches over the run until nothing of it is left.
    async fn watch(&mut self, mut parts: Parts) -> (ExitStatus, Option<Stop>, (Interpreter, String)) {
        let (mut stage, mut stop) = (Stage::Running, None);
        let mut over = pin!(disk::over(self.disk.clone()));
        if *self.duty.borrow_and_update() > Duty::Work {
            stage = self.obey(&mut parts, stage, &mut stop);
        }
        let status = loop {
            tokio::select! {
                ended = &mut parts.end => break ended.expect("the reaper lives as long as the runtime"),
                Ok(()) = parts.progress.changed() => stage = self.advance(&mut parts, stage, &mut stop),
                Ok(()) = self.busy.changed() => stage = self.advance(&mut parts, stage, &mut stop),
                Ok(()) = self.duty.changed() => stage = self.obey(&mut parts, stage, &mut stop),
                detail = &mut over, if stage != Stage::Killed => {
                    stop.get_or_insert(Stop::Disk(detail));
                    // Whatever fills the disk must stop now.
                    stage = self.kill(&parts);
                }
                () = deadline(stage) => stage = self.press(&parts, stage, &mut stop),
            }
        };
        self.reaper.kill_all_others();
        parts.exited.send_replace(true);
        let (interpreter, stderr_tail) = (parts.stdout.await, parts.stderr.await);
        let heard = interpreter.and_then(|interpreter| Ok((interpreter, stderr_tail?)));
        (status, stop, heard.expect("reading does not panic"))
    }

    /// `claude` has said something, or has turned to the model or away from it.
    fn advance(&mut self, parts: &mut Parts, stage: Stage, stop: &mut Option<Stop>) -> Stage {
        let progress = parts.progress.borrow_and_update().clone();
        if let (Some(difference), Stage::Running, None) = (progress.mismatch, stage, &stop) {
            *stop = Some(Stop::Mismatch(difference));
            return self.terminate(parts);
        }
        if progress.is_too_much && stage != Stage::Killed {
            let most = parts.log_bytes_max.unwrap_or_default();
            stop.get_or_insert(Stop::Log(format!("its log reached the limit of {most} bytes")));
            // Whatever floods it must stop now.
            return self.kill(parts);
        }
        if progress.is_answered {
            parts.inputs = None;
        }
        // While it waits for the model it is silent too, and whoever has its output could have written the result.
        let is_at_rest = progress.is_at_rest && *self.busy.borrow_and_update() == 0;
        match stage {
            Stage::Running if is_at_rest => Stage::Resting(Instant::now() + self.graces.rest),
            Stage::Resting(_) if !is_at_rest => Stage::Running,
            stage => stage,
        }
    }

    /// The orchestrator wants something else.
    fn obey(&mut self, parts: &mut Parts, stage: Stage, stop: &mut Option<Stop>) -> Stage {
        let duty = *self.duty.borrow_and_update();
        match (duty, stage) {
            (Duty::Quit, _) => {
                stop.get_or_insert(Stop::Asked);
                self.kill(parts)
            }
            (Duty::Collect, Stage::Running | Stage::Resting(_)) => {
                stop.get_or_insert(Stop::Asked);
                let asked =
                    parts.inputs.as_ref().is_some_and(|inputs| inputs.try_send(input::interrupt()).is_ok());
                if !asked {
                    parts.handle.signal(Signal::INT);
                }
                Stage::Interrupted(Instant::now() + self.graces.interrupt)
            }
            _ => stage,
        }
    }

    /// A grace is over.
    fn press(&self, parts: &Parts, stage: Stage, stop: &mut Option<Stop>) -> Stage {
        match stage {
            Stage::Resting(_) => {
                stop.get_or_insert(Stop::Rested);
                self.terminate(parts)
            }
            Stage::Interrupted(_) => self.terminate(parts),
            Stage::Terminated(_) => self.kill(parts),
            Stage::Running | Stage::Killed => stage,
        }
    }

    fn terminate(&self, parts: &Parts) -> Stage {
        parts.handle.signal(Signal::TERM);
        Stage::Terminated(Instant::now() + self.graces.term)
    }

    fn kill(&self, parts: &Parts) -> Stage {
        parts.handle.kill();
        self.reaper.kill_all_others();
        Stage::Killed
    }
}

/// What the watch over a run holds in its hands.
struct Parts {
    handle: Handle,
    /// If the watch is given up, nothing of the run is left.
    _killed: KillOnDrop,
    end: tokio::sync::oneshot::Receiver<ExitStatus>,
    /// What its lines may take in the log.
    log_bytes_max: Option<u64>,
    /// The way to its input; dropping it closes the input.
    inputs: Option<mpsc::Sender<bytes::Bytes>>,
    progress: watch::Receiver<Progress>,
    exited: watch::Sender<bool>,
    stdout: JoinHandle<Interpreter>,
    stderr: JoinHandle<String>,
}

async fn deadline(stage: Stage) {
    match stage {
        Stage::Resting(at) | Stage::Interrupted(at) | Stage::Terminated(at) => sleep_until(at).await,
        Stage::Running | Stage::Killed => std::future::pending().await,
    }
}

/// Writes to the input until there is nothing more to come, and closes it.
async fn feed(mut stdin: pipe::Sender, mut inputs: mpsc::Receiver<bytes::Bytes>) {
    while let Some(input) = inputs.recv().await {
        if stdin.write_all(&input).await.is_err() {
            // It does not read any more; how it ends says why.
            return;
        }
    }
}
