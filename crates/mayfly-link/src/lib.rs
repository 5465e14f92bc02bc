//! A wire channel: whole messages, both ways, over a WebSocket.
//!
//! ```text
//! dial ──► unix socket ──► HTTP/1.1 upgrade ──► accept
//!    └────────────── Channel ◄──────► Channel ──────┘
//! ```
//!
//! Both sides hold the same [`Channel`], whichever stream is below it. A channel that breaks stays broken:
//! dialling again, after a [`BackOff`], and resending are the owner's part.
//!
//! Bounds: [`FRAME_BYTES_MAX`](mayfly_wire::worker::FRAME_BYTES_MAX) a message in either direction,
//! [`DIAL_TIME_MAX`] for the handshake, [`SILENCE_MAX`] without a byte from the other side. There is no
//! compression. What the messages mean is `mayfly-wire`'s business.

mod accept;
mod back_off;
mod channel;
mod dial;

pub use accept::{Accepting, accept};
pub use back_off::{BACK_OFF_MAX, BACK_OFF_MIN, BackOff};
pub use channel::{Channel, Frame, KEEP_ALIVE, Receiver, SILENCE_MAX, Sender};
pub use dial::{DIAL_TIME_MAX, dial};

/// Why a channel could not be made, or is over.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens there, or the socket broke. Later may be better.
    #[error("cannot reach the other side")]
    Unreachable(#[source] std::io::Error),
    /// The handshake was refused, or is not one.
    #[error("the handshake is not one: {reason}")]
    Handshake {
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing was heard for [`SILENCE_MAX`], or the handshake took longer than [`DIAL_TIME_MAX`].
    #[error("nothing was heard from the other side for {seconds} s")]
    Silent {
        /// How long.
        seconds: u64,
    },
    /// The other side sent what the protocol does not allow, such as a message over the limit.
    #[error("the other side does not keep to the protocol")]
    Protocol(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection ended without a word of leave.
    #[error("the link was cut")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
}
