//! Connections that fail as real ones do, and a way to an orchestrator that is made of them.
//!
//! ```text
//! dial ─► FaultyWay ─ the next Fault of its plan ─► Faulty ─► any way, such as in_memory() ─► accept
//! ```
//!
//! Faults are counted in bytes that the dialling side has written or read, never in time.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use mayfly_link::{ByteStream, Dial, LinkError};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

/// What may be under way in each direction of a connection in memory.
const IN_MEMORY_BYTES: usize = 64 * 1024;

/// What becomes of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing bad.
    None,
    /// It is reset once this many bytes were written: they arrive, and no more.
    CutAfter(usize),
    /// It is reset once this many bytes were read: the other side may think that more has arrived.
    CutAfterReading(usize),
    /// It is half-open once this many bytes were written: nothing passes any more, and nobody is told.
    DeafAfter(usize),
    /// Bytes pass one at a time, both ways.
    OneByte,
}

/// A connection with a fault.
#[derive(Debug)]
pub struct Faulty<S> {
    /// None: it was cut.
    stream: Option<S>,
    fault: Fault,
    written: usize,
    read: usize,
    /// Who waits for bytes, and must hear of the cut.
    reader: Option<Waker>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Faulty<S> {
    /// Gives `stream` this fault.
    pub fn new(stream: S, fault: Fault) -> Self {
        Self { stream: Some(stream), fault, written: 0, read: 0, reader: None }
    }

    /// How many of the next bytes may be written; none: they go nowhere.
    fn passes(&self) -> Option<usize> {
        match self.fault {
            Fault::None | Fault::CutAfterReading(_) => Some(usize::MAX),
            Fault::OneByte => Some(1),
            Fault::CutAfter(bytes) => Some(bytes - self.written),
            Fault::DeafAfter(bytes) => Some(bytes - self.written).filter(|left| *left > 0),
        }
    }

    fn cut_if_due(&mut self) {
        if [Fault::CutAfter(self.written), Fault::CutAfterReading(self.read)].contains(&self.fault) {
            self.stream = None;
            self.reader.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Reads no more than `most`.
fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<usize>> {
    let mut some = vec![0; most.min(buf.remaining())];
    let mut read = ReadBuf::new(&mut some);
    let polled = Pin::new(stream).poll_read(cx, &mut read);
    buf.put_slice(read.filled());
    polled.map_ok(|()| read.filled().len())
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Faulty<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reader = Some(cx.waker().clone());
        self.cut_if_due();
        let (passes, fault, before) = (self.passes(), self.fault, self.read);
        let Some(stream) = &mut self.stream else { return reset() };
        match (passes, fault) {
            (None, _) => Poll::Pending,
            (_, Fault::OneByte) => read_some(stream, cx, buf, 1).map_ok(drop),
            (_, Fault::CutAfterReading(bytes)) => {
                let polled = read_some(stream, cx, buf, bytes - before);
                if let Poll::Ready(Ok(read)) = polled {
                    self.read += read;
                }
                polled.map_ok(drop)
            }
            _ => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Faulty<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cut_if_due();
        let passes = self.passes();
        let Some(stream) = &mut self.stream else { return reset() };
        let Some(passes) = passes else { return Poll::Ready(Ok(buf.len())) };
        let polled = Pin::new(stream).poll_write(cx, &buf[..buf.len().min(passes)]);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.written += bytes;
            self.cut_if_due();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => reset(),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self.passes(), &mut self.stream) {
            (None, _) => Poll::Ready(Ok(())),
            (_, Some(stream)) => Pin::new(stream).poll_shutdown(cx),
            (_, None) => reset(),
        }
    }
}

/// A way whose connections have the faults of a plan, one after the other, and none once it is over.
#[derive(Debug)]
pub struct FaultyWay<D> {
    way: D,
    plan: Mutex<VecDeque<Fault>>,
}

impl<D: Dial> FaultyWay<D> {
    /// The connections of `way` with the faults of `plan`.
    pub fn new(way: D, plan: impl IntoIterator<Item = Fault>) -> Self {
        Self { way, plan: Mutex::new(plan.into_iter().collect()) }
    }
}

#[async_trait::async_trait]
impl<D: Dial> Dial for FaultyWay<D> {
    async fn connect(&self) -> Result<Box<dyn ByteStream>, LinkError> {
        let fault = self.plan.lock().expect("no panic inside").pop_front().unwrap_or(Fault::None);
        Ok(Box::new(Faulty::new(self.way.connect().await?, fault)))
    }

    fn host(&self) -> String {
        self.way.host()
    }
}

/// A way on which nobody is reached while it is barred. The connections that there are go on.
#[derive(Debug)]
pub struct Barred<D> {
    way: D,
    barred: AtomicBool,
}

impl<D> Barred<D> {
    /// Open at first.
    pub fn new(way: D) -> Self {
        Self { way, barred: AtomicBool::new(false) }
    }

    /// Bars it, or opens it again.
    pub fn bar(&self, barred: bool) {
        self.barred.store(barred, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl<D: Dial> Dial for Barred<D> {
    async fn connect(&self) -> Result<Box<dyn ByteStream>, LinkError> {
        match self.barred.load(Ordering::SeqCst) {
            true => Err(LinkError::Unreachable(io::ErrorKind::NetworkUnreachable.into())),
            false => self.way.connect().await,
        }
    }

    fn host(&self) -> String {
        self.way.host()
    }
}

/// The dialling side of connections in memory.
#[derive(Debug, Clone)]
pub struct InMemory(mpsc::UnboundedSender<DuplexStream>);

/// A way in memory, and where the other end of each connection comes out. With that dropped, nobody is reached.
pub fn in_memory() -> (InMemory, mpsc::UnboundedReceiver<DuplexStream>) {
    let (connect, connections) = mpsc::unbounded_channel();
    (InMemory(connect), connections)
}

#[async_trait::async_trait]
impl Dial for InMemory {
    async fn connect(&self) -> Result<Box<dyn ByteStream>, LinkError> {
        let (near, far) = duplex(IN_MEMORY_BYTES);
        match self.0.send(far) {
            Ok(()) => Ok(Box::new(near)),
            Err(_) => Err(LinkError::Unreachable(io::ErrorKind::ConnectionRefused.into())),
        }
    }

    fn host(&self) -> String {
        "mayfly".to_owned()
    }
}
