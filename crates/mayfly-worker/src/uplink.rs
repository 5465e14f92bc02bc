//! The link to the orchestrator: carries records up until they are durable, and brings its word down.
//!
//! ```text
//! Outlet ─pieces─► Uplink(outbox) ─frames─► writer ─► orchestrator
//!    ▲── durable ─────┘  ▲── Welcome, Ack, Collect, Reject ──┘
//! ```
//!
//! One task owns the outbox and each link in turn. When a link breaks it dials again, with growing waits,
//! and goes on taking pieces; the rest of the machine does not notice. What ends it: an orchestrator that
//! rejects the attempt, or none at all for as long as the order allows.
//!
//! What finds no room in memory goes through the [`Spool`], beside all this and one job at a time. When nothing takes
//! any more, one warning says so.
//!
//! Bounds: the outbox's own, and [`PIECES_MAX`] pieces on the way to it, each of one read.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mayfly_core::causes;
use mayfly_link::{BackOff, Channel, Dial, Frame, KEEP_ALIVE, LinkError, Receiver, Sender, dial};
use mayfly_wire::worker::{BadFrame, Down, End, Hello, PROTOCOL, Report, Source, WorkOrder};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};

use crate::outbox::{BadNumber, Bounds, Done, Outbox};
use crate::spool::Spool;

/// Where a worker joins.
const JOIN_PATH: &str = "/v1/worker";
/// How many pieces may be on their way to the outbox.
const PIECES_MAX: usize = 4;
/// How long the orchestrator may take to answer a hello.
const WELCOME_MAX: Duration = Duration::from_secs(30);
/// How long a machine goes on without ever having had an order.
const ORDERLESS_MAX: Duration = Duration::from_secs(5 * 60);

/// Said once, when nothing more can wait.
const FULL: &str =
    "the orchestrator takes nothing, and no more can wait for it here: claude is held until it does";

/// What the orchestrator wants of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Duty {
    /// The order.
    Work,
    /// Stop `claude`, and bring the work out.
    Collect,
    /// Nothing any more: the machine ends itself.
    Quit,
}

/// Something to be said, in one or more records that have no numbers yet.
#[derive(Debug)]
pub(crate) struct Piece {
    at_ms: u64,
    source: Source,
    records: Vec<(Bytes, End)>,
    durable: Option<oneshot::Sender<()>>,
}

/// Where the parts of the worker put what is to be said. Waits while the outbox is full.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    pieces: mpsc::Sender<Piece>,
}

impl Outlet {
    /// Says what `claude` wrote, as it was read.
    pub(crate) async fn say(&self, source: Source, records: Vec<(Bytes, End)>) {
        if !records.is_empty() {
            self.put(Piece { at_ms: now_ms(), source, records, durable: None }).await;
        }
    }

    /// Says a word of the worker's own.
    pub(crate) async fn report(&self, report: &Report) {
        self.put(piece(report, None)).await;
    }

    /// Says it, and waits until the orchestrator has it for good. `false`: it never will.
    pub(crate) async fn report_durably(&self, report: &Report) -> bool {
        let (durable, stored) = oneshot::channel();
        self.put(piece(report, Some(durable))).await;
        stored.await.is_ok()
    }

    async fn put(&self, piece: Piece) {
        // Without an uplink the machine is about to end, and nobody can hear it.
        let _ = self.pieces.send(piece).await;
    }
}

fn piece(report: &Report, durable: Option<oneshot::Sender<()>>) -> Piece {
    let bytes = serde_json::to_vec(report).expect("a report is plain data");
    let records = vec![(bytes.into(), End::Newline)];
    Piece { at_ms: now_ms(), source: Source::Report, records, durable }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The worker's side of a link that is up, or will be.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) outlet: Outlet,
    pub(crate) duty: watch::Receiver<Duty>,
    /// The order, once.
    pub(crate) order: oneshot::Receiver<WorkOrder>,
}

/// Begins to dial, on the current runtime and until it ends.
pub(crate) fn start(way: Arc<dyn Dial>, hello: Hello, back_off: BackOff, waiting: (Bounds, Spool)) -> Link {
    let (bounds, spool) = waiting;
    let (pieces_in, pieces) = mpsc::channel(PIECES_MAX);
    let (duty_in, duty) = watch::channel(Duty::Work);
    let (order_in, order) = oneshot::channel();
    let uplink = Uplink {
        way,
        hello,
        back_off,
        pieces,
        outbox: Outbox::new(bounds),
        spool,
        job: None,
        has_warned: false,
        durable: VecDeque::new(),
        duty: duty_in,
        order: Some(order_in),
        alone_max: ORDERLESS_MAX,
    };
    tokio::spawn(uplink.run());
    Link { outlet: Outlet { pieces: pieces_in }, duty, order }
}

struct Uplink {
    way: Arc<dyn Dial>,
    hello: Hello,
    back_off: BackOff,
    pieces: mpsc::Receiver<Piece>,
    outbox: Outbox,
    spool: Spool,
    /// What is being done with the spool.
    job: Option<JoinHandle<io::Result<Done>>>,
    /// It was told that the outbox is full.
    has_warned: bool,
    durable: VecDeque<(u64, oneshot::Sender<()>)>,
    duty: watch::Sender<Duty>,
    order: Option<oneshot::Sender<WorkOrder>>,
    alone_max: Duration,
}

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    /// Dial again.
    #[error("the link broke")]
    Broken(#[source] Option<LinkError>),
    /// Dial again; the orchestrator may come to its senses.
    #[error("the orchestrator is not to be understood")]
    Nonsense(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The machine has no business any more.
    #[error("the orchestrator and this machine part: {0}")]
    Rejected(String),
}

impl Uplink {
    async fn run(mut self) {
        let mut alone_since = Instant::now();
        loop {
            match self.link(&mut alone_since).await {
                LinkEnd::Rejected(reason) => {
                    tracing::warn!(reason, "rejected");
                    break;
                }
                end => tracing::debug!(%end, "no link"),
            }
            let (wait, orphaned) = (self.back_off.wait(), alone_since + self.alone_max);
            if Instant::now() + wait >= orphaned {
                self.meanwhile(sleep_until(orphaned)).await;
                tracing::warn!("no orchestrator for too long");
                break;
            }
            self.meanwhile(sleep(wait)).await;
        }
        // Its receivers see that nothing will become durable any more.
        self.duty.send_replace(Duty::Quit);
    }

    /// One link, from dialling to its end.
    async fn link(&mut self, alone_since: &mut Instant) -> LinkEnd {
        let join = join(Arc::clone(&self.way), self.hello.clone());
        let (channel, stored, order) = match self.meanwhile(join).await {
            Ok(joined) => joined,
            Err(end) => return end,
        };
        if let Err(error) = self.outbox.resume(stored) {
            return error.into();
        }
        self.settle();
        self.alone_max = Duration::from_millis(order.orphan_after_ms);
        if let Some(first) = self.order.take() {
            let _ = first.send(*order);
        }
        // With records to be stored, it is of use only once they are: an orchestrator may let in and store nothing.
        if !self.outbox.has_unsent() {
            self.back_off.reset();
        }
        let end = self.talk(channel).await;
        *alone_since = Instant::now();
        end
    }

    /// Sends and listens until the link is over.
    async fn talk(&mut self, channel: Channel) -> LinkEnd {
        let (sender, mut receiver) = channel.split();
        let (frames, to_send) = mpsc::channel(1);
        let mut writer = pin!(write(sender, to_send));
        loop {
            tokio::select! {
                down = listen(&mut receiver) => match down.map(|down| self.obey(down)) {
                    Ok(Ok(())) => {}
                    Ok(Err(end)) | Err(end) => return end,
                },
                Some(piece) = self.pieces.recv(), if self.outbox.has_room() => self.take(piece),
                done = finished(&mut self.job), if self.job.is_some() => self.done(done),
                Ok(permit) = frames.reserve(), if self.outbox.has_batch() => {
                    if let Some(frame) = self.outbox.batch() {
                        permit.send(frame);
                    }
                }
                error = &mut writer => return LinkEnd::Broken(Some(error)),
            }
        }
    }

    fn obey(&mut self, down: Down) -> Result<(), LinkEnd> {
        match down {
            Down::Ack { stored } => {
                if stored > self.outbox.stored() {
                    self.back_off.reset();
                }
                self.outbox.ack(stored)?;
            }
            Down::Collect => {
                self.duty.send_replace(Duty::Collect);
            }
            Down::Reject { reason } => return Err(LinkEnd::Rejected(reason)),
            Down::Welcome { .. } => {}
        }
        self.settle();
        Ok(())
    }

    /// Waits for something else, and takes pieces as long as there is room.
    async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                Some(piece) = self.pieces.recv(), if self.outbox.has_room() => self.take(piece),
                done = finished(&mut self.job), if self.job.is_some() => self.done(done),
            }
        }
    }

    fn take(&mut self, piece: Piece) {
        let mut last = 0;
        for (bytes, end) in piece.records {
            last = self.outbox.push(piece.at_ms, piece.source, end, bytes);
        }
        self.durable.extend(piece.durable.map(|durable| (last, durable)));
        self.spool();
    }

    /// Has the next thing done with the spool. Once, it is told that all is full.
    fn spool(&mut self) {
        if self.job.is_none() {
            self.job = self.outbox.job().map(|job| self.spool.start(job));
        }
        if self.job.is_none() && !self.outbox.has_room() && !self.has_warned {
            self.has_warned = true;
            let bytes = serde_json::to_vec(&Report::Warning { text: FULL.to_owned() });
            let bytes = bytes.expect("a report is plain data").into();
            self.outbox.push(now_ms(), Source::Report, End::Newline, bytes);
        }
    }

    /// Without what it has put away, the machine's account would have a gap: then there is none at all.
    fn done(&mut self, done: Result<Done, SpoolError>) {
        self.job = None;
        match done.and_then(|done| self.outbox.done(done).map_err(SpoolError::Mangled)) {
            Ok(()) => self.spool(),
            Err(error) => {
                tracing::error!(error = causes(&error), "the spool is lost");
                self.duty.send_replace(Duty::Quit);
            }
        }
    }

    /// Tells those who wait for a number that the orchestrator has.
    fn settle(&mut self) {
        self.spool();
        let stored = self.outbox.stored();
        let settled = self.durable.partition_point(|(number, _)| *number <= stored);
        for (_, durable) in self.durable.drain(..settled) {
            // Not everybody stays to hear it.
            let _ = durable.send(());
        }
    }
}

/// What was put away does not come back.
#[derive(Debug, thiserror::Error)]
enum SpoolError {
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("it gives back other bytes")]
    Mangled(#[source] BadFrame),
}

/// Waits for what is being done, if there is something.
async fn finished(job: &mut Option<JoinHandle<io::Result<Done>>>) -> Result<Done, SpoolError> {
    match job {
        Some(job) => job.await.expect("files do not panic").map_err(SpoolError::Unreadable),
        None => std::future::pending().await,
    }
}

impl From<BadNumber> for LinkEnd {
    fn from(error: BadNumber) -> Self {
        Self::Nonsense(Box::new(error))
    }
}

/// Dials, says hello, and gives the channel, the last stored number and the order.
async fn join(way: Arc<dyn Dial>, hello: Hello) -> Result<(Channel, u64, Box<WorkOrder>), LinkEnd> {
    let broken = |error| LinkEnd::Broken(Some(error));
    let mut channel = dial(&*way, JOIN_PATH, None).await.map_err(broken)?;
    let hello = serde_json::to_string(&hello).expect("a hello is plain data");
    channel.send(Frame::Text(hello)).await.map_err(broken)?;
    let answer = timeout(WELCOME_MAX, channel.recv()).await.map_err(|_| LinkEnd::Broken(None))?;
    match read(answer)? {
        Down::Welcome { protocol: PROTOCOL, stored, order } => Ok((channel, stored, order)),
        Down::Welcome { protocol, .. } => Err(other_version(protocol)),
        Down::Reject { reason } => Err(LinkEnd::Rejected(reason)),
        Down::Ack { .. } | Down::Collect => {
            Err(LinkEnd::Nonsense("it answers a hello with another word".into()))
        }
    }
}

/// What it says may mean something else than it would here.
fn other_version(protocol: u32) -> LinkEnd {
    LinkEnd::Rejected(format!("it speaks version {protocol} of the worker link, and this worker {PROTOCOL}"))
}

async fn listen(receiver: &mut Receiver) -> Result<Down, LinkEnd> {
    read(receiver.recv().await)
}

fn read(frame: Option<Result<Frame, LinkError>>) -> Result<Down, LinkEnd> {
    match frame {
        Some(Ok(Frame::Text(text))) => {
            serde_json::from_str(&text).map_err(|error| LinkEnd::Nonsense(Box::new(error)))
        }
        Some(Ok(Frame::Binary(_))) => Err(LinkEnd::Nonsense("it sends bytes".into())),
        Some(Err(error)) => Err(LinkEnd::Broken(Some(error))),
        None => Err(LinkEnd::Broken(None)),
    }
}

/// Sends frames, and shows between them that the machine lives. Ends with the link.
async fn write(mut sender: Sender, mut frames: mpsc::Receiver<Bytes>) -> LinkError {
    let mut alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    loop {
        let sent = tokio::select! {
            Some(frame) = frames.recv() => sender.send(Frame::Binary(frame)).await,
            _ = alive.tick() => sender.ping().await,
        };
        if let Err(error) = sent {
            return error;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers R26.
    #[test]
    fn another_version_is_refused_with_both_versions() {
        let words = other_version(PROTOCOL + 1).to_string();
        let versions = [format!("version {} ", PROTOCOL + 1), format!("worker {PROTOCOL}")];
        assert!(versions.iter().all(|version| words.contains(version)), "{words}");
    }
}
