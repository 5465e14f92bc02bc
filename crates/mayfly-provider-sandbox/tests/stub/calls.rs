//! Tries every system call that a machine must deny, and tells which error each gave.

#![expect(unsafe_code, reason = "system calls are made here as an attacker would make them")]

use serde_json::{Map, Value};

/// Each call with arguments that would be accepted, or fail otherwise than with a denial.
pub(crate) fn each() -> Value {
    let null = 0_i64;
    let text = c"x".as_ptr() as i64;
    let calls: [(&str, i64, [i64; 5]); 42] = [
        ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0]),
        ("clone newuser", libc::SYS_clone, [i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD), 0, 0, 0, 0]),
        ("clone newns", libc::SYS_clone, [i64::from(libc::CLONE_NEWNS | libc::SIGCHLD), 0, 0, 0, 0]),
        ("clone newpid", libc::SYS_clone, [i64::from(libc::CLONE_NEWPID | libc::SIGCHLD), 0, 0, 0, 0]),
        ("clone3", libc::SYS_clone3, [null, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [text, text, text, 0, 0]),
        ("umount2", libc::SYS_umount2, [text, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [text, text, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [text, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [text, 0, 0, 0, 0]),
        ("fsmount", libc::SYS_fsmount, [0, 0, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [0, text, 0, text, 0]),
        ("open_tree", libc::SYS_open_tree, [i64::from(libc::AT_FDCWD), c"/".as_ptr() as i64, 1, 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [0, text, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [0, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, -1, -1, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        ("io_uring_enter", libc::SYS_io_uring_enter, [0, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [text, text, 0, 0, -3]),
        ("request_key", libc::SYS_request_key, [text, text, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0, 0, 0, 0, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [0, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, text, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, text, 0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [text, 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [text, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [2, 0, 0, 0, 0]),
        ("sethostname", libc::SYS_sethostname, [text, 1, 0, 0, 0]),
        ("socket packet", libc::SYS_socket, [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0, 0, 0]),
        ("socket alg", libc::SYS_socket, [libc::AF_ALG.into(), libc::SOCK_SEQPACKET.into(), 0, 0, 0]),
        ("socket vsock", libc::SYS_socket, [libc::AF_VSOCK.into(), libc::SOCK_STREAM.into(), 0, 0, 0]),
        ("socket raw", libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_RAW.into(), 1, 0, 0]),
        ("ioctl tiocsti", libc::SYS_ioctl, [0, libc::TIOCSTI.cast_signed(), text, 0, 0]),
        ("x32 getpid", 0x4000_0000 + 39, [0, 0, 0, 0, 0]),
    ];
    calls
        .iter()
        .map(|(name, number, args)| ((*name).to_owned(), outcome(*number, args)))
        .collect::<Map<_, _>>()
        .into()
}

fn outcome(number: i64, args: &[i64; 5]) -> Value {
    // SAFETY: every pointer is null or a C string, which the kernel at most reads.
    let done = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], 0) };
    if done >= 0 {
        return format!("done: {done}").into();
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EPERM) => "EPERM".into(),
        Some(libc::ENOSYS) => "ENOSYS".into(),
        other => format!("error {other:?}").into(),
    }
}
