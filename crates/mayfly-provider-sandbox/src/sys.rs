//! The few system calls that no safe wrapper offers: the only `unsafe` code of this crate.
//!
//! Each function is one call with its arguments checked by types, and says why it is sound. Whether it is wise
//! to call it, and in which order, is the caller's business.

#![expect(unsafe_code, reason = "the one home of system calls without a safe wrapper")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, setrlimit};

/// Which side of [`fork_into`] this is.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The caller, with the new process.
    Parent(Pid),
}

/// `fork`, with the child in new namespaces (`CLONE_NEW*`).
///
/// The caller must have one thread, or a lock that another thread held stays locked in the child.
pub(crate) fn fork_into(namespaces: libc::c_int) -> io::Result<Forked> {
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is `fork`: the child has a copy of everything.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match libc::pid_t::try_from(pid) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) if pid > 0 => Ok(Forked::Parent(Pid::from_raw(pid).expect("the child's pid is not zero"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves this process, which must have one thread, into new namespaces.
pub(crate) fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a number only. Descriptors and memory stay as they are (no CLONE_FILES, no CLONE_VM).
    check(unsafe { libc::unshare(namespaces & !(libc::CLONE_FILES | libc::CLONE_VM)) })
}

/// Has the program that `command` starts, and each that it starts, have no more private memory than `bytes_max`.
pub(crate) fn bound_memory(command: &mut Command, bytes_max: u64) {
    let bound = move || {
        let most = Some(bytes_max);
        setrlimit(Resource::Data, Rlimit { current: most, maximum: most }).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec there is one system call, which takes no lock and no memory.
    unsafe { command.pre_exec(bound) };
}

/// Adds `attributes` (`MOUNT_ATTR_*`) to the mount of `tree`, to those below too if `recursive`, and makes them private.
pub(crate) fn restrict_mount(tree: impl AsFd, attributes: u64, recursive: bool) -> io::Result<()> {
    let attr =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attr` lives through the call and its true size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            mem::size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `SIOCSIFFLAGS`, as netdevice(7) has it: C libraries give it other types.
const SET_FLAGS: libc::Ioctl = 0x8914;

/// Brings the loopback interface of this network namespace up.
pub(crate) fn bring_loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: an all-zero `ifreq` is a valid one.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("two small flags");
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SET_FLAGS, &raw const request) })
}

/// Marks every descriptor from `first` on to be closed when a program is executed.
pub(crate) fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).expect("a descriptor is not negative");
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).expect("one small flag");
    // SAFETY: takes numbers only, and closes nothing now. Not every C library has a function for it.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
