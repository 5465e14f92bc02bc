//! The files that this process has open, and how many it may.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most that it may have.
pub(crate) fn most() -> usize {
    getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap())
}

/// Lets it have as many, or as many as it may.
pub(crate) fn allow(files: usize) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(u64::try_from(files.min(most())).unwrap());
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// Those that are open.
pub(crate) fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
