//! What virtual machines of this box start from: a folder that `mayfly image build --for microvm` makes, and its list.
//!
//! ```text
//! system.json    this list, with the SHA-256 of each of the others
//! vmlinuz        the kernel as a bzImage, for QEMU
//! vmlinux        the same as an ELF, for Firecracker
//! initramfs      what loads the kernel's modules, and enters the image
//! image.erofs    the root file system
//! ```
//!
//! Nobody writes to such a folder: another build puts another in its place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The list's name.
pub const LIST: &str = "system.json";
/// The kernel, as a bzImage.
pub const KERNEL: &str = "vmlinuz";
/// The kernel, as an ELF.
pub const KERNEL_ELF: &str = "vmlinux";
/// What enters the image.
pub const INITRAMFS: &str = "initramfs";
/// The root file system.
pub const IMAGE: &str = "image.erofs";
/// All that a list names.
pub const FILES: [&str; 4] = [KERNEL, KERNEL_ELF, INITRAMFS, IMAGE];

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// What all of it was made of, as one SHA-256: another build of the same is not made again.
    pub key: String,
    /// The digest of the image's manifest.
    pub image: String,
    /// Where the kernel is from: a package with its version, or a file.
    pub kernel: String,
    /// The SHA-256 of each file, by its name.
    pub files: BTreeMap<String, String>,
}
