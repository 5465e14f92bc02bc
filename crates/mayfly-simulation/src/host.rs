//! A process of the simulation: a runtime of its own, whose time stands still but while it is driven. Dropped, it is
//! killed: nothing in it takes another step.

use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// One process.
#[derive(Debug)]
pub(crate) struct Host {
    runtime: Runtime,
    main: JoinHandle<()>,
}

impl Host {
    /// Starts one that does `main`.
    pub(crate) fn start(main: impl Future<Output = ()> + Send + 'static) -> Self {
        // Whoever drives it is asked after each step of a task.
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).event_interval(1).build();
        let runtime = runtime.expect("a runtime without sockets can always be made");
        let main = runtime.spawn(main);
        Self { runtime, main }
    }

    /// Lets this much time pass in it.
    pub(crate) fn run(&self, span: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(span).await });
    }

    /// Lets it take so many steps, in no time.
    pub(crate) fn steps(&self, count: u32) {
        let mut left = count;
        self.runtime.block_on(std::future::poll_fn(|cx| {
            left = left.saturating_sub(1);
            cx.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_over(&self) -> bool {
        self.main.is_finished()
    }
}
