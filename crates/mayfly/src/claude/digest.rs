//! The SHA-256 of a file, remembered, since reading hundreds of megabytes at every start would be felt.
//!
//! A stamp says what digest a file had, and how the file looked to the system then: device, inode, size, and
//! the times of its last change of content and of inode. Nobody can change a file without the last of these
//! changing, but root or by turning back the clock. Stamps are believed only in a [`private`] folder, and
//! only of files that had come to rest when they were read.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// How old the last change must be for a stamp: clocks of file systems tick more slowly than files change.
const AT_REST: Duration = Duration::from_secs(2);
/// How much is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The digest of `file`, in hex. `stamps` is where it may be remembered.
pub(crate) fn of_file(path: &Path, stamps: Option<&Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    let stamp = stamps.map(|folder| folder.join(format!("stamp-{}-{}", before.dev(), before.ino())));
    if let Some(digest) = stamp.as_deref().and_then(|stamp| read_stamp(stamp, &before)) {
        return Ok(digest);
    }
    let digest = copy::<Sha256>(&mut file, &mut io::sink(), u64::MAX)?;
    if looks(&before) != looks(&file.metadata()?) {
        return Err(io::Error::other("it changed while it was read"));
    }
    if let Some(stamp) = stamp.filter(|_| at_rest(&before)) {
        // Without it, the file is read again next time.
        let _ = write_whole(&stamp, format!("{} {digest}\n", looks(&before)).as_bytes());
    }
    Ok(digest)
}

/// Copies at most `bytes_max`, and gives the digest of what was copied, in hex.
pub(crate) fn copy<D: Digest>(
    from: &mut impl Read,
    to: &mut impl io::Write,
    bytes_max: u64,
) -> io::Result<String> {
    Ok(hex::encode(copy_raw::<D>(from, to, bytes_max)?))
}

/// As [`copy`], with the bytes of the digest.
pub(crate) fn copy_raw<D: Digest>(
    from: &mut impl Read,
    to: &mut impl io::Write,
    bytes_max: u64,
) -> io::Result<Vec<u8>> {
    let mut digest = D::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok(digest.finalize().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        copied += read as u64;
        if copied > bytes_max {
            return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
        }
        digest.update(&chunk[..read]);
        to.write_all(&chunk[..read])?;
    }
}

/// Makes `folder`, if need be, and checks that it is the user's alone.
pub(crate) fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    let open = found.permissions().mode() & 0o077;
    match found.is_dir() && ours && open == 0 {
        true => Ok(()),
        false => Err(io::Error::other("it is not a folder of yours alone (mode 0700): remove it")),
    }
}

fn read_stamp(stamp: &Path, file: &Metadata) -> Option<String> {
    let text = fs::read_to_string(stamp).ok()?;
    let digest = text.strip_suffix('\n')?.strip_prefix(&looks(file))?.strip_prefix(' ')?;
    (digest.len() == 64).then(|| digest.to_owned())
}

fn looks(file: &Metadata) -> String {
    let (changed, inode_changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    let (dev, ino, size) = (file.dev(), file.ino(), file.size());
    format!("{dev} {ino} {size} {}.{:09} {}.{:09}", changed.0, changed.1, inode_changed.0, inode_changed.1)
}

fn at_rest(file: &Metadata) -> bool {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let settled = since_epoch.saturating_sub(AT_REST).as_secs();
    i64::try_from(settled).is_ok_and(|settled| file.ctime() < settled && file.mtime() < settled)
}

/// A reader sees all of `content` or the file before.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// A file whose last change is long ago, as far as its content is concerned.
    fn file_of(folder: &Path, content: &[u8]) -> std::path::PathBuf {
        let path = folder.join("file");
        fs::write(&path, content).expect("written");
        path
    }

    #[test]
    fn a_digest_is_that_of_the_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file_of(folder.path(), b"abc");
        assert_eq!(of_file(&file, None).expect("read"), ABC);
    }

    #[test]
    fn a_file_that_has_just_changed_gets_no_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file_of(folder.path(), b"abc");
        of_file(&file, Some(folder.path())).expect("read");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "only the file itself");
    }

    #[test]
    fn a_stamp_is_believed_until_the_file_looks_different() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file_of(folder.path(), b"abc");
        let found = fs::metadata(&file).expect("there");
        let stamp = folder.path().join(format!("stamp-{}-{}", found.dev(), found.ino()));
        let made_up = "0".repeat(64);
        fs::write(&stamp, format!("{} {made_up}\n", looks(&found))).expect("written");
        assert_eq!(of_file(&file, Some(folder.path())).expect("read"), made_up, "it is not read again");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
        let looked_again = looks(&fs::metadata(&file).expect("there"));
        fs::write(&file, b"abcd").expect("written");
        fs::write(&file, b"abc").expect("written");
        assert_ne!(looks(&found), looked_again, "the time of the inode tells");
        assert_eq!(of_file(&file, Some(folder.path())).expect("read"), ABC);
    }

    #[test]
    fn only_a_folder_of_ones_own_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, open, link) =
            (folder.path().join("a/b"), folder.path().join("open"), folder.path().join("link"));
        private(&ours).expect("made");
        private(&ours).expect("found");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o770)).expect("changed");
        assert!(private(&open).is_err(), "others may write into it");
        std::os::unix::fs::symlink(&ours, &link).expect("made");
        assert!(private(&link).is_err(), "a link can be pointed elsewhere");
    }

    #[test]
    fn what_is_longer_than_allowed_is_not_copied() {
        let mut out = Vec::new();
        assert!(copy::<Sha256>(&mut io::repeat(1), &mut out, 10).is_err());
        assert!(out.len() <= 10);
        assert_eq!(copy::<Sha256>(&mut &b"abc"[..], &mut out, 3).expect("copied"), ABC);
    }
}
