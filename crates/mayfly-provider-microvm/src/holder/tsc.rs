//! How fast this host's time stamp counter counts, which an emulated processor shows as its own.
//!
//! A guest's kernel finds out by other clocks, which an emulation on a busy host lets come too late: it takes the counter
//! for unusable, and hangs or has no good clock. Told, it asks no other clock.

use std::time::{Duration, Instant};

/// How long it is counted.
const WHILE: Duration = Duration::from_millis(40);
/// How often both clocks are read for one pair, of which the closest counts: in between somebody else may run.
const READS: usize = 16;

/// In thousands a second. None: this processor has no such counter.
#[cfg(target_arch = "x86_64")]
pub(super) fn khz() -> Option<u64> {
    let (from, first) = read();
    std::thread::sleep(WHILE);
    let (to, last) = read();
    let micros = u64::try_from((to - from).as_micros()).ok()?;
    (last.checked_sub(first)? * 1000).checked_div(micros)
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn khz() -> Option<u64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn read() -> (Instant, u64) {
    let reads = (0..READS).map(|_| {
        let before = Instant::now();
        let count = count();
        (before, count, before.elapsed())
    });
    let (at, count, _) = reads.min_by_key(|(_, _, took)| *took).expect("there are some");
    (at, count)
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the one instruction that no safe function offers")]
fn count() -> u64 {
    // SAFETY: every x86-64 processor has it, and it only reads.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_each_time() {
        let (one, another) = (khz().unwrap(), khz().unwrap());
        assert!(one.abs_diff(another) * 50 < one, "{one} and {another}");
    }
}
