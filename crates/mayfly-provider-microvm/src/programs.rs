//! The programs of this host that machines run on.

use std::ffi::OsStr;
use std::path::PathBuf;

use mayfly_holder::Failure;
use serde::{Deserialize, Serialize};

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Programs {
    /// QEMU for this processor.
    pub(crate) qemu: PathBuf,
    /// The device that carries vsock.
    pub(crate) vsock: PathBuf,
    /// What makes an ext4.
    pub(crate) mkfs: PathBuf,
}

impl Programs {
    /// Finds them in `path`; Debian's users have not all of its folders in theirs.
    pub(crate) fn find(path: &OsStr) -> Result<Self, Failure> {
        let at = |name: &str, fix: &str| {
            let folders = std::env::split_paths(path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
            let mut places = folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
            places
                .find(|place| place.is_file())
                .ok_or_else(|| Failure::new(format!("cannot find `{name}` on PATH: {fix}")))
        };
        Ok(Self {
            qemu: at("qemu-system-x86_64", "install qemu-system-x86")?,
            vsock: at("vhost-device-vsock", "`cargo install --locked vhost-device-vsock`")?,
            mkfs: at("mkfs.ext4", "install e2fsprogs")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_that_is_missing_is_named_with_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([PathBuf::from("relative"), dir.path().to_owned()]).unwrap();
        let failed = Programs::find(&path).unwrap_err().to_string();
        assert_eq!(failed, "cannot find `qemu-system-x86_64` on PATH: install qemu-system-x86");
        for name in ["qemu-system-x86_64", "vhost-device-vsock", "mkfs.ext4"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(Programs::find(&path).unwrap().vsock, dir.path().join("vhost-device-vsock"));
    }
}
