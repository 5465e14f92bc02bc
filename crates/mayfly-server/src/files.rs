//! How many files, and so connections, this process can have open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that are kept for everything but the port: the owner's socket, the machines' doors, files.
const FILES_KEPT: u64 = 2_000;
/// Connections at once by the port, however few file descriptors there are.
const CONNECTIONS_MIN: u64 = 100;
/// Connections at once through the owner's socket: whoever follows many tasks has one for each.
const OWNER_CONNECTIONS: std::ops::RangeInclusive<u64> = 512..=4096;

/// Lets this process have as many files open as it may at all: the usual bound is for programs that are older than
/// ten thousand connections. A machine has a bound of its own.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        tracing::warn!(cause = %error, "the bound of open files stays as it is");
    }
}

/// How many connections there can be by the port, at most `most`.
pub(crate) fn connections(most: usize) -> usize {
    let connections = files().saturating_sub(FILES_KEPT).max(CONNECTIONS_MIN);
    usize::try_from(connections).unwrap_or(usize::MAX).min(most)
}

/// How many there can be through the owner's socket: a quarter of the file descriptors, within bounds.
pub(crate) fn owner_connections() -> usize {
    let (least, most) = OWNER_CONNECTIONS.into_inner();
    usize::try_from((files() / 4).clamp(least, most)).unwrap_or(usize::MAX)
}

fn files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
