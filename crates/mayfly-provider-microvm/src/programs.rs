//! The programs of this host that machines run on.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;

use mayfly_holder::{Failure, Step};
use serde::{Deserialize, Serialize};

/// Hardware virtualisation, as Linux has it.
const KVM: &str = "/dev/kvm";

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Programs {
    /// What the guest runs in.
    pub(crate) monitor: Monitor,
    /// What makes an ext4.
    pub(crate) mkfs: PathBuf,
}

/// A virtual machine monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Monitor {
    /// QEMU for this processor, and the device that carries vsock.
    Qemu {
        program: PathBuf,
        vsock: PathBuf,
    },
    Firecracker {
        program: PathBuf,
    },
}

impl Monitor {
    /// QEMU, found in `path`.
    pub(crate) fn qemu(path: &OsStr) -> Result<Self, Failure> {
        Ok(Self::Qemu {
            program: find(path, "qemu-system-x86_64", "install qemu-system-x86")?,
            vsock: find(path, "vhost-device-vsock", "`cargo install --locked vhost-device-vsock`")?,
        })
    }

    /// Firecracker, found in `path`, where hardware may be used for it. Whether that can run a guest is seen by trying.
    pub(crate) fn firecracker(path: &OsStr) -> Result<Self, Failure> {
        let program = find(path, "firecracker", "put a release of Firecracker there")?;
        let kvm = File::options().read(true).write(true).open(KVM);
        kvm.step(format!(
            "use {KVM} (load the module kvm_intel or kvm_amd, and let this user be in the group `kvm`)"
        ))?;
        Ok(Self::Firecracker { program })
    }
}

impl Programs {
    /// Those beside a monitor, found in `path`.
    pub(crate) fn with(monitor: Monitor, path: &OsStr) -> Result<Self, Failure> {
        Ok(Self { monitor, mkfs: find(path, "mkfs.ext4", "install e2fsprogs")? })
    }
}

/// Debian's users have not all folders of programs in their `PATH`.
fn find(path: &OsStr, name: &str, fix: &str) -> Result<PathBuf, Failure> {
    let folders = std::env::split_paths(path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut places = folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    places
        .find(|place| place.is_file())
        .ok_or_else(|| Failure::new(format!("cannot find `{name}` on PATH: {fix}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_that_is_missing_is_named_with_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([PathBuf::from("relative"), dir.path().to_owned()]).unwrap();
        let failed = Monitor::qemu(&path).unwrap_err().to_string();
        assert_eq!(failed, "cannot find `qemu-system-x86_64` on PATH: install qemu-system-x86");
        let failed = Monitor::firecracker(&path).unwrap_err().to_string();
        assert_eq!(failed, "cannot find `firecracker` on PATH: put a release of Firecracker there");
        for name in ["qemu-system-x86_64", "vhost-device-vsock"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let (program, vsock) = (dir.path().join("qemu-system-x86_64"), dir.path().join("vhost-device-vsock"));
        assert_eq!(Monitor::qemu(&path).unwrap(), Monitor::Qemu { program, vsock });
    }
}
