//! What a worker brings out of its machine. The token says whose it is; a later upload replaces an earlier.
//!
//! In a session file configured secrets are masked on their way to the disk. In work nothing can be masked, since commits
//! are named by their content: it is searched, and with a secret in it withheld ([`WITHHELD`]), never deleted; and so is
//! what cannot be searched. What was not searched in time, or for trouble of this host's own, is kept too ([`UNSEARCHED`]):
//! its machine goes when the time to bring work out is over, and would take it along. It is searched once more when that
//! is gone.
//!
//! Bounds: [`BUNDLE_BYTES_MAX`] and [`TRANSCRIPT_BYTES_MAX`] for a file, one file at a time of each machine, the last, and
//! [`SEARCHES_MAX`] at once of all, since git takes memory for each ([`mayfly_git::MEMORY_BYTES_MAX`]), each with its wait
//! for [`SEARCH_MAX`]. What is made of the checkpoints of machines that are gone has the time that it takes, and so a bound
//! of its own, [`RECOVERIES_MAX`]: it keeps no machine waiting that brings work out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http::{HeaderMap, StatusCode};
use mayfly_core::{AttemptId, Carry, Redactor, causes};
use mayfly_engine::{ARTIFACTS, BUNDLE, StoreError, TRANSCRIPT, WITHHELD, result_folder};
use mayfly_failpoint::failpoint;
use mayfly_gateway::Masked;
use mayfly_git::{Arriving, Base, CONTENTS_BYTES_MAX, Git, GitError, read_through};
use mayfly_library::artifacts::{ARCHIVE_BYTES_MAX, BadArtifacts};
use mayfly_wire::worker::{BUNDLE_BYTES_MAX, TRANSCRIPT_BYTES_MAX};
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Machine;
use super::extract::admit;
use super::problem::Problem;
use crate::began::Began;
use crate::checkpoints::{absent_is_fine, make_folder};
use crate::incoming::Incoming;

/// The most bundles that are searched at once.
const SEARCHES_MAX: usize = 4;
/// The most results that are made of checkpoints at once, and searched.
const RECOVERIES_MAX: usize = 2;
/// The longest that a bundle waits for its search and is searched: less than the time in which work is to be out.
const SEARCH_MAX: Duration = Duration::from_secs(45);

/// How many pieces of what arrives wait for their search.
const PIECES_MAX: usize = 8;

/// The name as a result of work that is to be searched once more.
pub(crate) const UNSEARCHED: &str = "bundle.unsearched";
/// The name as a result of artifacts that are withheld.
const ARTIFACTS_WITHHELD: &str = "artifacts.withheld";

/// How many folders of a result may be new: the task's, and the attempt's in it.
const RESULT_FOLDERS: usize = 2;

/// An upload that is under way, as long as somebody has the lock, and what ends it.
type Last = (Weak<tokio::sync::Mutex<()>>, CancellationToken);

/// Whose turn it is. Who waits has nothing on the disk yet.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    /// The last upload of each machine that has one under way.
    machines: Arc<Mutex<HashMap<AttemptId, Last>>>,
    searches: Arc<Semaphore>,
    recoveries: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let [searches, recoveries] =
            [SEARCHES_MAX, RECOVERIES_MAX].map(|most| Arc::new(Semaphore::new(most)));
        Self { machines: Arc::default(), searches, recoveries }
    }
}

/// A machine's turn to upload.
#[derive(Debug)]
pub(crate) struct Turn {
    _own: OwnedMutexGuard<()>,
    next: CancellationToken,
}

impl Turns {
    /// Ends the upload of this machine that is under way, if there is one: its worker dials again when a connection broke.
    pub(crate) async fn upload(&self, attempt: AttemptId) -> Turn {
        let next = CancellationToken::new();
        let own = {
            let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
            machines.retain(|_, (turn, _)| turn.strong_count() > 0);
            let before = machines.remove(&attempt);
            let own = before.as_ref().and_then(|(turn, _)| turn.upgrade()).unwrap_or_default();
            machines.insert(attempt, (Arc::downgrade(&own), next.clone()));
            if let Some((_, before)) = before {
                before.cancel();
            }
            own
        };
        Turn { _own: own.lock_owned().await, next }
    }

    /// Searches as soon as there is room for one more search, or gives up in time.
    pub(super) async fn search<T>(
        &self,
        search: impl Future<Output = Result<T, SearchError>>,
    ) -> Result<T, SearchError> {
        let searching = async {
            let _room = room(&self.searches).await;
            search.await
        };
        timeout(SEARCH_MAX, searching).await.unwrap_or(Err(SearchError::TooLate))
    }

    /// Waits until there is room for one more result that is made of checkpoints, however long.
    pub(crate) async fn recovery(&self) -> SemaphorePermit<'_> {
        room(&self.recoveries).await
    }
}

async fn room(of: &Semaphore) -> SemaphorePermit<'_> {
    of.acquire().await.expect("it is never closed")
}

impl Turn {
    /// Does a part of the upload, unless the next one is there.
    pub(crate) async fn take<T>(&self, part: impl Future<Output = T>) -> Result<T, Problem> {
        self.next.run_until_cancelled(part).await.ok_or_else(Problem::overtaken)
    }
}

/// `PUT /v1/worker/result/bundle`
pub(super) async fn bundle(
    State(app): State<Machine>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let turn = app.turns.upload(attempt).await;
    let redactor = app.entry.redactor();
    let (body, reading) = read_beside(body.into_data_stream(), redactor.clone());
    let receiving = Incoming::receive(body, &app.incoming, BUNDLE_BYTES_MAX);
    let incoming = turn.take(receiving).await??;
    let read = turn.take(reading).await?;
    // A secret may have been added since.
    let (before, redactor) = (redactor, app.entry.redactor());
    let found = match read.filter(|_| redactor.is(&before)) {
        _ if redactor.is_empty() => Ok(false),
        Some(found) => found,
        None => {
            let search = Box::pin(has_secret(&app, attempt, incoming.path(), &redactor));
            turn.take(app.turns.search(search)).await?
        }
    };
    admit(&app, &headers).await?;
    settle(&app.results, attempt, incoming, found).await
}

/// Has what arrives searched on its way to the disk: the same, and what is found. `None`: that needs git.
fn read_beside<E>(
    body: impl Stream<Item = Result<Bytes, E>>,
    redactor: Redactor,
) -> (impl Stream<Item = Result<Bytes, E>>, impl Future<Output = Option<Result<bool, SearchError>>>) {
    let (pieces, mut arrived) = mpsc::channel::<Bytes>(PIECES_MAX);
    // Whoever waits for it no more ends it, also in the middle of a piece that unfolds to much.
    let given_up = CancellationToken::new();
    let waiting = given_up.clone().drop_guard();
    let reading = spawn_blocking(move || {
        if redactor.is_empty() {
            return None;
        }
        let mut scan = Scan::new(&redactor);
        let mut bundle = Arriving::new(|piece| match given_up.is_cancelled() {
            true => ControlFlow::Break(()),
            false => scan.piece(piece),
        });
        while let Some(piece) = arrived.blocking_recv().filter(|_| !given_up.is_cancelled()) {
            bundle.read(&piece);
        }
        let whole = bundle.over()?;
        Some(scan.over(whole))
    });
    let body = body.then(move |piece| {
        let pieces = pieces.clone();
        async move {
            if let Ok(piece) = &piece {
                // Who reads does so to the end.
                let _ = pieces.send(piece.clone()).await;
            }
            piece
        }
    });
    let reading = reading.map(move |found| {
        drop(waiting);
        found.expect("reading does not panic")
    });
    (body, reading)
}

/// Keeps work as what a search found it to be.
async fn settle(
    results: &Path,
    attempt: AttemptId,
    incoming: Incoming,
    found: Result<bool, SearchError>,
) -> Result<StatusCode, Problem> {
    let (name, problem) = match found {
        Ok(false) => (BUNDLE, None),
        Ok(true) => (WITHHELD, Some(Problem::secret_in_work(attempt))),
        Err(error) if error.may_pass() => {
            (UNSEARCHED, Some(Problem::work_not_searched_yet(attempt, &causes(&error))))
        }
        Err(error) => (WITHHELD, Some(Problem::unsearched_work(attempt, &causes(&error)))),
    };
    let kept = keep(results, attempt, incoming, name).await?;
    if name != UNSEARCHED {
        // This takes the place of any that came before it.
        let earlier = std::fs::remove_file(result_folder(results, attempt).join(UNSEARCHED));
        absent_is_fine(earlier).map_err(|error| Problem::disk(&error))?;
    }
    problem.map_or(Ok(kept), Err)
}

/// Whether work has a configured secret in its files, its names or its messages.
async fn has_secret(
    app: &Machine,
    attempt: AttemptId,
    bundle: &Path,
    redactor: &Redactor,
) -> Result<bool, SearchError> {
    let scratch = tempfile::tempdir_in(&app.incoming)?;
    let from = app.entry.workspace(attempt).await?;
    let began = from.as_ref().map(|from| Began::of(&app.workspaces, from));
    let base = began.as_ref().map(Began::base);
    scan_bundle(&app.git, scratch.path(), base, bundle, redactor).await
}

async fn scan_bundle(
    git: &Git,
    scratch: &Path,
    base: Option<Base<'_>>,
    bundle: &Path,
    redactor: &Redactor,
) -> Result<bool, SearchError> {
    let mut scan = Scan::new(redactor);
    let whole = read_through(git, scratch, base, bundle, |piece| scan.piece(piece)).await?;
    scan.over(whole)
}

/// The same of a bundle that we made, once there is room for it. No machine waits, so it has the time that it takes.
pub(crate) async fn search_bundle(
    git: &Git,
    scratch: &Path,
    base: Option<Base<'_>>,
    bundle: &Path,
    redactor: &Redactor,
) -> Result<bool, SearchError> {
    if redactor.is_empty() {
        return Ok(false);
    }
    Box::pin(scan_bundle(git, scratch, base, bundle, redactor)).await
}

/// Looks for secrets in what comes in pieces.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    redactor: &'a Redactor,
    carry: Carry,
    found: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(redactor: &'a Redactor) -> Self {
        Self { redactor, carry: Carry::default(), found: false }
    }

    /// Breaks once there is one.
    pub(super) fn piece(&mut self, piece: &[u8]) -> ControlFlow<()> {
        let clean = self.carry.is_empty() && self.redactor.is_clean(piece, true);
        self.found |= !clean && self.redactor.piece(&mut self.carry, piece, true).places > 0;
        if self.found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether there was one, if `whole` of it was looked at or as much as has one.
    pub(super) fn over(self, whole: bool) -> Result<bool, SearchError> {
        let found = self.end();
        if whole || found { Ok(found) } else { Err(SearchError::TooMuch) }
    }

    /// Whether there was one in what there was.
    fn end(mut self) -> bool {
        self.found || self.redactor.piece(&mut self.carry, b"", false).places > 0
    }
}

/// Why work was not searched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error("it holds more than {CONTENTS_BYTES_MAX} bytes")]
    TooMuch,
    #[error("in {} seconds its search, which waits for that of others, did not come to its end", SEARCH_MAX.as_secs())]
    TooLate,
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no room for it")]
    Disk(#[from] io::Error),
}

impl SearchError {
    /// Whether it says nothing of what was to be searched: later the same may be.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::TooMuch => false,
            Self::Git(error) => error.may_pass(),
            Self::TooLate | Self::Store(_) | Self::Disk(_) => true,
        }
    }
}

/// `PUT /v1/worker/result/artifacts`
pub(super) async fn artifacts(
    State(app): State<Machine>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let turn = app.turns.upload(attempt).await;
    let receiving = Incoming::receive(body.into_data_stream(), &app.incoming, ARCHIVE_BYTES_MAX);
    let incoming = turn.take(receiving).await??;
    let (path, redactor) = (incoming.path().to_owned(), app.entry.redactor());
    let looking = async {
        let look = spawn_blocking(move || Ok(check(BufReader::new(File::open(path)?), &redactor)));
        look.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    };
    let looked = turn.take(app.turns.search(looking)).await?;
    admit(&app, &headers).await?;
    match looked {
        Ok(Ok(false)) => keep(&app.results, attempt, incoming, ARTIFACTS).await,
        Ok(Ok(true)) => {
            keep(&app.results, attempt, incoming, ARTIFACTS_WITHHELD).await?;
            Err(Problem::secret_in_artifacts(attempt))
        }
        Ok(Err(bad)) => Err(Problem::bad_artifacts(&bad)),
        Err(error) => {
            keep(&app.results, attempt, incoming, ARTIFACTS_WITHHELD).await?;
            Err(Problem::unsearched_artifacts(attempt, &causes(&error)))
        }
    }
}

/// Whether artifacts, which are to be such, have a configured secret in their content or their names.
fn check(archive: impl Read, redactor: &Redactor) -> Result<bool, BadArtifacts> {
    let mut searched = Searched { inner: archive, scan: Scan::new(redactor) };
    mayfly_library::artifacts::check(&mut searched)?;
    Ok(searched.scan.end())
}

/// What is read is searched on its way.
struct Searched<'a, R> {
    inner: R,
    scan: Scan<'a>,
}

impl<R: Read> Read for Searched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        // Whether it is such an archive at all is to be known too, so it is read to its end.
        let _ = self.scan.piece(&buffer[..read]);
        Ok(read)
    }
}

/// `PUT /v1/worker/result/transcript`
pub(super) async fn transcript(
    State(app): State<Machine>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let attempt = admit(&app, &headers).await?;
    let turn = app.turns.upload(attempt).await;
    let mut body = Masked::new(body.into_data_stream(), app.entry.redactor());
    let receiving = Incoming::receive(&mut body, &app.incoming, TRANSCRIPT_BYTES_MAX);
    let incoming = turn.take(receiving).await??;
    if body.places() > 0 {
        let text =
            format!("the session file had a configured secret in {} places, which are masked", body.places());
        app.entry.warn(attempt, text).await?;
    }
    admit(&app, &headers).await?;
    keep(&app.results, attempt, incoming, TRANSCRIPT).await
}

async fn keep(
    results: &Path,
    attempt: AttemptId,
    incoming: Incoming,
    name: &str,
) -> Result<StatusCode, Problem> {
    let folder = result_folder(results, attempt);
    let disk = |error| Problem::disk(&error);
    make_folder(&folder, RESULT_FOLDERS).await.map_err(disk)?;
    failpoint("result-searched");
    incoming.keep(&folder.join(name)).await.map_err(disk)?;
    failpoint("result-kept");
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use mayfly_core::{Attempt, TaskId};

    use super::*;

    /// S51: a machine has one file under way, the last that it sends, and keeps no other machine waiting.
    #[tokio::test]
    async fn of_one_machine_one_file_at_a_time_is_taken() {
        let attempt = |n| TaskId::new(uuid::Uuid::from_u128(n)).attempt(Attempt(1));
        let turns = Turns::default();
        let first = turns.upload(attempt(1)).await;
        assert!(first.take(async {}).await.is_ok());
        let mut second = Box::pin(turns.upload(attempt(1)));
        assert!(second.as_mut().now_or_never().is_none(), "the first is still there");
        assert!(first.take(std::future::pending::<()>()).await.is_err(), "and has to go");
        assert!(turns.upload(attempt(2)).now_or_never().is_some());
        drop(first);
        let second = second.now_or_never().expect("its turn");
        assert!(second.take(async {}).await.is_ok());
        drop(second);
        assert!(turns.upload(attempt(3)).now_or_never().is_some());
        assert_eq!(turns.machines.lock().expect("nobody panics").len(), 1, "who is done is forgotten");
    }

    /// Results that are made of what lost machines left take long, and keep nobody waiting who brings work out now.
    #[tokio::test]
    async fn what_is_made_of_checkpoints_has_room_of_its_own() {
        let turns = Turns::default();
        let long = [turns.recovery().await, turns.recovery().await];
        assert!(turns.recovery().now_or_never().is_none(), "these are bounded too");
        let searched = turns.search(async { Ok(false) }).now_or_never();
        assert!(matches!(searched, Some(Ok(false))), "{searched:?}");
        drop(long);
        assert!(turns.recovery().now_or_never().is_some());
    }

    /// Honest work that others' searches keep waiting is there to be searched once more, unless other work takes its place.
    #[tokio::test(start_paused = true)]
    async fn work_that_is_not_searched_in_time_is_kept_to_be_searched_again() {
        let attempt = TaskId::new(uuid::Uuid::from_u128(1)).attempt(Attempt(1));
        let (data, turns) = (tempfile::tempdir().expect("a folder"), Turns::default());
        let others: Vec<_> = (0..SEARCHES_MAX).map(|_| turns.searches.try_acquire().expect("room")).collect();
        let begun = tokio::time::Instant::now();
        let found = turns.search(async { Ok(false) }).await;
        assert!(matches!(found, Err(SearchError::TooLate)) && begun.elapsed() == SEARCH_MAX, "{found:?}");
        let receive = async || {
            let body = futures_util::stream::iter([Ok::<_, io::Error>(bytes::Bytes::from_static(b"work"))]);
            Incoming::receive(body, data.path(), BUNDLE_BYTES_MAX).await.expect("received")
        };
        let problem = settle(data.path(), attempt, receive().await, found).await;
        let problem = problem.expect_err("nobody searched it");
        assert!(format!("{problem:?}").contains("45 seconds"), "{problem:?}");
        let folder = result_folder(data.path(), attempt);
        assert_eq!(std::fs::read(folder.join(UNSEARCHED)).expect("kept"), b"work");
        assert!(!folder.join(WITHHELD).exists() && !folder.join("bundle").exists());
        settle(data.path(), attempt, receive().await, Ok(false)).await.expect("it is clean");
        assert!(folder.join("bundle").exists() && !folder.join(UNSEARCHED).exists());
        drop(others);
        assert!(matches!(turns.search(async { Ok(false) }).await, Ok(false)));
        assert!(matches!(turns.search::<bool>(std::future::pending()).await, Err(SearchError::TooLate)));
    }
}
