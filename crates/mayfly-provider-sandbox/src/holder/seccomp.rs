//! The system calls that nothing in a machine may make.
//!
//! A list of what is denied, not of what is allowed: agents run every kind of tool, and what the list names is
//! what opens the kernel's rarely used doors. A denied call answers `EPERM`, so that programs fall back;
//! `clone3` answers `ENOSYS`, since its flags lie behind a pointer, and libraries then use `clone`, whose flags
//! are looked at. A call in another architecture's numbering ends the caller, x32 numbers are denied.

use std::collections::BTreeMap;

use mayfly_holder::Failure;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

/// Denied whatever their arguments.
const DENIED: [libc::c_long; 55] = [
    // Namespaces, mounts and roots.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel's programmable and rarely used parts.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_mbind,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_set_mempolicy,
    // The host itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Denied too where they exist.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [libc::c_long; 4] =
    [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [libc::c_long; 0] = [];

/// What `clone` may not be asked for.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The only kinds of socket.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Puts keys into a terminal, as if they had been typed: `TIOCSTI` and `TIOCLINUX`, to which C libraries give other types.
const TERMINAL_CONTROLS: [u64; 2] = [0x5412, 0x541c];

/// The bit of x32's numbers.
const X32_BIT: u32 = 0x4000_0000;

/// Denies them to this process and all that come from it.
pub(super) fn apply() -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::new(format!(
            "cannot apply the seccomp filter ({error}): a kernel with CONFIG_SECCOMP_FILTER is needed"
        ))
    };
    let permission = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let filters = rules()
        .and_then(|rules| Ok([compile(rules, permission)?, compile(clone3, missing)?, x32_denied()]))
        .map_err(|error| failed(&error))?;
    filters.iter().try_for_each(|filter| apply_filter(filter)).map_err(|error| failed(&error))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = DENIED.iter().chain(&DENIED_HERE).map(|call| (*call, vec![])).collect();
    let namespace = |flag: &libc::c_int| {
        let flag = u64::from(flag.cast_unsigned());
        rule([(0, SeccompCmpOp::MaskedEq(flag), flag)])
    };
    rules.insert(libc::SYS_clone, NAMESPACES.iter().map(namespace).collect::<Result<_, _>>()?);
    let other_family =
        || rule(FAMILIES.map(|family| (0, SeccompCmpOp::Ne, u64::from(family.cast_unsigned()))));
    rules.insert(libc::SYS_socket, vec![other_family()?]);
    rules.insert(libc::SYS_socketpair, vec![other_family()?]);
    let control = |request: &u64| rule([(1, SeccompCmpOp::Eq, *request)]);
    rules.insert(libc::SYS_ioctl, TERMINAL_CONTROLS.iter().map(control).collect::<Result<_, _>>()?);
    Ok(rules)
}

/// Holds where each of `conditions` does: argument, comparison, value. All are of 32 bits in the kernel.
fn rule<const N: usize>(
    conditions: [(u8, SeccompCmpOp, u64); N],
) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions
        .into_iter()
        .map(|(argument, how, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

fn compile(rules: Rules, denied: SeccompAction) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?.try_into()
}

/// Denies every number with x32's bit: such a call does what its plain twin does. Other architectures have no
/// numbers that high.
fn x32_denied() -> BpfProgram {
    let instruction =
        |code: u32, jt, jf, k| sock_filter { code: code.try_into().expect("16 bits"), jt, jf, k };
    let answer = |action| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}
