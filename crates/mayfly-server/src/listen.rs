//! A door: a unix socket or a port, with TLS or without, and the connections that come through it.
//!
//! Bounds: [`SOCKET_PATH_BYTES_MAX`] where clients name the path, the places of each door (who finds none waits in
//! the system's queue of that door, [`QUEUE_MAX`] for a port), [`HANDSHAKE_MAX`] for TLS, [`HEAD_MAX`] for a request to say what it wants,
//! [`BUFFER_BYTES_MAX`] for what is on its way, [`STALL_MAX`](crate::stream::STALL_MAX) for who takes nothing. A connection that becomes a
//! link keeps its place until the link ends. When a door closes, each connection ends after the exchange that it
//! is in, or after [`STOP_MAX`].

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mayfly_link::ByteStream;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, chmodat, openat, statat, unlinkat};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::STOP_MAX;
use crate::guest::Guest;
use crate::stream::Impatient;
use crate::street::Street;

/// The longest path of a socket; the systems' own bounds are 103 (macOS) and 107 (Linux).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 100;
/// Connections that the system holds for a port until there is a place for them, where it lets us have so many: after a
/// restart all come back at once, and whoever finds no room there tries again only after a second.
const QUEUE_MAX: u32 = 4096;
/// The time for a handshake of TLS.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The most that is read ahead on a connection, or waits to be written there; the longest head of a request.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The time for a request's head.
const HEAD_MAX: Duration = Duration::from_secs(20);
/// The time for an answer that is on its way when its connection has to end: who revokes the token that it came with
/// is told that it is done, and all that goes on is cut off within a second.
const LEAVE_MAX: Duration = Duration::from_millis(500);
/// How long a connection of a port is silent before its other side is asked whether it is there.
const ABSENCE_ASKED: Duration = Duration::from_secs(15);
/// The pause after the system gave no connection, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections come to, and how many may be there at once.
#[derive(Debug)]
pub(crate) struct Door {
    listener: Listener,
    tls: Option<Arc<rustls::ServerConfig>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener, #[expect(dead_code, reason = "held for its end")] SocketFile),
    Tcp(TcpListener),
    Memory(mpsc::UnboundedReceiver<Box<dyn ByteStream>>),
}

/// As it comes from the system, or through memory.
type Bare = Impatient<Either<Either<UnixStream, TcpStream>, Box<dyn ByteStream>>>;
/// As requests come through it.
type Stream = Either<Bare, Box<TlsStream<Bare>>>;

impl Listener {
    async fn accept(&mut self) -> io::Result<Bare> {
        let stream = match self {
            Self::Unix(listener, _) => Either::Left(Either::Left(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                notice_absence(&stream)?;
                Either::Left(Either::Right(stream))
            }
            Self::Memory(arrivals) => match arrivals.recv().await {
                Some(stream) => Either::Right(stream),
                // Its name has another door by now.
                None => std::future::pending().await,
            },
        };
        Ok(Impatient::new(stream))
    }
}

/// A machine that was unplugged, or sleeps, says nothing: it is asked, and what it does not confirm is not kept for
/// ever.
fn notice_absence(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ABSENCE_ASKED)?;
    sockopt::set_tcp_keepintvl(stream, ABSENCE_ASKED)?;
    // Elsewhere the system's own bound holds for what was sent and is not confirmed.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, crate::stream::STALL_MAX.as_millis().try_into().expect("seconds"))?;
    Ok(())
}

/// The file of a bound socket, removed with it.
#[derive(Debug)]
struct SocketFile {
    folder: File,
    name: &'static str,
}

impl Door {
    /// Binds `name` in `folder`, for at most `places` connections at once. The data folder's lock is held, so a
    /// socket that is there already is a dead one's.
    ///
    /// The folder is named by its descriptor where the system can: its path may be longer than a socket's can be.
    pub(crate) fn open(path: &Path, name: &'static str, mode: RawMode, places: usize) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = File::from(openat(rustix::fs::CWD, path, flags, Mode::empty())?);
        let found = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|is| FileType::from_raw_mode(is.st_mode) == FileType::Socket) {
            unlinkat(&folder, name, AtFlags::empty())?;
        }
        let listener = UnixListener::bind(short(path, &folder).join(name))?;
        let file = SocketFile { folder, name };
        chmodat(&file.folder, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        let listener = Listener::Unix(listener, file);
        Ok(Self { listener, tls: None, places: Arc::new(Semaphore::new(places)) })
    }

    /// The door of this name in memory, for at most `places` connections at once.
    pub(crate) fn on(street: &Street, path: PathBuf, places: usize) -> Self {
        let listener = Listener::Memory(street.open(path));
        Self { listener, tls: None, places: Arc::new(Semaphore::new(places)) }
    }

    /// Listens on a port, for at most `places` connections at once. Gives the address with the port that it got.
    pub(crate) fn at(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        places: usize,
    ) -> io::Result<(Self, SocketAddr)> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(QUEUE_MAX)?;
        let address = listener.local_addr()?;
        let listener = Listener::Tcp(listener);
        Ok((Self { listener, tls, places: Arc::new(Semaphore::new(places)) }, address))
    }

    /// Its places, for others that lead to the same.
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        self.places.clone()
    }

    /// Whether a client could name a socket with this path.
    pub(crate) fn fits(path: &Path) -> bool {
        path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX
    }
}

/// A way to `folder`, which is at `path`, that a socket's path has room for.
fn short(path: &Path, folder: &File) -> PathBuf {
    match cfg!(target_os = "linux") {
        true => format!("/proc/self/fd/{}", folder.as_raw_fd()).into(),
        false => path.to_owned(),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Of this folder, even if another has its name by now.
        let _ = unlinkat(&self.folder, self.name, AtFlags::empty());
    }
}

/// What the connections of one door share, or those of all.
#[derive(Debug, Clone)]
pub(crate) struct House {
    /// Ends everything.
    pub(crate) stopping: CancellationToken,
    /// Everything that runs.
    pub(crate) running: TaskTracker,
}

impl House {
    /// Ends all that goes on in it.
    pub(crate) async fn end(&self) {
        self.stopping.cancel();
        self.running.close();
        // Each exchange has a bound of its own, STOP_MAX; this one is for what may hang beside it.
        let _ = timeout(STOP_MAX * 2, self.running.wait()).await;
    }

    /// A part of it that can end before the rest, and ends with it.
    pub(crate) fn room(&self) -> Self {
        Self { stopping: self.stopping.child_token(), running: self.running.clone() }
    }

    /// Serves `router` to all who come through `door`, until the house stops. `connections` counts them.
    pub(crate) fn serve(&self, door: Door, router: Router, connections: watch::Sender<usize>) {
        let house = self.clone();
        self.running.spawn(async move {
            let stopping = house.stopping.clone();
            stopping.run_until_cancelled(house.accept(door, router, connections)).await;
        });
    }

    async fn accept(self, mut door: Door, router: Router, connections: watch::Sender<usize>) {
        loop {
            let place = door.places.clone().acquire_owned().await.expect("it is never closed");
            match door.listener.accept().await {
                Ok(stream) => {
                    let guest = Guest::new(connections.clone(), place);
                    let (tls, router, stopping) = (door.tls.clone(), router.clone(), self.stopping.clone());
                    self.running.spawn(receive(stream, tls, router, stopping, guest));
                }
                Err(error) => {
                    tracing::warn!(cause = %error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection, from its handshake on.
async fn receive(
    stream: Bare,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stopping: CancellationToken,
    guest: Guest,
) {
    let Some(tls) = tls else { return exchange(Either::Left(stream), router, stopping, guest).await };
    let shaken =
        stopping.run_until_cancelled(timeout(HANDSHAKE_MAX, TlsAcceptor::from(tls).accept(stream))).await;
    match shaken {
        Some(Ok(Ok(stream))) => exchange(Either::Right(Box::new(stream)), router, stopping, guest).await,
        Some(Ok(Err(error))) => tracing::debug!(cause = %error, "a handshake failed"),
        Some(Err(_)) => tracing::debug!("a handshake took too long"),
        None => {}
    }
}

/// The requests of one connection, one after another.
async fn exchange(stream: Stream, router: Router, stopping: CancellationToken, guest: Guest) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(BUFFER_BYTES_MAX);
    let router = TowerToHyperService::new(router);
    let host = guest.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(guest.clone());
        router.call(request)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    let rest = tokio::select! {
        ended = &mut connection => Err(ended),
        () = stopping.cancelled() => Ok(STOP_MAX),
        () = host.must_leave() => Ok(LEAVE_MAX),
    };
    let ended = match rest {
        Err(ended) => Some(ended),
        Ok(rest) => {
            connection.as_mut().graceful_shutdown();
            timeout(rest, connection).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        tracing::debug!(cause = %error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use axum::routing::get;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;
    use crate::data::DataFolder;
    use crate::tls::Tls;

    struct Street {
        house: House,
        connections: watch::Receiver<usize>,
        path: PathBuf,
        _dir: TempDir,
    }

    impl Street {
        fn with(router: Router) -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let door = Door::open(dir.path(), "door", 0o600, 2).expect("free");
            Self::behind(door, router, dir)
        }

        fn behind(door: Door, router: Router, dir: TempDir) -> Self {
            let path = dir.path().join("door");
            let house = House { stopping: CancellationToken::new(), running: TaskTracker::new() };
            let (count, connections) = watch::channel(0);
            house.serve(door, router, count);
            Self { house, connections, path, _dir: dir }
        }

        async fn ask(&self) -> UnixStream {
            let mut stream = UnixStream::connect(&self.path).await.expect("listening");
            stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.expect("it listens");
            stream
        }

        async fn stop(&self) {
            self.house.stopping.cancel();
            self.house.running.close();
            self.house.running.wait().await;
        }
    }

    async fn rest(mut stream: UnixStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }

    #[tokio::test]
    async fn a_dead_ones_socket_is_replaced_and_anything_else_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("door");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
        assert!(path.exists(), "a plain listener leaves its socket behind");
        let door = Door::open(dir.path(), "door", 0o640, 1).expect("replaced");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
        drop(door);
        assert!(!path.exists(), "a door does not");
        fs::write(&path, "precious").expect("written");
        Door::open(dir.path(), "door", 0o600, 1).expect_err("taken");
        assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
    }

    #[tokio::test]
    async fn connections_are_counted_while_they_are_there() {
        let mut street = Street::with(Router::new());
        let (one, two) = (street.ask().await, street.ask().await);
        street.connections.wait_for(|&count| count == 2).await.expect("serving");
        drop(one);
        street.connections.wait_for(|&count| count == 1).await.expect("serving");
        drop(two);
        street.connections.wait_for(|&count| count == 0).await.expect("serving");
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections_and_lets_an_exchange_finish() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (in_it, released) = (begun.clone(), go_on.clone());
        let slow = get(async move || {
            in_it.notify_one();
            released.notified().await;
            "done"
        });
        let mut street = Street::with(Router::new().route("/", slow));
        let idle = UnixStream::connect(&street.path).await.expect("listening");
        let busy = street.ask().await;
        begun.notified().await;
        street.connections.wait_for(|&count| count == 2).await.expect("serving");
        street.house.stopping.cancel();
        assert_eq!(rest(idle).await, "", "nothing is answered, and the connection ends");
        go_on.notify_one();
        street.stop().await;
        assert!(rest(busy).await.ends_with("done"));
        assert!(!street.path.exists());
    }

    /// S38: who says nothing does not keep a place for ever.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_for_nothing_ends() {
        let street = Street::with(Router::new());
        let mut slow = UnixStream::connect(&street.path).await.expect("listening");
        slow.write_all(b"GET / HTTP/1.1\r\nhost").await.expect("it listens");
        assert!(!rest(slow).await.contains("200"));
    }

    /// S38: nor does who is slow to shake hands, or says something else.
    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_comes_to_nothing_ends() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = DataFolder::open(dir.path()).expect("free");
        let tls = Tls::SelfSigned.identity(&data, Vec::new()).expect("made").tls;
        let any = "127.0.0.1:0".parse().expect("an address");
        let (door, address) = Door::at(any, Some(tls), 2).expect("free");
        let mut street = Street::behind(door, Router::new(), dir);
        let mut silent = TcpStream::connect(address).await.expect("listening");
        let mut plain = TcpStream::connect(address).await.expect("listening");
        street.connections.wait_for(|&count| count == 2).await.expect("serving");
        plain.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.expect("it listens");
        street.connections.wait_for(|&count| count == 1).await.expect("serving");
        silent.write_all(&[0x16, 3, 1]).await.expect("it listens");
        let begun = tokio::time::Instant::now();
        street.connections.wait_for(|&count| count == 0).await.expect("serving");
        assert!(begun.elapsed() <= HANDSHAKE_MAX, "{:?}", begun.elapsed());
    }
}
