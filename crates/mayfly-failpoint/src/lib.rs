//! Points at which a test can have a process end, as if it were killed there.
//!
//! A point stands at each durable step, before it and after it. Only a build with the feature `on` has them, and only
//! a process whose composition root has [armed](arm) one ends there: with SIGKILL, so that nothing is tidied up. A machine
//! is armed from inside: [by a file](arm_by) that its agent writes.

/// A point that a process passes. Nothing happens, unless it is armed.
#[inline]
pub fn failpoint(point: &'static str) {
    #[cfg(feature = "on")]
    armed::pass(point);
    #[cfg(not(feature = "on"))]
    let _ = point;
}

#[cfg(feature = "on")]
pub use armed::{arm, arm_by};

#[cfg(feature = "on")]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static ARMED: OnceLock<(String, AtomicU32)> = OnceLock::new();
    static ARMED_BY: OnceLock<PathBuf> = OnceLock::new();

    /// Has this process end where it comes to a point for the nth time, as in `submit-stored` or `submit-stored:2`.
    /// Only the first call counts.
    pub fn arm(which: &str) {
        let (point, nth) = which.split_once(':').unwrap_or((which, "1"));
        let nth = nth.parse().expect("a point is named as NAME or NAME:N");
        let _ = ARMED.set((point.to_owned(), AtomicU32::new(nth)));
    }

    /// Has this process end where this file says, from when it is there.
    pub fn arm_by(file: PathBuf) {
        let _ = ARMED_BY.set(file);
    }

    pub(crate) fn pass(point: &str) {
        if let Some(which) = ARMED_BY.get().and_then(|file| std::fs::read_to_string(file).ok()) {
            arm(&which);
        }
        if let Some((armed, left)) = ARMED.get()
            && armed == point
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            let _ = kill_process(getpid(), Signal::KILL);
            // The first process of a machine cannot kill itself by a signal, but it can crash.
            std::process::abort();
        }
    }
}
