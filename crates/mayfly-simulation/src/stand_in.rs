//! What a program asks the system for and gets another answer each time: bytes at random and the time. From
//! [`begin`] on the answers are the seed's, for this process and all that is in it: the order of a `HashMap`, the branch
//! that `select!` takes first, ids and jitter. Nothing is made durable either: no seed pulls the plug.
//!
//! The functions have the names of the C library's, whose place they take in this program alone.

#![expect(unsafe_code, reason = "the C library's functions are replaced")]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// When every simulation begins: 2026-01-01T00:00:00Z.
pub(crate) const START_SECONDS: i64 = 1_767_225_600;

/// How long the machine seems to have been up: for so long that no wait of a thread for a moment of this clock, which is
/// the kernel's to end, ends by itself.
const UP_SECONDS: i64 = 1_000_000_000;

static BEGUN: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static NOW_NS: AtomicU64 = AtomicU64::new(0);

/// From here on the answers are those of `seed`.
pub(crate) fn begin(seed: u64) {
    RANDOM.store(seed, Ordering::SeqCst);
    BEGUN.store(true, Ordering::SeqCst);
}

/// Sets the time.
pub(crate) fn set_now(since_start: Duration) {
    NOW_NS.store(u64::try_from(since_start.as_nanos()).expect("some hours"), Ordering::SeqCst);
}

/// The time since the start.
pub(crate) fn now() -> Duration {
    Duration::from_nanos(NOW_NS.load(Ordering::SeqCst))
}

/// `SplitMix64`, by Steele, Lea and Flood.
fn next() -> u64 {
    let mut z = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `getrandom(2)`
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut c_void, bytes: usize, flags: u32) -> isize {
    if !BEGUN.load(Ordering::SeqCst) {
        // SAFETY: the caller's arguments, passed on.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, bytes, flags) };
        return isize::try_from(got).unwrap_or(-1);
    }
    // SAFETY: by the contract of the call, `bytes` bytes may be written there.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), bytes) };
    for piece in buffer.chunks_mut(8) {
        piece.copy_from_slice(&next().to_le_bytes()[..piece.len()]);
    }
    isize::try_from(bytes).unwrap_or(-1)
}

/// `clock_gettime(2)`
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    if !BEGUN.load(Ordering::SeqCst) {
        // SAFETY: the caller's arguments, passed on.
        let got = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return i32::try_from(got).unwrap_or(-1);
    }
    let (now, start) = (now(), if clock == libc::CLOCK_REALTIME { START_SECONDS } else { UP_SECONDS });
    let seconds = start + i64::try_from(now.as_secs()).expect("some hours");
    // SAFETY: by the contract of the call, a time may be written there.
    unsafe { time.write(libc::timespec { tv_sec: seconds, tv_nsec: now.subsec_nanos().into() }) };
    0
}

/// `fsync(2)`
#[unsafe(no_mangle)]
extern "C" fn fsync(_file: i32) -> i32 {
    0
}

/// `fdatasync(2)`
#[unsafe(no_mangle)]
extern "C" fn fdatasync(_file: i32) -> i32 {
    0
}
