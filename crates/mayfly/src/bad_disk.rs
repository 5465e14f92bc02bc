//! For tests: a disk on which nothing can be made durable, from the moment at which a file is there.
//!
//! The functions have the names of the C library's, whose place they take in this program alone: SQLite calls them too.
//! Only a build with the feature `failpoints` has them, and only a process that was told of the file asks for it.

#![expect(unsafe_code, reason = "the C library's functions are replaced")]

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::io::Errno;

static BAD_WHILE: OnceLock<PathBuf> = OnceLock::new();

unsafe extern "C" {
    fn __errno_location() -> *mut i32;
}

/// From here on nothing is made durable while there is a file at `path`.
pub(crate) fn bad_while(path: &OsStr) {
    let _ = BAD_WHILE.set(path.into());
}

fn answer(done: Result<(), Errno>) -> i32 {
    let failed = BAD_WHILE.get().is_some_and(|path| path.exists());
    let Err(error) = (if failed { Err(Errno::IO) } else { done }) else { return 0 };
    // SAFETY: by the contract of the call, it is this thread's own.
    unsafe { *__errno_location() = error.raw_os_error() };
    -1
}

/// `fsync(2)`
#[unsafe(no_mangle)]
extern "C" fn fsync(file: i32) -> i32 {
    // SAFETY: the caller's descriptor, which lives as long as the call.
    answer(rustix::fs::fsync(unsafe { BorrowedFd::borrow_raw(file) }))
}

/// `fdatasync(2)`
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: i32) -> i32 {
    // SAFETY: the caller's descriptor, which lives as long as the call.
    answer(rustix::fs::fdatasync(unsafe { BorrowedFd::borrow_raw(file) }))
}
