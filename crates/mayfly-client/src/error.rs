//! Why a call was not answered, sorted by what the caller should do next.

use std::io;
use std::path::{Path, PathBuf};

use mayfly_wire::api::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there, or it went away in the middle. Later may be better; every call can be repeated.
    #[error("no orchestrator answers at {}", socket.display())]
    Unreachable {
        /// The socket that was dialled.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: reqwest::Error,
    },
    /// Somebody is there, and says nothing: it is stopped, or stuck, or its disk is.
    #[error(
        "the orchestrator at {} has said nothing for {waited}s: see whether its process is stopped (state T in `ps x`), \
         whether its disk hangs, and what it wrote last: on its terminal, or in serve.log beside that socket",
        socket.display()
    )]
    Silent {
        /// The socket that was dialled.
        socket: PathBuf,
        /// How long it was waited for, in seconds.
        waited: u64,
    },
    /// The orchestrator does not do it, and says why. Asked again, it says the same.
    #[error("{}", _0.detail)]
    Refused(Problem),
    /// Refused without a reason that we can read.
    #[error("the orchestrator answered with status {status}: is it of this version?")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not what it should be.
    #[error("the orchestrator's answer cannot be read: is it of this version?")]
    Protocol(#[source] serde_json::Error),
    /// An event is missing, or came twice.
    #[error("the event stream goes from {after} to {seq}: is the orchestrator of this version?")]
    Gap {
        /// The last event.
        after: u64,
        /// The one that came.
        seq: u64,
    },
    /// Events that were asked for are not kept any more.
    #[error("the log before event {first} is not kept any more: what is left begins after {}", first - 1)]
    Gone {
        /// The first event that is kept; the one after the last if none is.
        first: u64,
    },
    /// The answer is longer than anything that an orchestrator sends.
    #[error("the orchestrator's answer is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// A file of the caller's cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    pub(crate) fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
