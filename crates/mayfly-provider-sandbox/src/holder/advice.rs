//! Why the system did not let us make namespaces, as its settings tell, and what to do about it.

use mayfly_holder::Failure;
use std::path::Path;

/// What keeps user namespaces, or the rights in them, from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// There are none at all.
    Off,
    /// An old setting of Debian's kernels.
    ForRootAlone,
    /// Ubuntu's, since 24.04.
    AppArmor,
    /// Nothing that a setting tells.
    Unknown { ordinary: bool },
}

impl Cause {
    /// Why something was denied; none if it failed for another reason.
    pub(super) fn of(failure: &Failure, ordinary: bool) -> Option<Self> {
        let errors = [libc::EPERM, libc::EACCES, libc::ENOSPC, libc::EUSERS];
        let denied = !failure.may_pass && errors.map(Some).contains(&failure.errno);
        let is = |setting: &str, value: &str| self::setting(setting).is_some_and(|text| text == value);
        Some(match () {
            () if !denied => return None,
            () if is("user/max_user_namespaces", "0") => Self::Off,
            () if ordinary && is("kernel/unprivileged_userns_clone", "0") => Self::ForRootAlone,
            () if ordinary && is(APPARMOR, "1") => Self::AppArmor,
            () => Self::Unknown { ordinary },
        })
    }

    /// What to do about it, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Off => "user namespaces are off here: set the sysctl user.max_user_namespaces to 10000",
            Self::ForRootAlone => {
                "they are for root alone here: set the sysctl kernel.unprivileged_userns_clone to 1, or run mayfly as root"
            }
            Self::AppArmor => {
                "AppArmor keeps them from ordinary users here (kernel.apparmor_restrict_unprivileged_userns is 1): \
                 give mayfly a profile with `userns,` in /etc/apparmor.d, or run mayfly as root"
            }
            Self::Unknown { ordinary: true } => {
                "if this is a container, it must allow user namespaces and an unmasked /proc; else run mayfly as root"
            }
            Self::Unknown { ordinary: false } => {
                "root has not all its rights here: if this is a container, start it with them (such as `--privileged`)"
            }
        }
    }

    /// The command that puts it right, if there is one. `mayfly` is our own binary.
    pub(super) fn command(self, mayfly: &Path) -> Option<String> {
        match self {
            Self::Off => Some(as_root("sysctl -w user.max_user_namespaces=10000")),
            Self::ForRootAlone => Some(as_root("sysctl -w kernel.unprivileged_userns_clone=1")),
            Self::AppArmor => Some(format!(
                "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile mayfly {} flags=(unconfined) \
                 {{\\n  userns,\\n}}\\n' | sudo tee /etc/apparmor.d/mayfly && sudo apparmor_parser -r /etc/apparmor.d/mayfly",
                mayfly.display()
            )),
            Self::Unknown { .. } => None,
        }
    }
}

const APPARMOR: &str = "kernel/apparmor_restrict_unprivileged_userns";

/// What AppArmor's limit on user namespaces is like here.
pub(super) fn apparmor(ordinary: bool) -> &'static str {
    match (setting(APPARMOR).as_deref(), ordinary) {
        (None, _) => "AppArmor has no say in it here",
        (Some("0"), _) => "AppArmor does not limit them",
        (Some(_), true) => "AppArmor limits them, and lets this program have them",
        (Some(_), false) => "AppArmor limits them for ordinary users, not for root",
    }
}

/// A command that root has to give.
pub(super) fn as_root(command: &str) -> String {
    let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
    format!("{sudo}{command}")
}

fn setting(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

/// Adds what to do, where the system's settings tell why it did not let us.
pub(super) fn advised(mut failure: Failure, ordinary: bool) -> Failure {
    if let Some(cause) = Cause::of(&failure, ordinary) {
        failure.reason = format!("{}: {}", failure.reason, cause.words());
    }
    failure
}
