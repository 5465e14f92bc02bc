//! Follows an orchestrator elsewhere, and keeps what all its tasks say.
//!
//! ```text
//! dial ──► hello(store, position) ──► welcome ──► chunk ⇒ logs, chunk ⇒ logs …
//!   ▲                                                  │ every SYNC_MAX: on the disk, and then the position
//!   └──────── grow the wait ◄── the link broke, or its silence did
//! ```
//!
//! One task owns the logs and each link in turn. Whatever ends a link, or this process, costs nothing but time:
//! the position is the place to go on from. A log that cannot be gone on with is fetched beside the link, by a
//! request; what came meanwhile is fetched before the link is read on. Who reads a log here reports one that was damaged.
//!
//! Bounds: one chunk at a time; when the disk is slow nobody reads from the link, and the orchestrator waits.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::{TaskId, causes};
use mayfly_failpoint::failpoint;
use mayfly_link::{BackOff, Channel, Dial, Frame, KEEP_ALIVE, LinkError, Receiver, Sender, dial};
use mayfly_wire::Secret;
use mayfly_wire::tunnel::{Answer, BadChunk, Chunk, Hello, JOIN_PATH, PROTOCOL, Status, Welcome};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::fetch::{Fetch, FetchError};
use crate::forward::ForwardError;
use crate::logs::{LogError, Logs, failed, replace};

/// How long an orchestrator may take to answer a hello.
const WELCOME_MAX: Duration = Duration::from_secs(30);
/// How long what was appended may wait for the disk.
const SYNC_MAX: Duration = Duration::from_millis(200);
/// How long the end of a log that was fetched may take: nothing else is taken from the link meanwhile.
const REST_MAX: Duration = Duration::from_secs(10);
/// How long a log that could not be fetched waits until that is tried again.
const FETCH_AGAIN: Duration = Duration::from_secs(30);
/// How many reports of damaged logs wait to be looked into; whoever reads again reports again.
pub(crate) const REPORTS_MAX: usize = 16;
/// The type of the problem of an orchestrator that is not called what it was called.
const UNKNOWN_HOST: &str = "unknown-host";
/// The file that names the database that was followed last.
const STORE: &str = "store";

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkEnd {
    #[error(transparent)]
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
            Self::Broken(LinkError::Refused { status, .. }) => *status < 500,
            Self::Broken(
                LinkError::Untrusted { .. } | LinkError::NotHttp(_) | LinkError::Handshake { .. },
            ) => true,
            // Else it was cut in the middle.
            Self::Broken(LinkError::Tls(error)) => {
                matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Other)
            }
            Self::Broken(_) | Self::Closed | Self::Silent => false,
            Self::Rejected(_) | Self::Nonsense(_) | Self::Logs(_) => true,
        }
    }

    /// What happened and what to do, in words; `host` is what the orchestrator was called.
    fn words(&self, host: &str) -> String {
        match self {
            Self::Broken(LinkError::Refused { status: 401, .. }) => {
                "the orchestrator refuses the token: `mayfly token add NAME` on its machine makes another, and \
                 `mayfly tunnel --token-file FILE` here takes it"
                    .to_owned()
            }
            Self::Broken(LinkError::Refused { kind: Some(kind), .. }) if kind == UNKNOWN_HOST => {
                let name = name_of(host);
                format!(
                    "the orchestrator does not answer to the name `{name}`: start it with `mayfly serve --host-names \
                     {name}`, or give its IP address here"
                )
            }
            Self::Broken(LinkError::Refused { status: 404, .. }) => {
                "what answers there is no mayfly orchestrator of this version".to_owned()
            }
            Self::Broken(LinkError::Untrusted { presented, pinned: Some(pinned), .. }) => format!(
                "the certificate there is {}, and the address has {}: if the orchestrator has a new one, `mayfly serve` \
                 there prints the address to use; else somebody else answers",
                presented.short(),
                pinned.short()
            ),
            Self::Broken(LinkError::Untrusted { presented, .. }) => format!(
                "the certificate is not trusted; if this is the fingerprint that `mayfly serve` there printed, use it: \
                 https://{host}#{presented}"
            ),
            Self::Broken(LinkError::NotHttp(_)) => {
                format!("what answers there does not speak plain HTTP: with TLS the address is https://{host}")
            }
            Self::Broken(LinkError::Tls(_)) if self.lasts() => {
                format!("{}; without TLS the address would be http://{host}", causes(self))
            }
            other => causes(other),
        }
    }
}

/// Without the port, and without brackets.
fn name_of(host: &str) -> &str {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.trim_start_matches('[').trim_end_matches(']')
}

/// One who follows.
#[derive(Debug)]
pub(crate) struct Follower {
    way: Arc<dyn Dial>,
    fetch: Fetch,
    /// Logs that are being fetched, and how that ended.
    fetching: JoinSet<(TaskId, Result<u64, FetchError>)>,
    /// Logs that are still to be fetched: with the next link, or when `again` comes.
    unfetched: Vec<TaskId>,
    again: Option<Instant>,
    /// Tasks whose logs a reader found damaged.
    reports: mpsc::Receiver<TaskId>,
    token: Option<Secret>,
    folder: PathBuf,
    back_off: BackOff,
    /// Those of the database that is followed. Whoever works with them goes on though nobody waits for it any more.
    logs: Option<(String, Arc<Mutex<Logs>>)>,
    appended: watch::Sender<u64>,
    status: watch::Sender<Status>,
}

impl Follower {
    pub(crate) fn new(
        (way, fetch): (Arc<dyn Dial>, Fetch),
        token: Option<Secret>,
        folder: PathBuf,
        back_off: BackOff,
        (appended, status, reports): (watch::Sender<u64>, watch::Sender<Status>, mpsc::Receiver<TaskId>),
    ) -> Self {
        let (fetching, unfetched) = (JoinSet::new(), Vec::new());
        Self {
            way,
            fetch,
            fetching,
            unfetched,
            again: None,
            reports,
            token,
            folder,
            back_off,
            logs: None,
            appended,
            status,
        }
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
        if let Err(error) = self.sync().await {
            tracing::warn!(cause = %causes(&error), "the last lines may have to come again");
        }
    }

    fn note(&self, end: &LinkEnd) {
        self.status.send_modify(|status| {
            if status.connected {
                status.since = Timestamp::now();
            }
            status.connected = false;
            status.trouble = Some(end.words(&self.way.host()));
            status.lasting = end.lasts();
        });
    }

    /// One link, from dialling to its end.
    async fn link(&mut self) -> LinkEnd {
        match self.joined().await {
            Ok((sender, receiver)) => {
                let began = Instant::now();
                let Err(end) = self.talk(sender, receiver).await;
                // One that was good for a while, though there was nothing to say, is dialled again soon.
                if began.elapsed() >= KEEP_ALIVE {
                    self.back_off.reset();
                }
                end
            }
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
        self.fetch_again().await;
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
            return Ok(logs.lock().await.position());
        }
        let (folder, name) = (self.folder.clone(), store.clone());
        let opened = spawn_blocking(move || Logs::open(&folder, &name)).await;
        let mut logs = opened.expect("it does not panic")?;
        let position = logs.position();
        // Those that there were are of another database.
        (self.fetching, self.unfetched) = (JoinSet::new(), logs.damaged());
        self.status.send_modify(|status| status.damaged += self.unfetched.len() as u64);
        self.logs = Some((store, Arc::new(Mutex::new(logs))));
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
                    self.sync().await?;
                    sync_at = None;
                }
                Some(fetched) = self.fetching.join_next() => {
                    let (task, fetched) = fetched.expect("it does not panic, and nobody aborts it");
                    self.fetched(task, fetched).await;
                }
                () = until(self.again) => self.fetch_again().await,
                Some(task) = self.reports.recv() => self.look_at(task).await?,
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
        self.with_each(move |logs| logs.append(&chunk)).await?;
        failpoint("tunnel-appended");
        self.back_off.reset();
        self.appended.send_replace(position);
        self.status.send_modify(|status| {
            (status.position, status.head) = (position, head);
            status.skipped += skipped;
        });
        Ok(())
    }

    /// Looks into what a reader found.
    async fn look_at(&mut self, task: TaskId) -> Result<(), LinkEnd> {
        let look = move |logs: &mut Logs| {
            logs.look_at(task);
            Ok(())
        };
        Ok(self.with_each(look).await?)
    }

    /// Works with the logs, and begins to fetch each that was set aside for it.
    async fn with_each(
        &mut self,
        work: impl FnOnce(&mut Logs) -> Result<(), LogError> + Send + 'static,
    ) -> Result<(), LogError> {
        let done = self.with_logs(move |logs| (work(logs), logs.damaged())).await;
        let (worked, damaged) = done.expect("a link has its logs");
        for task in damaged {
            self.status.send_modify(|status| status.damaged += 1);
            self.fetch(task).await;
        }
        worked
    }

    /// Begins to fetch what was not fetched yet.
    async fn fetch_again(&mut self) {
        self.again = None;
        for task in std::mem::take(&mut self.unfetched) {
            self.fetch(task).await;
        }
    }

    /// Begins to fetch the log of a task.
    async fn fetch(&mut self, task: TaskId) {
        let Some((_, logs)) = &self.logs else { return };
        let (fetch, to) = (self.fetch.clone(), logs.lock().await.fetched_path(task));
        self.fetching.spawn(async move { (task, fetch.whole(task, to).await) });
    }

    /// Goes on with a log that was fetched; one that was not is fetched again in a while.
    async fn fetched(&mut self, task: TaskId, fetched: Result<u64, FetchError>) {
        let settled = match fetched {
            Ok(last) => self.take_back(task, last).await,
            Err(error) => Err(error),
        };
        let settled = match settled {
            Err(FetchError::Gone) => self.give_up(task).await,
            settled => settled,
        };
        if let Err(error) = settled {
            tracing::info!(%task, cause = %causes(&error), "its log was not fetched yet");
            self.unfetched.push(task);
            self.again = self.again.or(Some(Instant::now() + FETCH_AGAIN));
        }
    }

    /// Makes what was fetched the log, once what has come for it meanwhile is there too.
    async fn take_back(&mut self, task: TaskId, last: u64) -> Result<(), FetchError> {
        let Some((_, logs)) = &self.logs else { return Ok(()) };
        let path = logs.lock().await.fetched_path(task);
        let rest = self.fetch.rest(task, path, last);
        let last = timeout(REST_MAX, rest).await.unwrap_or(Err(ForwardError::Quiet.into()))?;
        self.with_logs(move |logs| logs.take_back(task, last)).await.unwrap_or(Ok(()))?;
        self.status.send_modify(|status| status.mended += 1);
        Ok(())
    }

    async fn give_up(&mut self, task: TaskId) -> Result<(), FetchError> {
        tracing::warn!(%task, "its log is not kept by the orchestrator any more: what was set aside is all there is");
        Ok(self.with_logs(move |logs| logs.give_up(task)).await.unwrap_or(Ok(()))?)
    }

    /// The disk may be slow; nobody else waits for it. Given up half-way, the work is done still, before any other.
    async fn with_logs<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Logs) -> T + Send + 'static,
    ) -> Option<T> {
        let (_, logs) = self.logs.as_ref()?;
        let mut logs = Arc::clone(logs).lock_owned().await;
        Some(spawn_blocking(move || work(&mut logs)).await.expect("it does not panic"))
    }

    async fn sync(&mut self) -> Result<(), LogError> {
        self.with_logs(Logs::sync).await.unwrap_or(Ok(()))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use http::{Request, Response, StatusCode};
    use http_body_util::{Empty, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use mayfly_link::Fingerprint;
    use mayfly_testkit::faulty::in_memory;
    use mayfly_wire::tunnel::Run;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;
    use uuid::Uuid;

    use super::*;
    use crate::api::Local;
    use crate::{Tunnel, TunnelConfig};

    /// Welcomes whoever says hello, and leaves at once.
    async fn welcome_and_leave(stream: DuplexStream, left: mpsc::Sender<Instant>) {
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            let (response, accepting) = mayfly_link::accept(&mut request).expect("a good handshake");
            let left = left.clone();
            tokio::spawn(async move {
                let mut channel = accepting.channel().await.expect("a channel");
                channel.recv().await.expect("a hello").expect("a hello");
                let welcome = Welcome { store: "ab".to_owned(), after: 0, head: 9, version: "0".to_owned() };
                let welcome = serde_json::to_string(&Answer::Welcome(welcome)).expect("plain");
                channel.send(Frame::Text(welcome)).await.expect("taken");
                drop(channel);
                let _ = left.send(Instant::now()).await;
            });
            async move { Ok::<_, std::convert::Infallible>(response.map(|()| Empty::<bytes::Bytes>::new())) }
        });
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }

    /// A welcome alone is nothing: what ends each link ends the next one too.
    #[tokio::test(start_paused = true)]
    async fn links_that_bring_nothing_are_dialled_ever_more_slowly() {
        let (way, mut connections) = in_memory();
        let (left, mut leaves) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(stream) = connections.recv().await {
                tokio::spawn(welcome_and_leave(stream, left.clone()));
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        let _tunnel = Tunnel::start(config(way, folder.path())).expect("started");
        let first = leaves.recv().await.expect("a link");
        for _ in 0..9 {
            leaves.recv().await.expect("a link");
        }
        assert!(first.elapsed() > Duration::from_secs(5), "{:?}", first.elapsed());
    }

    /// Welcomes whoever says hello and stays; gives `log` to whoever asks for one, but at first an error and then nonsense.
    async fn welcome_and_answer(stream: DuplexStream, log: &'static str, asked: Arc<AtomicUsize>) {
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            let mut response = Response::new(Full::<bytes::Bytes>::from(log));
            if request.uri().path() == JOIN_PATH {
                let (joined, accepting) = mayfly_link::accept(&mut request).expect("a good handshake");
                response = joined.map(|()| Full::default());
                tokio::spawn(async move {
                    let mut channel = accepting.channel().await.expect("a channel");
                    let Some(Ok(Frame::Text(hello))) = channel.recv().await else { panic!("a hello") };
                    let Hello { after, .. } = serde_json::from_str(&hello).expect("a hello");
                    let welcome =
                        Welcome { store: "ab".to_owned(), after, head: after, version: "0".to_owned() };
                    let welcome = serde_json::to_string(&Answer::Welcome(welcome)).expect("plain");
                    channel.send(Frame::Text(welcome)).await.expect("taken");
                    while channel.recv().await.is_some() {}
                });
            } else if !request.uri().query().expect("from where").contains("after=0&") {
                *response.body_mut() = Full::default();
            } else {
                match asked.fetch_add(1, Ordering::SeqCst) {
                    0 => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
                    1 => *response.body_mut() = Full::from("no event\n"),
                    _ => {}
                }
            }
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }

    fn chunk(position: u64, seq: u64) -> Chunk {
        let task = TaskId::new(Uuid::from_u128(1));
        let run = Run { task, first: seq, last: seq, lines: format!("{{\"seq\":{seq}}}\n").into() };
        Chunk { position, head: position, skipped: 0, runs: vec![run] }
    }

    fn config(way: impl Dial + 'static, folder: &std::path::Path) -> TunnelConfig {
        let (to, folder) = ("there".to_owned(), folder.to_owned());
        TunnelConfig { way: Arc::new(way), to, token: None, folder, back_off: BackOff::new(|| 0) }
    }

    /// The tunnel died before the log that it had set aside was fetched, and the task says nothing more.
    #[tokio::test(start_paused = true)]
    async fn a_log_that_was_left_aside_is_fetched_by_one_link_though_that_fails_at_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "ab").expect("opened");
        logs.append(&chunk(1, 2)).expect("set aside");
        logs.sync().expect("synced");
        let log = logs.path(TaskId::new(Uuid::from_u128(1)));
        drop(logs);
        std::fs::write(folder.path().join(STORE), "ab\n").expect("written");

        let (way, mut connections) = in_memory();
        tokio::spawn(async move {
            let asked = Arc::new(AtomicUsize::new(0));
            while let Some(stream) = connections.recv().await {
                tokio::spawn(welcome_and_answer(stream, "{\"seq\":1}\n{\"seq\":2}\n", Arc::clone(&asked)));
            }
        });
        let tunnel = Tunnel::start(config(way, folder.path())).expect("started");
        let mut status = tunnel.status();
        let mended = timeout(4 * FETCH_AGAIN, status.wait_for(|status| status.mended == 1)).await;
        let mended = mended.expect("fetched again").expect("running").clone();
        assert_eq!((mended.damaged, mended.connections), (1, 1));
        assert_eq!(std::fs::read_to_string(log).expect("there"), "{\"seq\":1}\n{\"seq\":2}\n");
    }

    /// It was told to stop while the disk was slow.
    #[tokio::test]
    async fn an_append_that_nobody_waits_for_any_more_is_on_the_disk_after_the_last_sync() {
        let folder = tempfile::tempdir().expect("a folder");
        let (way, _kept) = in_memory();
        let forward = crate::forward::Forward::new(Arc::new(way.clone()), None).expect("good");
        let Local { status, .. } = Tunnel::start(config(way.clone(), folder.path())).expect("started").local;
        let told = (watch::channel(0).0, watch::channel(status.borrow().clone()).0, mpsc::channel(1).1);
        let dialled: (Arc<dyn Dial>, Fetch) = (Arc::new(way), Fetch::new(forward));
        let mut follower = Follower::new(dialled, None, folder.path().to_owned(), BackOff::new(|| 0), told);
        follower.open_store("ab".to_owned()).await.expect("opened");
        let (go_on, slow) = std::sync::mpsc::channel();
        let append = follower.with_logs(move |logs| {
            slow.recv().expect("told");
            logs.append(&chunk(1, 1))
        });
        assert!(append.now_or_never().is_none(), "the disk is slow");
        go_on.send(()).expect("heard");
        follower.sync().await.expect("synced");
        assert_eq!(Logs::open(folder.path(), "ab").expect("opened").position(), 1);
    }

    /// What each way not to get in is told, and whether it lasts.
    #[test]
    fn who_is_not_let_in_is_told_what_to_do() {
        let refused = |status, kind: &str| LinkError::Refused { status, kind: Some(kind.to_owned()) };
        let print = |byte| Fingerprint([byte; 32]);
        let untrusted = |pinned| LinkError::Untrusted {
            presented: print(0xab),
            pinned,
            source: Box::new(rustls::Error::General("no".to_owned())),
        };
        let not_http = || LinkError::NotHttp("an alert".into());
        for (error, words) in [
            (refused(401, "denied"), "refuses the token: `mayfly token add NAME`"),
            (
                refused(403, UNKNOWN_HOST),
                "does not answer to the name `box.example`: start it with `mayfly serve --host-names box.example`",
            ),
            (refused(403, "page"), "answers 403"),
            (untrusted(Some(print(0xcd))), "is sha256:abababab…, and the address has sha256:cdcdcdcd…"),
            (untrusted(None), "https://box.example:6293#sha256:abab"),
            (not_http(), "https://box.example:6293"),
            (LinkError::Tls(std::io::Error::new(ErrorKind::InvalidData, "x")), "http://box.example:6293"),
        ] {
            let end = LinkEnd::Broken(error);
            let said = end.words("box.example:6293");
            assert!(said.contains(words) && end.lasts(), "{said}");
        }
        for passes in [
            LinkError::Refused { status: 502, kind: None },
            LinkError::Tls(ErrorKind::UnexpectedEof.into()),
            LinkError::Unreachable(ErrorKind::ConnectionRefused.into()),
        ] {
            assert!(!LinkEnd::Broken(passes).lasts());
        }
        let unreachable = LinkEnd::Broken(LinkError::Unreachable(ErrorKind::ConnectionRefused.into()));
        assert_eq!(unreachable.words("box:1"), "cannot reach the other side: connection refused");
        assert_eq!((name_of("[::1]:6293"), name_of("box")), ("::1", "box"));
    }
}
