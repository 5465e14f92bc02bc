//! The one who writes, with group commit: a thread, or in a simulation whoever is driven by the caller's runtime.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{oneshot, watch};

use crate::checkpoints::Checkpoints;
use crate::desk::Desk;
use crate::error::StoreError;
use crate::read::{self, Run};
use crate::tail::Tail;

/// The exit code of a process whose disk failed: trouble of the orchestrator's own.
const DISK_FAILED: i32 = 3;
/// The most commands of one transaction.
const BATCH_MAX: usize = 512;

/// Carries a command out, if there is a transaction for it, and leaves what is to be answered after the commit.
type Job = Box<dyn FnOnce(Result<&Desk<'_>, StoreError>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Hands commands to the one who writes, and who ends when all of these are gone.
#[derive(Debug, Clone)]
pub(crate) enum Writer {
    Thread(Sender<Job>),
    InPlace(Arc<InPlace>),
}

/// What a thread would have, where there shall be none.
pub(crate) struct InPlace {
    jobs: Mutex<VecDeque<Job>>,
    connection: Mutex<Connection>,
    news: News,
}

impl Writer {
    /// `head` is told of the newest position after each commit, and `tail` of what was written.
    pub(crate) fn start(
        connection: Connection,
        head: watch::Sender<u64>,
        tail: Tail,
        checkpoints: Checkpoints,
    ) -> Self {
        let news = News { head, tail };
        let (jobs, queue) = channel();
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write(connection, &queue, &news, checkpoints))
            .expect("a thread can be started at start-up");
        Self::Thread(jobs)
    }

    /// Writes on the caller's runtime instead, and with it stops.
    pub(crate) fn in_place(connection: Connection, head: watch::Sender<u64>, tail: Tail) -> Self {
        let (jobs, connection) = (Mutex::default(), Mutex::new(connection));
        Self::InPlace(Arc::new(InPlace { jobs, connection, news: News { head, tail } }))
    }

    /// Carries out `command` in the next transaction; its answer comes after the commit. An error of its own
    /// undoes it alone.
    pub(crate) async fn run<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        command: impl FnOnce(&Desk<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.begin(command, |_| ()).await
    }

    /// The same; the command has its place among the others once this returns, and `done` is called after its commit,
    /// before the answer.
    pub(crate) fn begin<T: Send + 'static, E: From<StoreError> + Send + 'static, C, D>(
        &self,
        command: C,
        done: D,
    ) -> impl Future<Output = Result<T, E>> + Send + use<T, E, C, D>
    where
        C: FnOnce(&Desk<'_>) -> Result<T, E> + Send + 'static,
        D: FnOnce(&T) + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |desk: Result<&Desk<'_>, StoreError>| {
            let result = desk.map_err(E::from).and_then(|open| in_savepoint(open, command));
            Box::new(move |committed: Result<(), StoreError>| {
                let result = result.and_then(|value| committed.map_err(E::from).map(|()| value));
                let result = result.inspect(done);
                // Nobody waits any more: the command stands all the same.
                let _ = answer.send(result);
            }) as Answer
        });
        match self {
            // A job that cannot be sent is dropped, and its answer with it.
            Self::Thread(jobs) => drop(jobs.send(job)),
            Self::InPlace(place) => InPlace::put(place, job),
        }
        async move { answered.await.map_err(|_| StoreError::Closed)? }
    }
}

/// Where what was committed is told.
#[derive(Debug)]
struct News {
    head: watch::Sender<u64>,
    tail: Tail,
}

impl News {
    fn tell(&self, newest: Option<u64>, written: Vec<(u64, Run)>) {
        self.tail.put(written);
        self.head
            .send_if_modified(|head| newest.is_some_and(|newest| std::mem::replace(head, newest) != newest));
    }
}

impl InPlace {
    /// As with a thread, what comes meanwhile is of the same transaction, and whoever gives up waiting changes nothing.
    fn put(place: &Arc<Self>, job: Job) {
        place.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        let place = Arc::clone(place);
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            let mut jobs = place.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let batch: Vec<Job> = jobs.drain(..).collect();
            drop(jobs);
            if !batch.is_empty() {
                commit(
                    &mut place.connection.lock().unwrap_or_else(PoisonError::into_inner),
                    batch,
                    &place.news,
                );
            }
        });
    }
}

impl fmt::Debug for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InPlace").finish_non_exhaustive()
    }
}

fn in_savepoint<T, E: From<StoreError>>(
    desk: &Desk<'_>,
    command: impl FnOnce(&Desk<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let batch = |sql| desk.execute_batch(sql).map_err(StoreError::from);
    batch("SAVEPOINT command")?;
    let mark = desk.mark();
    let result = command(desk);
    // A full or failing disk can undo the whole transaction, and the savepoint with it.
    if !desk.is_autocommit() {
        if result.is_err() {
            desk.undo(mark);
            batch("ROLLBACK TO command")?;
        }
        batch("RELEASE command")?;
    }
    result
}

/// Ends the process if the thread panics: an orchestrator that cannot write can do nothing, and holds its folder
/// against the next one.
struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

fn write(mut connection: Connection, queue: &Receiver<Job>, news: &News, mut checkpoints: Checkpoints) {
    let _last = Last;
    while let Ok(first) = queue.recv() {
        let rest = std::iter::from_fn(|| queue.try_recv().ok());
        let batch: Vec<Job> = std::iter::once(first).chain(rest.take(BATCH_MAX - 1)).collect();
        checkpoints.note(commit(&mut connection, batch, news));
    }
}

/// Gives the bytes of events that were committed.
fn commit(connection: &mut Connection, batch: Vec<Job>, news: &News) -> usize {
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            tracing::error!(%error, "no transaction");
            for job in batch {
                job(Err(copy(&error)))(Ok(()));
            }
            return 0;
        }
    };
    let desk = Desk::new(&transaction);
    let open = || match transaction.is_autocommit() {
        // Outside a transaction each statement would be committed by itself, and its caller told otherwise.
        true => Err(undone()),
        false => Ok(&desk),
    };
    let answers: Vec<Answer> = batch.into_iter().map(|job| job(open())).collect();
    let (newest, written) = (read::head(&transaction).ok(), desk.into_written());
    match transaction.commit() {
        Ok(()) => {
            let bytes = written.iter().map(|(_, run)| run.lines.len()).sum();
            // Before the answers: who was answered finds it.
            news.tell(newest, written);
            for answer in answers {
                answer(Ok(()));
            }
            bytes
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => end_of_disk(&error),
        Err(error) => {
            tracing::error!(%error, "commit failed");
            for answer in answers {
                answer(Err(copy(&error)));
            }
            0
        }
    }
}

/// Ends the process: what the system could not make durable it may forget, and call durable the next time. Nobody is
/// answered any more. The next start has all that was answered, whatever else it has.
pub(crate) fn end_of_disk(error: &rusqlite::Error) -> ! {
    tracing::error!(%error, "the disk of the database fails: ending here, since nothing more can be kept; start again once it works");
    std::process::exit(DISK_FAILED);
}

/// The transaction was undone by another command's failure.
fn undone() -> StoreError {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT), None).into()
}

/// The same failure, for one more caller.
fn copy(error: &rusqlite::Error) -> StoreError {
    let code = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => rusqlite::ffi::SQLITE_FULL,
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => rusqlite::ffi::SQLITE_CORRUPT,
        _ => rusqlite::ffi::SQLITE_IOERR,
    };
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn note(writer: &Writer, number: u32, bytes: u32) -> Result<(), StoreError> {
        let insert = move |connection: &Desk<'_>| {
            let sql = "INSERT INTO notes VALUES (?1, zeroblob(?2))";
            connection.execute(sql, (number, bytes)).map(drop).map_err(StoreError::from)
        };
        writer.run(insert).await
    }

    /// S11, R17: each is told what became of its command, whatever a full disk undid with it.
    #[tokio::test]
    async fn on_a_full_disk_each_answer_is_true() {
        let dir = tempfile::tempdir().expect("a folder");
        let connection = Connection::open(dir.path().join("db")).expect("a database");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE notes (number, bytes); PRAGMA max_page_count = 9",
            )
            .expect("a table");
        let beside = Connection::open(dir.path().join("db")).expect("one more connection");
        let writer =
            Writer::start(connection, watch::Sender::new(0), Tail::default(), Checkpoints::start(beside));
        // Holds the thread, so that all that follow are one transaction.
        let (release, held) = channel::<()>();
        let holding = writer.run(move |_| {
            let _ = held.recv();
            Ok::<_, StoreError>(())
        });
        let queued = async {
            let notes =
                async { tokio::join!(note(&writer, 1, 1), note(&writer, 2, 1 << 20), note(&writer, 3, 1)) };
            let release = async { drop(release) };
            tokio::join!(biased; notes, release).0
        };
        let (_, (first, huge, last)) = tokio::join!(biased; holding, queued);
        assert!(matches!(huge, Err(StoreError::Full(_))), "{huge:?}");
        let count = |connection: &Desk<'_>| {
            let sql = "SELECT group_concat(number) FROM notes";
            connection.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).map_err(StoreError::from)
        };
        let kept = writer.run(count).await.expect("the store still answers").unwrap_or_default();
        assert_eq!((kept.contains('1'), kept.contains('3')), (first.is_ok(), last.is_ok()), "{kept}");
        note(&writer, 4, 1).await.expect("there is room for a small one");
    }
}
