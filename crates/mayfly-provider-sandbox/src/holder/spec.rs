//! What maker, holder and init say to each other: JSON over two pipes and a pair of sockets.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use mayfly_holder::{Failure, Folder, Step};
use mayfly_wire::boot::Boot;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::{Deserialize, Serialize};

use crate::cgroup::Events;

/// The longest word between holder and init.
const WORD_BYTES_MAX: usize = 1 << 16;

/// All that a holder is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HolderSpec {
    /// Names the machine's cgroups.
    pub(crate) name: String,
    pub(crate) folder: Folder,
    pub(crate) workspace: Option<WorkspaceView>,
    /// Trees that it sees, each by its place.
    pub(crate) tools: Vec<(String, PathBuf)>,
    /// None for a machine that has nobody to speak to.
    pub(crate) way_out: Option<PathBuf>,
    pub(crate) claude: PathBuf,
    pub(crate) mayfly: PathBuf,
    pub(crate) memory_bytes_max: u64,
    pub(crate) pids_max: u32,
    pub(crate) cpus_max: f64,
    pub(crate) disk_bytes_max: u64,
    pub(crate) boot: Boot,
    /// Whether the machine is only to try our binary.
    pub(crate) probe: bool,
}

/// The code that a machine shows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkspaceView {
    /// The folder's name.
    pub(crate) name: String,
    /// The checkout below the overlay.
    pub(crate) base: PathBuf,
}

/// Between holder and init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// Holder: build your view.
    Build { events: Events },
    /// Init: I am in the second user namespace, without an id.
    Map,
    /// Holder: you have one, and are in your cgroups.
    Mapped,
    /// Init: all that is left is to execute the worker.
    Ready,
    /// Init: it did not work.
    Failed(Failure),
}

/// One end of the pair of sockets; each word is one packet.
pub(super) struct Channel(pub(super) OwnedFd);

impl Channel {
    pub(super) fn send(&self, word: &Word) -> Result<(), Failure> {
        let text = serde_json::to_vec(word).step("write a word")?;
        send(&self.0, &text, SendFlags::NOSIGNAL).step("speak inside the machine").map(drop)
    }

    /// `None`: the other end is gone, or has become the worker.
    pub(super) fn receive(&self) -> Result<Option<Word>, Failure> {
        let step = "hear inside the machine";
        let mut text = vec![0; WORD_BYTES_MAX];
        let heard = rustix::io::retry_on_intr(|| recv(&self.0, &mut text[..], RecvFlags::empty()));
        let read = match heard {
            // It went without having read what it was told.
            Err(Errno::CONNRESET) => 0,
            heard => heard.step(step)?.0,
        };
        if read == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&text[..read]).step(step).map(Some)
    }
}
