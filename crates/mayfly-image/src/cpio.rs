//! Files as an initramfs: a cpio archive in the kernel's form (`newc`), packed by gzip.

use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};

/// What an archive ends with.
const TRAILER: &str = "TRAILER!!!";
/// Names and contents begin at whole multiples of this.
const UNIT: usize = 4;
/// A mark of the packer's system, for none.
const NO_SYSTEM: u8 = 255;

/// A file or folder of root's.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its path, without a slash before it.
    pub(crate) path: String,
    /// Its kind and permissions.
    pub(crate) mode: u32,
    /// Nothing for a folder.
    pub(crate) content: Vec<u8>,
}

impl Member {
    pub(crate) fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o040_755, content: Vec::new() }
    }

    pub(crate) fn program(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o100_755, content }
    }
}

/// The archive, packed.
pub(crate) fn packed(members: &[Member]) -> io::Result<Vec<u8>> {
    let mut to = GzBuilder::new().operating_system(NO_SYSTEM).write(Vec::new(), Compression::default());
    to.write_all(&archive(members)?)?;
    to.finish()
}

fn archive(members: &[Member]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, member) in members.iter().enumerate() {
        put(&mut archive, number + 1, &member.path, member.mode, &member.content)?;
    }
    put(&mut archive, 0, TRAILER, 0, &[])?;
    Ok(archive)
}

fn put(archive: &mut Vec<u8>, number: usize, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let small =
        |value: usize| u32::try_from(value).map_err(|_| io::Error::other("it is too large for an initramfs"));
    // Number, mode, owner, group, links, time, size, four numbers of devices, the length of the name with its zero byte,
    // and a sum that this form has none of.
    let size = small(content.len())?;
    let fields = [small(number)?, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, small(path.len() + 1)?, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08X}").into_bytes());
    }
    archive.extend(path.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(UNIT), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(UNIT), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_in_the_kernels_form() {
        let archive = archive(&[Member::program("a", b"12345".to_vec())]).expect("small");
        let head = |number: u32, mode: u32, size: u32, name: u32| {
            let zeros = "00000000";
            format!(
                "070701{number:08X}{mode:08X}{zeros}{zeros}00000001{zeros}{size:08X}{zeros}{zeros}{zeros}{zeros}\
                 {name:08X}{zeros}"
            )
        };
        let file = head(1, 0o100_755, 5, 2) + "a\0" + "12345\0\0\0";
        let end = head(0, 0, 0, 11) + "TRAILER!!!\0" + "\0\0\0";
        assert_eq!(String::from_utf8(archive).expect("text"), file + &end);
    }

    #[test]
    fn the_same_files_are_the_same_bytes() {
        let members = || [Member::folder("dev"), Member::program("init", vec![7; 100])];
        assert_eq!(packed(&members()).expect("packed"), packed(&members()).expect("packed"));
    }
}
