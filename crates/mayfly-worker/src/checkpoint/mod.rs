//! Brings the work out while `claude` works, so that a machine that is lost takes little along.
//!
//! ```text
//!  a tool that may change files has ended ──► settle ─┐
//!  every minute, if something may have changed ───────┴► look ──► new? ──► pack what is new ──► hand over ──► rest
//! ```
//!
//! What is looked at is the work as it is at that moment: nobody is stopped, and nothing of the agent's is locked or
//! written. A file that changes meanwhile comes out as it was before or after, or with the next look. Git works in a
//! folder of ours ([`State`]), with a low priority. The session file is sent as far as its lines are whole, and not
//! beyond the work: it was read first. Work that the orchestrator withholds does not hold it up.
//!
//! The folder is as good as the agent leaves it: the same user may change it. One that is damaged is made anew, and what
//! comes of it is the agent's own loss, since every object is checked where it arrives.
//!
//! Bounds: [`Pace`], of which a rest after each look makes a share of the machine's time; [`LOOK_MAX`] and
//! [`HANDOVER_MAX`] for the time of one; [`CHAIN_MAX`] that build on one another. What goes wrong is told once.

mod handover;
mod session;
pub(crate) mod state;

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use mayfly_core::causes;
use mayfly_failpoint::failpoint;
use mayfly_wire::worker::{CHECKPOINTS_MAX, Report};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::collect::git::GitError;
use crate::exchange::{Exchange, ExchangeError};
use crate::listen::Activity;
use crate::reaper::Reaper;
use crate::uplink::Outlet;
use session::Session;
use state::{Look, State};

/// The longest that one look, and the packing of what is new, may take.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// The longest that it may take to hand one over.
const HANDOVER_MAX: Duration = Duration::from_secs(60);
/// How many times as long as a look takes nothing is looked at then: after one that found nothing new, it is no more
/// than a hundredth of the time.
const REST_AFTER_NOTHING: u32 = 99;
const REST_AFTER_NEWS: u32 = 9;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(60);
/// How many build on one another before one takes the place of all; an answer that was lost may make them more there.
const CHAIN_MAX: usize = CHECKPOINTS_MAX / 2;
/// The most bytes of their packs.
const CHAIN_BYTES_MAX: u64 = 512 << 20;
/// How many that fail in a row are told of: one look alone may have met a file while it changed, and one handover a link
/// that was broken for a while.
const FAILURES_TOLD: u32 = 2;

/// When the work is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Without any other reason.
    pub(crate) every: Duration,
    /// After a tool has ended: more may follow.
    pub(crate) settle: Duration,
}

impl Pace {
    /// What a machine uses.
    pub(crate) const USUAL: Self = Self { every: Duration::from_secs(60), settle: Duration::from_secs(1) };
}

/// What it takes to make them.
#[derive(Debug)]
pub(crate) struct Checkpoints<'a> {
    pub(crate) reaper: Reaper,
    pub(crate) outlet: Outlet,
    pub(crate) exchange: Exchange<'a>,
    pub(crate) activity: watch::Receiver<Activity>,
    pub(crate) pace: Pace,
    pub(crate) state: State,
    /// The agent's home, and the CLI's session.
    pub(crate) home: &'a Path,
    pub(crate) session_id: &'a str,
}

/// How far they have come.
#[derive(Debug, Default)]
struct Progress {
    /// The last that was tried.
    number: u64,
    /// The last that is safe.
    sent: Option<Sent>,
    /// How many build on one another, and their bytes.
    chain: (usize, u64),
    /// What was there at the last look has not come out: it is looked at again, whether or not anything has changed.
    owed: bool,
    failures: u32,
    told: bool,
}

/// A checkpoint that is safe.
#[derive(Debug)]
struct Sent {
    number: u64,
    /// Which folder of ours it is from.
    begun: u64,
    look: Look,
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
enum CheckpointError {
    #[error("the work cannot be looked at")]
    Look(#[from] GitError),
    #[error("it cannot be handed over")]
    Handover(#[from] ExchangeError),
    #[error("the orchestrator has not taken it in {} seconds", HANDOVER_MAX.as_secs())]
    Away,
}

impl CheckpointError {
    /// Whether it is told of when it comes after so many failures in a row, itself among them.
    fn is_told(&self, failures: u32) -> bool {
        match self {
            Self::Look(_) | Self::Away => failures >= FAILURES_TOLD,
            Self::Handover(_) => true,
        }
    }

    fn is_withheld(&self) -> bool {
        matches!(self, Self::Handover(error) if is_withheld(error))
    }
}

impl Checkpoints<'_> {
    /// Makes them for as long as it is let.
    pub(crate) async fn keep(mut self) -> Infallible {
        let (mut progress, mut session) = (Progress::default(), Session::default());
        let (mut seen, mut last, mut rest) = (0, Instant::now(), Duration::ZERO);
        loop {
            let touched = tokio::select! {
                () = touched(&mut self.activity, seen) => true,
                () = sleep_until(last + self.pace.every) => false,
            };
            if touched {
                sleep(self.pace.settle).await;
            }
            sleep_until(last + rest).await;
            let activity = *self.activity.borrow_and_update();
            let may_have_changed = touched || activity.open || progress.owed || self.reaper.others_live();
            (seen, last) = (activity.ended, Instant::now());
            let news = self.checkpoint(&mut progress, &mut session, may_have_changed).await;
            let news = match news {
                Ok(news) => {
                    progress.failures = 0;
                    // Made, and not only not needed: the next trouble is another.
                    progress.told &= !news;
                    news
                }
                Err(CheckpointError::Handover(ExchangeError::Refused {
                    status: StatusCode::NOT_FOUND,
                    ..
                })) => {
                    // An orchestrator of a version that takes none.
                    return std::future::pending().await;
                }
                Err(error) => {
                    self.fail(&mut progress, &error).await;
                    true
                }
            };
            let times = if news { REST_AFTER_NEWS } else { REST_AFTER_NOTHING };
            let took = last.elapsed();
            rest = took + (took * times).min(REST_MAX);
        }
    }

    /// Makes one, if there is anything new. Whether there was.
    async fn checkpoint(
        &mut self,
        progress: &mut Progress,
        session: &mut Session,
        may_have_changed: bool,
    ) -> Result<bool, CheckpointError> {
        // Before the work: a session must not tell of what is not there.
        let part = session.next(self.home, self.session_id).await;
        let made = if may_have_changed { self.work(progress).await } else { Ok(false) };
        if may_have_changed {
            // What is withheld is out, and would be so again; the next change may mend it.
            progress.owed = made.as_ref().is_err_and(|error| !error.is_withheld());
        }
        if made.as_ref().is_err_and(|error| !error.is_withheld()) {
            return made;
        }
        if let Some(part) = part {
            self.session(session, part).await?;
        }
        made
    }

    async fn session(&self, session: &mut Session, part: Bytes) -> Result<(), CheckpointError> {
        let bytes = part.len() as u64;
        let sent = self.exchange.put_session(session.sent(), part);
        match timeout(HANDOVER_MAX, sent).await.map_err(|_| CheckpointError::Away)? {
            Ok(()) => {
                failpoint("session-handed");
                session.advance(bytes);
                Ok(())
            }
            Err(error) => {
                session.restart();
                Err(error.into())
            }
        }
    }

    async fn work(&mut self, progress: &mut Progress) -> Result<bool, CheckpointError> {
        let (looked_at, deadline) = (Instant::now(), Instant::now() + LOOK_MAX);
        let look = self.state.look(deadline).await?;
        if progress.sent.as_ref().is_some_and(|sent| sent.look.is_same(&look)) {
            return Ok(false);
        }
        if progress.sent.is_none() && look.is_nothing() {
            return Ok(false);
        }
        failpoint("checkpoint-looked");
        progress.number += 1;
        let (number, begun) = (progress.number, self.state.begun);
        let is_long = progress.chain.0 >= CHAIN_MAX || progress.chain.1 > CHAIN_BYTES_MAX;
        let before = progress.sent.as_ref().filter(|sent| sent.begun == begun && !is_long);
        let before = before.map(|sent| (sent.number, &sent.look));
        let whole = before.is_none();
        let pack = self.state.pack(&look, before, deadline).await?;
        failpoint("checkpoint-packed");
        let handing = self.exchange.put_checkpoint(number, looked_at, &pack.file);
        match timeout(HANDOVER_MAX, handing).await.map_err(|_| CheckpointError::Away)? {
            Ok(()) => failpoint("checkpoint-handed"),
            Err(error) => {
                if !is_withheld(&error) {
                    // What it builds on may not be there any more.
                    progress.sent = None;
                }
                return Err(error.into());
            }
        }
        let (count, bytes) = if whole { (0, 0) } else { progress.chain };
        progress.chain = (count + 1, bytes + pack.bytes);
        progress.sent = Some(Sent { number, begun, look });
        Ok(true)
    }

    async fn fail(&mut self, progress: &mut Progress, error: &CheckpointError) {
        tracing::debug!(error = causes(error), "no checkpoint");
        progress.failures += 1;
        if error.is_told(progress.failures) && !std::mem::replace(&mut progress.told, true) {
            let text = format!(
                "there is no checkpoint of the work for now, and a machine that is lost loses what was changed since the \
                 last one: {}",
                causes(error)
            );
            self.outlet.report(&Report::Warning { text }).await;
        }
    }
}

/// Whether the orchestrator found a secret in it, or could not search it: then what was before is still there, and it will
/// not take this.
fn is_withheld(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. })
}

/// Returns once more tools have ended than `seen`.
async fn touched(activity: &mut watch::Receiver<Activity>, seen: u64) {
    if activity.wait_for(|activity| activity.ended > seen).await.is_err() {
        // Nobody listens any more: it is over.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orchestrator_that_takes_nothing_for_long_is_told_of() {
        assert!(!CheckpointError::Away.is_told(1), "a link may break");
        assert!(CheckpointError::Away.is_told(FAILURES_TOLD));
    }
}
