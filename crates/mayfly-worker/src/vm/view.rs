//! What a virtual machine's programs see: the image, which is never written, below a disk of the machine's own.
//!
//! ```text
//! /            the image, as the initramfs mounted it, read-only
//! /run/disk    the machine's disk, empty: the one that holds an ext4
//! /run/root    both as one, which becomes /
//! ```
//!
//! No file of the disk is read by the host.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};

use super::VmError;

/// Where a disk can be, by the kernel's names; one of them is the image.
const DISKS: [&str; 2] = ["/dev/vdb", "/dev/vda"];
/// The new root, while it is put together.
const ROOT: &str = "/run/root";
/// The disk below it.
const DISK: &str = "/run/disk";
/// The kernel's own, by their places.
const KERNELS: [(&str, &str); 3] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")];

/// Builds it, and enters it.
pub(super) fn build() -> Result<(), VmError> {
    for (kind, at) in KERNELS {
        on(kind, kind, at, None)?;
    }
    on("tmpfs", "tmpfs", "/run", None)?;
    for folder in [DISK, ROOT] {
        make(folder)?;
    }
    mount_disk()?;
    for folder in ["/run/disk/upper", "/run/disk/work"] {
        make(folder)?;
    }
    let layers = c"lowerdir=/,upperdir=/run/disk/upper,workdir=/run/disk/work";
    on("overlay", "overlay", ROOT, Some(layers))?;
    for (_, at) in KERNELS {
        step(format!("move {at} into the new root"), mount_move(at, format!("{ROOT}{at}")))?;
    }
    enter().map_err(|source| VmError::View { step: "enter the new root".to_owned(), source })?;
    on("tmpfs", "tmpfs", "/run", None)?;
    for (folder, kind, options) in
        [("/dev/pts", "devpts", Some(c"mode=620,ptmxmode=666")), ("/dev/shm", "tmpfs", Some(c"mode=1777"))]
    {
        make(folder)?;
        on(kind, kind, folder, options)?;
    }
    step("open /tmp to everybody", fs::set_permissions("/tmp", Permissions::from_mode(0o1777)))
}

/// What is no ext4 is the image.
fn mount_disk() -> Result<(), VmError> {
    let mounts = |disk: &&str| mount(*disk, DISK, "ext4", MountFlags::NODEV | MountFlags::NOATIME, None);
    let mut tried = DISKS.iter().map(mounts);
    let found = tried.find(Result::is_ok).unwrap_or(Err(Errno::NODEV));
    step("find the machine's own disk, which has an ext4 on it", found)
}

fn on(kind: &str, source: &str, at: &str, options: Option<&std::ffi::CStr>) -> Result<(), VmError> {
    let mounted = match mount(source, at, kind, MountFlags::NOSUID, options) {
        // The initramfs, or the kernel, was faster.
        Err(Errno::BUSY) => Ok(()),
        mounted => mounted,
    };
    step(format!("mount a {kind} at {at}"), mounted)
}

fn make(folder: &str) -> Result<(), VmError> {
    step(format!("make {folder}"), DirBuilder::new().recursive(true).mode(0o755).create(folder))
}

/// The old root is below the new one, and nobody but root could climb down.
fn enter() -> io::Result<()> {
    std::env::set_current_dir(ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir(Path::new("/"))
}

fn step<T, E: Into<io::Error>>(step: impl Into<String>, done: Result<T, E>) -> Result<T, VmError> {
    done.map_err(|error| VmError::View { step: step.into(), source: error.into() })
}
