//! Ctrl-C, SIGTERM and SIGHUP (a closed terminal), which mean the same: the first asks for the end, the second
//! insists.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Stop;

/// The signals of this process, from the moment of [`install`](Self::install) on.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interrupts {
    /// From here on the signals no longer end the process by themselves.
    pub(crate) fn install() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let hang_up = signal(SignalKind::hangup())?;
        Ok(Self { interrupt, terminate, hang_up })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// Performs a step at whose place nothing has been started yet: an interrupt ends the command.
    pub(crate) async fn or_stop<T>(
        &mut self,
        step: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        self.or(Stop::cancelled, step).await
    }

    /// Performs a step that leaves nothing behind: an interrupt ends the command.
    pub(crate) async fn or_interrupted<T>(
        &mut self,
        step: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        self.or(Stop::interrupted, step).await
    }

    async fn or<T>(
        &mut self,
        ended: fn() -> Stop,
        step: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            () = self.next() => Err(ended()),
            done = step => done,
        }
    }
}
