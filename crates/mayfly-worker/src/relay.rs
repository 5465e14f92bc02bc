//! The way out of the machine, as `claude` sees it: a port on loopback.
//!
//! ```text
//! claude ─► 127.0.0.1:port ─► relay ─► a new connection to the orchestrator's socket, for each
//! ```
//!
//! Bytes pass both ways unread, and the end of one direction is passed on by itself. While the orchestrator
//! is away, a connection waits. Who may go where is decided outside the machine.
//!
//! Bounds: [`CONNECTIONS_MAX`] at once, later ones wait; [`WAIT_MAX`] for the orchestrator, then the
//! connection is closed and `claude` tries again by its own rules.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_link::BackOff;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::Random;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection waits for an orchestrator that is away.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// Begins to listen, on the current runtime and until it ends, and gives the port.
pub(crate) async fn start(endpoint: PathBuf, random: Random) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener, endpoint, random));
    Ok(port)
}

async fn serve(listener: TcpListener, endpoint: PathBuf, random: Random) {
    let (slots, endpoint) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Arc::from(endpoint));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        let Ok((near, _)) = listener.accept().await else {
            // No file descriptor left, as a rule: one comes back when a connection ends.
            drop(slot);
            sleep(mayfly_link::BACK_OFF_MIN).await;
            continue;
        };
        let endpoint: Arc<Path> = Arc::clone(&endpoint);
        tokio::spawn(async move {
            // A broken connection is broken towards `claude` too; there is nobody else to tell.
            let _ = pass(near, &endpoint, random).await;
            drop(slot);
        });
    }
}

async fn pass(mut near: TcpStream, endpoint: &Path, random: Random) -> io::Result<()> {
    near.set_nodelay(true)?;
    let mut far = timeout(WAIT_MAX, reach(endpoint, random)).await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// Connects to the orchestrator, however long it takes.
async fn reach(endpoint: &Path, random: Random) -> UnixStream {
    let mut back_off = BackOff::new(random);
    loop {
        match UnixStream::connect(endpoint).await {
            Ok(stream) => return stream,
            Err(_) => sleep(back_off.wait()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    async fn relay(endpoint: &Path) -> TcpStream {
        let port = start(endpoint.to_owned(), || 1).await.unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = dir.path().join("s");
        let listener = UnixListener::bind(&endpoint).unwrap();
        let mut near = relay(&endpoint).await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let (mut question, mut answer) = (String::new(), String::new());
        far.read_to_string(&mut question).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        drop(far);
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_for_an_orchestrator_that_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = dir.path().join("s");
        let mut near = relay(&endpoint).await;
        near.write_all(b"x").await.unwrap();
        sleep(WAIT_MAX / 2).await;
        let listener = UnixListener::bind(&endpoint).unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_does_not_wait_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut near = relay(&dir.path().join("none")).await;
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    }
}
