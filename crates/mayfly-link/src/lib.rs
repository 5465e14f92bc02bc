//! A wire channel: whole messages, both ways, over a WebSocket.
//!
//! ```text
//! dial ──► Route: unix socket, vsock, TCP or TLS, perhaps by a proxy ──► HTTP/1.1 upgrade ──► accept
//!    └──────────────────────── Channel ◄──────► Channel ────────────────────────────────────────┘
//! ```
//!
//! A [`Route`] leads to one [`Endpoint`], and gives its plain connections too ([`Dial::connect`]), for requests of HTTP
//! beside the channel. Whatever else carries bytes can stand in for it: [`Dial`] is all that is asked of it.
//!
//! Both sides hold the same [`Channel`], whichever stream is below it. A channel that breaks stays broken:
//! dialling again, after a [`BackOff`], and resending are the owner's part.
//!
//! Bounds: [`FRAME_BYTES_MAX`](mayfly_wire::worker::FRAME_BYTES_MAX) a message in either direction,
//! [`DIAL_TIME_MAX`] for the connection and again for the handshake, [`SILENCE_MAX`] without a byte from the other side. There is no
//! compression. What the messages mean is `mayfly-wire`'s business.

mod accept;
mod back_off;
mod channel;
mod dial;
mod proxy;
mod route;
mod tls;

pub use accept::{Accepting, accept};
pub use back_off::{BACK_OFF_MAX, BACK_OFF_MIN, BackOff};
pub use channel::{Channel, Frame, KEEP_ALIVE, Receiver, SILENCE_MAX, Sender};
pub use dial::{ByteStream, DIAL_TIME_MAX, Dial, dial};
pub use mayfly_wire::endpoint::{Address, BadEndpoint, Endpoint, Fingerprint, Trust};
pub use proxy::{BadProxy, Proxy};
pub use route::Route;
pub use tls::fingerprint;

/// Why a channel could not be made, or is over.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens there, or the socket broke. Later may be better.
    #[error("cannot reach the other side")]
    Unreachable(#[source] std::io::Error),
    /// The proxy gives no way. Its settings, or those here, must change, unless it is in trouble itself.
    #[error("{reason}")]
    Proxy {
        /// What it does instead.
        reason: String,
    },
    /// The other side's certificate is not accepted. If a person finds that its fingerprint is the one that the
    /// orchestrator printed, it can be pinned.
    #[error("the certificate with the fingerprint {presented} is not trusted")]
    Untrusted {
        /// The certificate that was presented.
        presented: Fingerprint,
        /// The one that was pinned, if one was.
        pinned: Option<Fingerprint>,
        /// What speaks against it.
        source: Box<rustls::Error>,
    },
    /// TLS does not come about for another reason: as a rule the other side speaks something else.
    #[error("no TLS with the other side")]
    Tls(#[source] std::io::Error),
    /// An answer of HTTP that makes no channel: 401 is about the token, 5xx may be better later.
    #[error("the other side answers {status} and makes no channel")]
    Refused {
        /// Its status.
        status: u16,
        /// The type of the problem that it tells, if it tells one.
        kind: Option<String>,
    },
    /// What answers a handshake is no HTTP: as a rule the other side wants TLS.
    #[error("what answers there is no HTTP")]
    NotHttp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The handshake is not one.
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
