//! The stream of a connection, which is cut once its peer takes nothing.
//!
//! A peer that reads slowly is waited for, as long as it reads; one that reads nothing for [`STALL_MAX`], while there
//! is something for it, would hold what waits for it and a place at its door for ever. Whoever was cut can ask again
//! from the last event that came.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The longest time in which a peer takes nothing of what is there for it.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);

/// A stream whose writer does not wait for ever.
#[derive(Debug)]
pub(crate) struct Impatient<S> {
    stream: S,
    /// Since nothing was taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, stalled: None }
    }

    /// What came of a try to write, unless none has come to anything for too long.
    fn judge<T>(&mut self, tried: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.stalled = None;
            return tried;
        }
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_MAX))).as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(tried, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(tried, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(tried, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(tried, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const NEARLY: Duration = Duration::from_secs(STALL_MAX.as_secs() - 1);

    /// R13: the time begins anew with each byte that is taken.
    #[tokio::test(start_paused = true)]
    async fn a_peer_is_waited_for_while_it_takes_something() {
        let (ours, mut theirs) = duplex(16);
        let begun = Instant::now();
        let writing = tokio::spawn(async move { Impatient::new(ours).write_all(&[7; 21]).await });
        for _ in 0..5 {
            sleep(NEARLY).await;
            theirs.read_u8().await.expect("a byte");
        }
        writing.await.expect("no panic").expect("all of it was taken, or has room");
        assert_eq!(begun.elapsed(), 5 * NEARLY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = duplex(16);
        let begun = Instant::now();
        let error = Impatient::new(ours).write_all(&[7; 17]).await.expect_err("no room");
        assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::TimedOut, STALL_MAX));
    }
}
