//! A TCP proxy whose connections fail as real ones do.
//!
//! What becomes of a connection is decided by the seed and by its number; when all are cut is the caller's business.
//! Bound: [`CHUNK_BYTES`] under way in each direction of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What is read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// After how many bytes a connection fails.
const FAILS_AFTER: std::ops::Range<usize> = 0..16 * 1024;
/// How long a chunk of a slow connection takes, in milliseconds.
const DELAY_MS: std::ops::Range<u64> = 1..80;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing bad.
    Fine,
    /// Each chunk takes this long.
    Slow(Duration),
    /// Bytes pass one at a time.
    OneByte,
    /// Both ends are reset once this many bytes came from one of them: those pass, and no more.
    ResetAfter(Way, usize),
    /// Nothing more passes once this many bytes came from one of them, and nobody is told.
    DeafAfter(Way, usize),
}

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    There,
    Back,
}

impl Fate {
    /// The same for the same seed and number.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let way = if random.bool() { Way::There } else { Way::Back };
        let bytes = random.usize(FAILS_AFTER);
        match random.u8(0..10) {
            0..4 => Self::Fine,
            4 => Self::Slow(Duration::from_millis(random.u64(DELAY_MS))),
            5 => Self::OneByte,
            6..9 => Self::ResetAfter(way, bytes),
            _ => Self::DeafAfter(way, bytes),
        }
    }

    /// How many of the next bytes may be read, of one that has passed so many in this direction.
    fn chunk(self, way: Way, passed: usize) -> usize {
        match self {
            Self::OneByte => 1,
            Self::ResetAfter(which, bytes) | Self::DeafAfter(which, bytes) if which == way => {
                CHUNK_BYTES.min(bytes - passed)
            }
            _ => CHUNK_BYTES,
        }
    }
}

/// The proxy. Dropped, it takes no more connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listening: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    seed: u64,
    healed: AtomicBool,
    connections: AtomicU64,
    /// Raised to cut all.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Listens on the loopback, for what is at `to`.
    pub(crate) async fn start(to: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            to,
            seed,
            healed: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, listening })
    }

    /// Resets every connection.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From here on nothing bad happens: those that were going to fail are reset now.
    pub(crate) fn heal(&self) {
        self.shared.healed.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // One that went away before it was taken is none.
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let mut cuts = shared.cuts.subscribe();
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        let fate = match shared.healed.load(Ordering::SeqCst) {
            true => Fate::Fine,
            false => Fate::of(shared.seed, number),
        };
        let to = shared.to;
        tokio::spawn(async move {
            // Nobody there, or one end broke it: the other is told by the end of its own connection.
            let _ = carry(near, to, fate, &mut cuts).await;
        });
    }
}

/// How one direction ended.
enum End {
    /// As its sender wished.
    Closed,
    Reset,
}

async fn carry(
    mut near: TcpStream,
    to: SocketAddr,
    fate: Fate,
    cuts: &mut watch::Receiver<u64>,
) -> io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let was_reset = {
        let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
        let there = pump(near_read, far_write, Way::There, fate);
        let back = pump(far_read, near_write, Way::Back, fate);
        let both = async { tokio::try_join!(reset(there), reset(back)).is_err() };
        tokio::select! {
            was_reset = both => was_reset,
            _ = cuts.changed() => true,
        }
    };
    if was_reset {
        near.set_zero_linger()?;
        far.set_zero_linger()?;
    }
    Ok(())
}

/// A reset of one direction is one of both.
async fn reset(pump: impl Future<Output = io::Result<End>>) -> io::Result<()> {
    match pump.await? {
        End::Closed => Ok(()),
        End::Reset => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way, fate: Fate) -> io::Result<End> {
    let (mut chunk, mut passed) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let most = fate.chunk(way, passed);
        if most == 0 {
            match fate {
                Fate::ResetAfter(..) => return Ok(End::Reset),
                _ => std::future::pending::<()>().await,
            }
        }
        let bytes = from.read(&mut chunk[..most]).await?;
        if bytes == 0 {
            to.shutdown().await?;
            return Ok(End::Closed);
        }
        if let Fate::Slow(delay) = fate {
            sleep(delay).await;
        }
        to.write_all(&chunk[..bytes]).await?;
        passed += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through(fate: impl Fn(u64) -> bool, sent: &[u8]) -> io::Result<Vec<u8>> {
        let echo = TcpListener::bind("127.0.0.1:0").await?;
        let to = echo.local_addr()?;
        tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        });
        let seed = (0..1_000_000).find(|seed| fate(*seed)).expect("each fate has a seed");
        let proxy = Proxy::start(to, seed).await?;
        let mut stream = TcpStream::connect(proxy.address).await?;
        let (mut read, mut write) = stream.split();
        let mut heard = Vec::new();
        let talk = async {
            write.write_all(sent).await?;
            write.shutdown().await
        };
        let _ = talk.await;
        read.read_to_end(&mut heard).await.map(|_| heard)
    }

    #[tokio::test]
    async fn what_passes_one_byte_at_a_time_is_whole() {
        let sent: Vec<u8> = (0..=255).collect();
        let heard = through(|seed| Fate::of(seed, 0) == Fate::OneByte, &sent).await.expect("it is not cut");
        assert_eq!(heard, sent);
    }

    #[tokio::test]
    async fn a_reset_after_so_many_bytes_is_an_error_to_the_reader() {
        let few = |fate| matches!(fate, Fate::ResetAfter(Way::Back, bytes) if bytes < 100);
        let reset = through(|seed| few(Fate::of(seed, 0)), &[7; 200]).await.expect_err("a reset");
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn the_seed_decides_the_fates() {
        let fates = |seed| (0..200).map(|number| Fate::of(seed, number)).collect::<Vec<_>>();
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }
}
