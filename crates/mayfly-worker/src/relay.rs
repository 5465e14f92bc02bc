//! The way out of the machine, as `claude` sees it: a port on loopback.
//!
//! ```text
//! claude ─► 127.0.0.1:port ─► relay ─► a new connection to the orchestrator, for each
//!                               └ nobody there ─► hold, until there is
//! ```
//!
//! The orchestrator is dialled before a byte is read, and then bytes pass both ways unread: as long as it is there,
//! holding costs nothing. Only where nobody answers the request is read and [held](crate::hold). Who may go where is
//! decided outside the machine, where each connection ends with its first answer: so one that is open here is an
//! exchange that is under way, and [`Relay::busy`] counts them without knowing what they say.
//!
//! Bounds: [`CONNECTIONS_MAX`] at once, later ones wait; [`HELD_MAX`] of them held, others wait unread; each for
//! as long as the machine itself goes on without an orchestrator, then it is closed.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mayfly_link::{BackOff, ByteStream, Dial};
use tokio::io::{AsyncWriteExt as _, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::Random;
use crate::hold::hold;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 64;
/// The most held requests at once.
pub(crate) const HELD_MAX: usize = 16;

/// The way to the orchestrator.
#[derive(Debug, Clone)]
struct Way {
    /// What is dialled.
    dial: Arc<dyn Dial>,
    /// For jitter.
    random: Random,
    /// How long it is waited for.
    away_max: Duration,
}

/// A relay that listens.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Its port on loopback.
    pub(crate) port: u16,
    /// How many exchanges are under way.
    pub(crate) busy: watch::Receiver<usize>,
}

/// Begins to listen, on the current runtime and until it ends.
pub(crate) async fn start(dial: Arc<dyn Dial>, random: Random, away_max: Duration) -> io::Result<Relay> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let (count, busy) = watch::channel(0);
    tokio::spawn(serve(listener, Way { dial, random, away_max }, count));
    Ok(Relay { port, busy })
}

/// An exchange under way.
struct Exchange(watch::Sender<usize>);

impl Exchange {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn serve(listener: TcpListener, way: Way, count: watch::Sender<usize>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let held = Arc::new(Semaphore::new(HELD_MAX));
    loop {
        let (near, slot) = accept(&listener, &slots).await;
        let (way, held, exchange) = (way.clone(), Arc::clone(&held), Exchange::begin(&count));
        tokio::spawn(async move {
            // A broken connection is broken towards `claude` too; there is nobody else to tell.
            let _ = pass(near, &way, &held).await;
            drop((exchange, slot));
        });
    }
}

/// The next connection, and its place among those that may be at once.
pub(crate) async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let slot = Arc::clone(slots).acquire_owned().await.expect("it is never closed");
        if let Ok((near, _)) = listener.accept().await {
            return (near, slot);
        }
        // No file descriptor left, as a rule: one comes back when a connection ends.
        drop(slot);
        sleep(mayfly_link::BACK_OFF_MIN).await;
    }
}

async fn pass(mut near: TcpStream, way: &Way, held: &Semaphore) -> io::Result<()> {
    near.set_nodelay(true)?;
    let far = match way.dial.connect().await {
        Ok(far) => far,
        Err(_) => match held.try_acquire() {
            Ok(_place) => return hold(near, || way.clone().back()).await.map_err(io::Error::other),
            Err(_) => way.clone().back().await.ok_or(io::ErrorKind::TimedOut)?,
        },
    };
    carry(&mut near, far).await
}

/// Passes bytes both ways until the answer ends; the end of the question is passed on by itself.
async fn carry(near: &mut TcpStream, far: Box<dyn ByteStream>) -> io::Result<()> {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.split(), split(far));
    let question = async {
        copy(&mut near_in, &mut far_out).await?;
        far_out.shutdown().await?;
        std::future::pending().await
    };
    let answer = async {
        copy(&mut far_in, &mut near_out).await?;
        near_out.shutdown().await
    };
    tokio::select! {
        over = question => over,
        over = answer => over,
    }
}

impl Way {
    /// Connects to the orchestrator. `None`: it stayed away for too long.
    async fn back(self) -> Option<Box<dyn ByteStream>> {
        timeout(self.away_max, self.reach()).await.ok()
    }

    async fn reach(&self) -> Box<dyn ByteStream> {
        let mut back_off = BackOff::new(self.random);
        loop {
            match self.dial.connect().await {
                Ok(stream) => return stream,
                Err(_) => sleep(back_off.wait()).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mayfly_link::{Endpoint, Route};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = dir.path().join("s");
        let listener = UnixListener::bind(&endpoint).unwrap();
        let way = Arc::new(Route::from(Endpoint::Unix(endpoint)));
        let Relay { port, mut busy } = start(way, || 1, Duration::MAX).await.unwrap();
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let (mut question, mut answer) = (String::new(), String::new());
        assert_eq!(*busy.borrow_and_update(), 1);
        far.read_to_string(&mut question).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        drop(far);
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        busy.wait_for(|count| *count == 0).await.unwrap();
    }
}
