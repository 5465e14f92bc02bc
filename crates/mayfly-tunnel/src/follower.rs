//! Follows an orchestrator elsewhere, and keeps what all its tasks say.
//!
//! ```text
//! dial ──► hello(store, position) ──► welcome ──► chunk ⇒ logs, chunk ⇒ logs …
//!   ▲                                                  │ every SYNC_MAX: on the disk, and then the position
//!   └──────── grow the wait ◄── the link broke, or its silence did
//! ```
//!
//! One task owns the logs and each link in turn. Whatever ends a link, or this process, costs nothing but time:
//! the position is the place to go on from.
//!
//! Bounds: one chunk at a time; when the disk is slow nobody reads from the link, and the orchestrator waits.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::causes;
use mayfly_failpoint::failpoint;
use mayfly_link::{BackOff, Channel, Dial, Frame, KEEP_ALIVE, LinkError, Receiver, Sender, dial};
use mayfly_wire::Secret;
use mayfly_wire::tunnel::{Answer, BadChunk, Chunk, Hello, JOIN_PATH, PROTOCOL, Status, Welcome};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::logs::{LogError, Logs, failed, replace};

/// How long an orchestrator may take to answer a hello.
const WELCOME_MAX: Duration = Duration::from_secs(30);
/// How long what was appended may wait for the disk.
const SYNC_MAX: Duration = Duration::from_millis(200);
/// The file that names the database that was followed last.
const STORE: &str = "store";

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkEnd {
    #[error("the link broke")]
    Broken(#[from] LinkError),
    #[error("the orchestrator ended the link")]
    Closed,
    #[error("the orchestrator did not answer in time")]
    Silent,
    #[error("{0}")]
    Rejected(String),
    #[error("the orchestrator is not to be understood: is it of this version?")]
    Nonsense(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Logs(#[from] LogError),
}

impl From<BadChunk> for LinkEnd {
    fn from(error: BadChunk) -> Self {
        Self::Nonsense(Box::new(error))
    }
}

impl LinkEnd {
    /// Whether somebody must do something about it.
    fn lasts(&self) -> bool {
        match self {
            Self::Broken(LinkError::Refused { status }) => *status < 500,
            Self::Broken(LinkError::Untrusted { .. } | LinkError::Tls(_) | LinkError::Handshake { .. }) => {
                true
            }
            Self::Broken(_) | Self::Closed | Self::Silent => false,
            Self::Rejected(_) | Self::Nonsense(_) | Self::Logs(_) => true,
        }
    }

    /// What happened and what to do, in words.
    fn words(&self) -> String {
        match self {
            Self::Broken(LinkError::Refused { status: 401 | 403 }) => {
                "the orchestrator refuses the token: `mayfly token add NAME` on its machine makes one"
                    .to_owned()
            }
            Self::Broken(LinkError::Refused { status: 404 }) => {
                "what answers there is no mayfly orchestrator of this version".to_owned()
            }
            Self::Broken(LinkError::Untrusted { presented, .. }) => format!(
                "the certificate is not trusted; if `mayfly serve` there printed {presented}, add it to the \
                 address, as in https://HOST:PORT#{presented}"
            ),
            other => causes(other),
        }
    }
}

/// One who follows.
#[derive(Debug)]
pub(crate) struct Follower {
    way: Arc<dyn Dial>,
    token: Option<Secret>,
    folder: PathBuf,
    back_off: BackOff,
    logs: Option<(String, Logs)>,
    appended: watch::Sender<u64>,
    status: watch::Sender<Status>,
}

impl Follower {
    pub(crate) fn new(
        way: Arc<dyn Dial>,
        token: Option<Secret>,
        folder: PathBuf,
        back_off: BackOff,
        (appended, status): (watch::Sender<u64>, watch::Sender<Status>),
    ) -> Self {
        Self { way, token, folder, back_off, logs: None, appended, status }
    }

    /// Follows until it is told to stop. What has come is on the disk then.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        while let Some(end) = stopping.run_until_cancelled(self.link()).await {
            tracing::info!(cause = %causes(&end), "the link to the orchestrator ended");
            self.note(&end);
            let wait = self.back_off.wait();
            if stopping.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
        }
        if let Err(error) = self.with_logs(Logs::sync).await {
            tracing::warn!(cause = %causes(&error), "the last lines may have to come again");
        }
    }

    fn note(&self, end: &LinkEnd) {
        self.status.send_modify(|status| {
            if status.connected {
                status.since = Timestamp::now();
            }
            status.connected = false;
            status.trouble = Some(end.words());
            status.lasting = end.lasts();
        });
    }

    /// One link, from dialling to its end.
    async fn link(&mut self) -> LinkEnd {
        match self.joined().await {
            Ok((sender, receiver)) => match self.talk(sender, receiver).await {
                Ok(never) => match never {},
                Err(end) => end,
            },
            Err(end) => end,
        }
    }

    async fn joined(&mut self) -> Result<(Sender, Receiver), LinkEnd> {
        let hello = self.hello().await?;
        let channel = dial(&*self.way, JOIN_PATH, self.token.as_ref()).await?;
        let (welcome, channel) = greet(channel, &hello).await?;
        let position = self.open(&welcome).await?;
        if welcome.after != position {
            return Err(LinkEnd::Nonsense("it goes on from another position than asked".into()));
        }
        self.appended.send_replace(position);
        self.back_off.reset();
        self.status.send_modify(|status| {
            status.connected = true;
            status.connections += 1;
            status.since = Timestamp::now();
            (status.trouble, status.lasting) = (None, false);
            (status.position, status.head) = (position, welcome.head);
            (status.store, status.version) = (Some(welcome.store), Some(welcome.version));
        });
        Ok(channel.split())
    }

    async fn hello(&mut self) -> Result<Hello, LinkEnd> {
        let named = match &self.logs {
            Some((store, _)) => Some(store.clone()),
            None => followed(&self.folder),
        };
        let Some(store) = named else { return Ok(Hello { protocol: PROTOCOL, store: None, after: 0 }) };
        let after = self.open_store(store.clone()).await?;
        Ok(Hello { protocol: PROTOCOL, store: Some(store), after })
    }

    /// Has the logs of the database that the orchestrator names at hand, and remembers which it is.
    async fn open(&mut self, welcome: &Welcome) -> Result<u64, LinkEnd> {
        let store = &welcome.store;
        if store.is_empty() || store.len() > 64 || !store.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(LinkEnd::Nonsense("its database has no name".into()));
        }
        let position = self.open_store(store.clone()).await?;
        if followed(&self.folder).as_ref() != Some(store) {
            let path = self.folder.join(STORE);
            replace(&path, &format!("{store}\n")).map_err(failed("write", &path))?;
        }
        Ok(position)
    }

    async fn open_store(&mut self, store: String) -> Result<u64, LogError> {
        if let Some((open, logs)) = &self.logs
            && *open == store
        {
            return Ok(logs.position());
        }
        let (folder, name) = (self.folder.clone(), store.clone());
        let opened = spawn_blocking(move || Logs::open(&folder, &name)).await;
        let logs = opened.expect("it does not panic")?;
        let position = logs.position();
        self.logs = Some((store, logs));
        Ok(position)
    }

    /// Takes what comes until the link is over.
    async fn talk(
        &mut self,
        sender: Sender,
        mut receiver: Receiver,
    ) -> Result<std::convert::Infallible, LinkEnd> {
        let mut alive = pin!(keep_alive(sender));
        let mut sync_at = None;
        loop {
            tokio::select! {
                frame = receiver.recv() => {
                    self.take(frame.ok_or(LinkEnd::Closed)??).await?;
                    sync_at = sync_at.or(Some(Instant::now() + SYNC_MAX));
                }
                () = until(sync_at) => {
                    self.with_logs(Logs::sync).await?;
                    sync_at = None;
                }
                error = &mut alive => return Err(error.into()),
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), LinkEnd> {
        let Frame::Binary(frame) = frame else {
            return Err(LinkEnd::Nonsense("a text where only chunks may come".into()));
        };
        let chunk = Chunk::decode(frame)?;
        let Chunk { position, head, skipped, .. } = chunk;
        self.with_logs(move |logs| logs.append(&chunk)).await?;
        failpoint("tunnel-appended");
        self.appended.send_replace(position);
        self.status.send_modify(|status| {
            (status.position, status.head) = (position, head);
            status.skipped += skipped;
        });
        Ok(())
    }

    /// The disk may be slow; nobody else waits for it.
    async fn with_logs(
        &mut self,
        work: impl FnOnce(&mut Logs) -> Result<(), LogError> + Send + 'static,
    ) -> Result<(), LogError> {
        let Some((store, mut logs)) = self.logs.take() else { return Ok(()) };
        let worked = spawn_blocking(move || (work(&mut logs), logs)).await;
        let (done, logs) = worked.expect("it does not panic");
        self.logs = Some((store, logs));
        done
    }
}

/// The database that was followed last.
pub(crate) fn followed(folder: &std::path::Path) -> Option<String> {
    let store = std::fs::read_to_string(folder.join(STORE)).ok()?;
    Some(store.trim().to_owned()).filter(|store| !store.is_empty())
}

async fn greet(mut channel: Channel, hello: &Hello) -> Result<(Welcome, Channel), LinkEnd> {
    let hello = serde_json::to_string(hello).expect("a hello is plain data");
    channel.send(Frame::Text(hello)).await?;
    let answer = timeout(WELCOME_MAX, channel.recv()).await.map_err(|_| LinkEnd::Silent)?;
    let Frame::Text(answer) = answer.ok_or(LinkEnd::Closed)?? else {
        return Err(LinkEnd::Nonsense("it answers a hello with bytes".into()));
    };
    match serde_json::from_str(&answer).map_err(|error| LinkEnd::Nonsense(Box::new(error)))? {
        Answer::Welcome(welcome) => Ok((welcome, channel)),
        Answer::Reject { reason } => Err(LinkEnd::Rejected(reason)),
    }
}

/// Shows the orchestrator that we live. Ends with the link.
async fn keep_alive(mut sender: Sender) -> LinkError {
    let mut alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    loop {
        alive.tick().await;
        if let Err(error) = sender.ping().await {
            return error;
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
