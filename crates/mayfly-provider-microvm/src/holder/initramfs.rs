//! The initramfs as QEMU's `microvm` needs it.
//!
//! That machine puts it at the end of the memory, in whole pages, and the firmware's tables of ACPI into what is left of
//! the last one. With less than about 1 KiB left they overlap, and the guest hangs: seen with QEMU 10 and sizes that are
//! more than 3 KiB above whole pages. Zeros at its end mean nothing to the kernel.

use std::fs::File;
use std::io;
use std::path::Path;

use mayfly_holder::{Failure, Step};

const PAGE_BYTES: u64 = 4096;
/// How much of the last page it is to take.
const LAST_BYTES: u64 = 512;

/// Writes it to `at`, with as many zeros behind it as it takes.
pub(super) fn padded(initramfs: &Path, at: &Path) -> Result<(), Failure> {
    let copy = || -> io::Result<()> {
        let (mut from, mut to) = (File::open(initramfs)?, File::create_new(at)?);
        let bytes = io::copy(&mut from, &mut to)?;
        to.set_len(padded_to(bytes))
    };
    copy().step(format!("copy the initramfs {}", initramfs.display()))
}

/// The next size that leaves room.
fn padded_to(bytes: u64) -> u64 {
    bytes + (LAST_BYTES + PAGE_BYTES - bytes % PAGE_BYTES) % PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_leaves_the_same_room_in_its_last_page() {
        for bytes in (0..3 * PAGE_BYTES).chain([u64::from(u32::MAX)]) {
            let padded = padded_to(bytes);
            assert!((bytes..bytes + PAGE_BYTES).contains(&padded), "{bytes}");
            assert_eq!(padded % PAGE_BYTES, LAST_BYTES, "{bytes}");
        }
    }

    #[test]
    fn what_is_added_is_nothing_but_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, [7; 5000]).unwrap();
        padded(&from, &to).unwrap();
        let written = std::fs::read(&to).unwrap();
        assert_eq!(written.len(), 8704);
        assert!(
            written[..5000].iter().all(|byte| *byte == 7) && written[5000..].iter().all(|byte| *byte == 0)
        );
    }
}
