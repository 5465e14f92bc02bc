//! One connection, as the doors and the handlers know it: that it is there, whose places it has, and with what it ends.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

/// One connection, counted until the last clone is gone. Each request has one among its extensions, for whoever
/// takes the connection over.
#[derive(Debug, Clone)]
pub(crate) struct Guest(Arc<Place>);

#[derive(Debug)]
struct Place {
    connections: watch::Sender<usize>,
    /// With what the connection ends.
    leave: watch::Sender<Option<CancellationToken>>,
    /// At the door, and with whom it visits, if that has places of its own.
    _permit: OwnedSemaphorePermit,
    seat: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Guest {
    pub(crate) fn new(connections: watch::Sender<usize>, permit: OwnedSemaphorePermit) -> Self {
        connections.send_modify(|count| *count += 1);
        let (leave, seat) = (watch::Sender::default(), Mutex::default());
        Self(Arc::new(Place { connections, leave, _permit: permit, seat }))
    }

    /// From here on the connection has this place too.
    pub(crate) fn sits_at(&self, place: OwnedSemaphorePermit) {
        *self.0.seat.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// From here on the connection ends with `leave`, and no more with what was named before: requests come one
    /// after another, and the last one says whose it is.
    pub(crate) fn ends_with(&self, leave: CancellationToken) {
        self.0.leave.send_replace(Some(leave));
    }

    /// Returns once the connection has to end. An exchange needs not ask; who takes the connection over must.
    pub(crate) async fn must_leave(&self) {
        let mut leave = self.0.leave.subscribe();
        loop {
            let current = leave.borrow_and_update().clone();
            let ended = async {
                match current {
                    Some(leave) => leave.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What was named before may have ended meanwhile, and counts no more.
                biased;
                changed = leave.changed() => changed.expect("we have the other end"),
                () = ended => return,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        places.clone().try_acquire_owned().expect("free")
    }

    /// S33: whoever took the connection over, such as for a link, is told too.
    #[test]
    fn a_connection_ends_with_the_last_that_was_named() {
        let (count, _) = watch::channel(0);
        let guest = Guest::new(count, place(&Arc::new(Semaphore::new(1))));
        let mut leaves = Box::pin(guest.must_leave());
        assert!((&mut leaves).now_or_never().is_none(), "nothing was named");
        let (one, other) = (CancellationToken::new(), CancellationToken::new());
        guest.ends_with(one.clone());
        assert!((&mut leaves).now_or_never().is_none());
        guest.ends_with(other.clone());
        one.cancel();
        assert!((&mut leaves).now_or_never().is_none(), "it is the other's now");
        other.cancel();
        assert!((&mut leaves).now_or_never().is_some());
        assert!(guest.must_leave().now_or_never().is_some(), "whoever asks later, too");
    }

    #[test]
    fn its_places_are_free_again_with_the_last_of_it() {
        let (count, counted) = watch::channel(0);
        let (door, host) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let guest = Guest::new(count, place(&door));
        guest.sits_at(place(&host));
        let link = guest.clone();
        drop(guest);
        assert_eq!((door.available_permits(), host.available_permits(), *counted.borrow()), (0, 0, 1));
        drop(link);
        assert_eq!((door.available_permits(), host.available_permits(), *counted.borrow()), (1, 1, 0));
    }
}
