//! The network: connections in memory that break as real ones do, by the seed.
//!
//! ```text
//! End ─ write ─► [in flight until its time] ─► [arrived] ─ read ─► End
//! ```
//!
//! What becomes of a connection is settled when it is made: it may be cut after so many bytes, or fall silent without a
//! word to either side, be slow, or let pass one byte at a time. Connections of a host can be cut or silenced later too.
//! Nothing here has a timer: who drives the simulation says what time it is.
//!
//! Bound: [`LANE_BYTES_MAX`] under way in each direction.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use mayfly_link::{ByteStream, DIAL_TIME_MAX, Dial, LinkError};
use mayfly_server::Street;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ledger::Ledger;
use crate::stand_in;

/// What may be under way in each direction.
const LANE_BYTES_MAX: usize = 16 * 1024;

/// After how many bytes a connection that passes one at a time is as others are: enough for each kind of message.
const ONE_BY_ONE_BYTES: u64 = 4 * 1024;

/// How late those bytes arrive at most that were under way when their connection was cut.
const LATE_MS_MAX: u64 = 3000;

/// How likely each fault is for a new connection, and how bad.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// It is cut after some bytes.
    pub(crate) cut: f64,
    /// It falls silent after some bytes.
    pub(crate) deaf: f64,
    /// It is not made.
    pub(crate) refused: f64,
    /// It passes a byte at a time.
    pub(crate) one_byte: f64,
    /// It is slow.
    pub(crate) slow: f64,
    /// How slow at most.
    pub(crate) delay_ms_max: u64,
    /// How many bytes it passes at most before it is cut or falls silent.
    pub(crate) bytes_max: u64,
}

/// All connections. Clones are one network.
#[derive(Debug, Clone)]
pub(crate) struct Network(Arc<Mutex<Net>>);

#[derive(Debug)]
struct Net {
    rng: Rng,
    weather: Weather,
    street: Street,
    ledger: Ledger,
    connections: Vec<(String, Weak<Mutex<Connection>>)>,
    /// Something passed since this was last asked.
    active: bool,
    /// Something came to the orchestrator since this was last asked.
    came_up: bool,
    /// Counts all that passed, in order: two runs of a seed have the same.
    digest: u64,
}

impl Net {
    fn passed(&mut self, side: usize) {
        self.active = true;
        self.came_up |= side == 0;
    }
}

#[derive(Debug, Default)]
struct Lane {
    flight: VecDeque<(Duration, Vec<u8>)>,
    arrived: VecDeque<u8>,
    /// No more is written.
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn under_way(&self) -> usize {
        self.arrived.len() + self.flight.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Connection {
    network: Network,
    /// From the one who dialled, and to it.
    lanes: [Lane; 2],
    /// For which end it is over.
    cut: [bool; 2],
    deaf: bool,
    passed: u64,
    cut_at: u64,
    deaf_at: u64,
    delay_ms_max: u64,
    one_by_one: bool,
}

/// One end of a connection. Dropped, it is closed.
#[derive(Debug)]
struct End {
    connection: Arc<Mutex<Connection>>,
    /// The lane that it writes to.
    side: usize,
}

impl Network {
    pub(crate) fn new(rng: Rng, weather: Weather, street: Street, ledger: Ledger) -> Self {
        let (connections, active, came_up, digest) = (Vec::new(), false, false, 0);
        Self(Arc::new(Mutex::new(Net { rng, weather, street, ledger, connections, active, came_up, digest })))
    }

    /// A way for `host` to the door at `path`.
    pub(crate) fn way(&self, host: &str, path: PathBuf) -> Arc<dyn Dial> {
        Arc::new(Way { network: self.clone(), host: host.to_owned(), path })
    }

    /// From here on nothing new breaks.
    pub(crate) fn calm(&self) {
        self.net().weather = Weather::default();
    }

    /// Cuts, or silences, the connections that `host` has made; of all hosts if it is none.
    pub(crate) fn break_off(&self, host: Option<&str>, silently: bool) {
        for connection in self.open(host) {
            let mut connection = lock(&connection);
            match silently {
                true => connection.deaf = true,
                false => connection.cut(),
            }
        }
    }

    /// Whether something passed since this was last asked.
    pub(crate) fn was_active(&self) -> bool {
        std::mem::take(&mut self.net().active)
    }

    /// Whether something came to the orchestrator since this was last asked.
    pub(crate) fn came_up(&self) -> bool {
        std::mem::take(&mut self.net().came_up)
    }

    pub(crate) fn digest(&self) -> u64 {
        self.net().digest
    }

    /// Lets arrive what is due. Gives when more is.
    pub(crate) fn deliver(&self) -> Option<Duration> {
        let (now, open) = (stand_in::now(), self.open(None));
        open.iter().filter_map(|connection| lock(connection).deliver(now)).min()
    }

    fn open(&self, host: Option<&str>) -> Vec<Arc<Mutex<Connection>>> {
        let mut net = self.net();
        net.connections.retain(|(_, connection)| connection.strong_count() > 0);
        let of_host = net.connections.iter().filter(|(by, _)| host.is_none_or(|host| host == by));
        of_host.filter_map(|(_, connection)| connection.upgrade()).collect()
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, host: &str, path: &std::path::Path) -> io::Result<Box<dyn ByteStream>> {
        let connection = Arc::new(Mutex::new(self.connection()));
        let end = |side| Box::new(End { connection: Arc::clone(&connection), side });
        let (near, far) = (end(0), end(1));
        let mut net = self.net();
        net.connections.push((host.to_owned(), Arc::downgrade(&connection)));
        net.active = true;
        net.street.clone().arrive(path, far).inspect_err(|_| net.active = false)?;
        Ok(near)
    }

    fn connection(&self) -> Connection {
        let mut net = self.net();
        let (weather, rng) = (net.weather, &mut net.rng);
        let after = |rng: &mut Rng, chance: f64| match rng.f64() < chance {
            true => rng.u64(0..=weather.bytes_max),
            false => u64::MAX,
        };
        let (cut_at, deaf_at) = (after(rng, weather.cut), after(rng, weather.deaf));
        let delay_ms_max = if rng.f64() < weather.slow { weather.delay_ms_max } else { 0 };
        let one_by_one = rng.f64() < weather.one_byte;
        for (name, is) in [("one byte", one_by_one), ("slow", delay_ms_max > 0)] {
            if is {
                net.ledger.fault(name);
            }
        }
        let (network, lanes) = (self.clone(), [Lane::default(), Lane::default()]);
        Connection {
            network,
            lanes,
            cut: [false; 2],
            deaf: false,
            passed: 0,
            cut_at,
            deaf_at,
            delay_ms_max,
            one_by_one,
        }
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// How many bytes pass at once.
    fn piece(&self) -> usize {
        if self.one_by_one && self.passed < ONE_BY_ONE_BYTES { 1 } else { LANE_BYTES_MAX }
    }

    /// Ends it for both, or first for the one who dialled: what that one has sent arrives then, late, at the other end.
    fn cut(&mut self) {
        let late = {
            let mut net = self.network.net();
            net.rng.bool().then(|| Duration::from_millis(net.rng.u64(0..=LATE_MS_MAX)))
        };
        self.cut = [true, late.is_none()];
        for lane in &mut self.lanes {
            if late.is_none() {
                lane.flight.clear();
            }
            lane.wake();
        }
        if let Some(late) = late {
            let [up, down] = &mut self.lanes;
            down.flight.clear();
            up.ended = true;
            let bytes =
                up.arrived.drain(..).chain(up.flight.drain(..).flat_map(|(_, bytes)| bytes)).collect();
            up.flight.push_back((stand_in::now() + late, bytes));
        }
    }

    fn deliver(&mut self, now: Duration) -> Option<Duration> {
        let deaf = self.deaf;
        for (side, lane) in self.lanes.iter_mut().enumerate() {
            while lane.flight.front().is_some_and(|(at, _)| *at <= now)
                && let Some((_, bytes)) = lane.flight.pop_front()
            {
                if !deaf {
                    lane.arrived.extend(bytes);
                    self.network.net().passed(side);
                }
                lane.wake();
            }
        }
        self.lanes.iter().filter_map(|lane| lane.flight.front().map(|(at, _)| *at)).min()
    }

    /// Takes bytes over; how many. They are under way, or lost without a word.
    fn take(&mut self, side: usize, bytes: &[u8]) -> usize {
        let most = bytes.len().min(self.piece()).min(LANE_BYTES_MAX - self.lanes[side].under_way());
        let until_end = self.cut_at.min(self.deaf_at).saturating_sub(self.passed).max(1);
        let taken = most.min(usize::try_from(until_end).unwrap_or(usize::MAX));
        self.passed += taken as u64;
        let delay = {
            let mut net = self.network.net();
            let delay = if self.delay_ms_max == 0 { 0 } else { net.rng.u64(0..=self.delay_ms_max) };
            if delay == 0 {
                net.passed(side);
            }
            net.digest = (net.digest.rotate_left(7) ^ taken as u64).wrapping_mul(0x100_0000_01b3)
                ^ u64::from(stand_in::now().subsec_nanos());
            if self.passed >= self.cut_at {
                net.ledger.fault("cut");
            } else if self.passed >= self.deaf_at && !self.deaf {
                net.ledger.fault("half-open");
            }
            Duration::from_millis(delay)
        };
        let lane = &mut self.lanes[side];
        let at = (stand_in::now() + delay).max(lane.flight.back().map_or(Duration::ZERO, |(at, _)| *at));
        if at <= stand_in::now() {
            lane.arrived.extend(&bytes[..taken]);
            lane.reader.take().into_iter().for_each(Waker::wake);
        } else {
            lane.flight.push_back((at, bytes[..taken].to_vec()));
        }
        self.deaf |= self.passed >= self.deaf_at;
        if self.passed >= self.cut_at {
            self.cut();
        }
        taken
    }
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut connection = lock(&self.connection);
        let (piece, cut, deaf) = (connection.piece(), connection.cut[self.side], connection.deaf);
        let lane = &mut connection.lanes[1 - self.side];
        if !lane.arrived.is_empty() && !deaf {
            let most = buf.remaining().min(piece).min(lane.arrived.len());
            let bytes: Vec<u8> = lane.arrived.drain(..most).collect();
            buf.put_slice(&bytes);
            lane.writer.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(()));
        }
        if cut {
            return reset();
        }
        if lane.ended && lane.flight.is_empty() && !deaf {
            return Poll::Ready(Ok(()));
        }
        lane.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut connection = lock(&self.connection);
        if connection.cut[self.side] {
            return reset();
        }
        if connection.deaf || connection.cut[1 - self.side] {
            return Poll::Ready(Ok(buf.len()));
        }
        if connection.lanes[1 - self.side].ended && Arc::strong_count(&self.connection) == 1 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let lane = &mut connection.lanes[self.side];
        if lane.under_way() >= LANE_BYTES_MAX {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(connection.take(self.side, buf)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if lock(&self.connection).cut[self.side] { reset() } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = lock(&self.connection);
        let lane = &mut connection.lanes[self.side];
        lane.ended = true;
        lane.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut connection = lock(&self.connection);
        connection.lanes[self.side].ended = true;
        // Who writes to nobody is told, and who reads hears the end.
        connection.lanes.iter_mut().for_each(Lane::wake);
    }
}

/// A way of one host to one door.
struct Way {
    network: Network,
    host: String,
    path: PathBuf,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("host", &self.host).field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Dial for Way {
    async fn connect(&self) -> Result<Box<dyn ByteStream>, LinkError> {
        let (refused, hangs) = {
            let mut net = self.network.net();
            let chance = net.weather.refused;
            let refused = net.rng.f64() < chance;
            (refused, refused && net.rng.bool())
        };
        if hangs {
            tokio::time::sleep(DIAL_TIME_MAX).await;
            return Err(LinkError::Silent { seconds: DIAL_TIME_MAX.as_secs() });
        }
        if refused {
            return Err(LinkError::Unreachable(io::ErrorKind::ConnectionRefused.into()));
        }
        self.network.connect(&self.host, &self.path).map_err(LinkError::Unreachable)
    }

    fn host(&self) -> String {
        "mayfly".to_owned()
    }
}
