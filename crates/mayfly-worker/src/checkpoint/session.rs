//! What the CLI's session file has more than what was sent of it. The CLI only ever appends to it.
//!
//! Bound: [`PART_BYTES_MAX`] for a part; more comes with the next. A line that is longer stays until the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;
use tokio::task::spawn_blocking;

use crate::collect::session;

/// The most that is read at once.
const PART_BYTES_MAX: u64 = 8 << 20;

/// How much of the session file was sent.
#[derive(Debug, Default)]
pub(super) struct Session {
    sent: u64,
    /// Which file it was.
    inode: u64,
}

impl Session {
    /// Where the next part begins.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The next part was taken.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// The next part is the first one.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
    }

    /// The whole lines that were not sent yet. A file that cannot be read has none: it comes at the end.
    pub(super) async fn next(&mut self, home: &Path, session_id: &str) -> Option<Bytes> {
        let (home, session_id) = (home.to_owned(), session_id.to_owned());
        let (sent, inode) = (self.sent, self.inode);
        let read = move || {
            let found = session::look(&home, &session_id)?;
            read(&found, sent, inode).ok()
        };
        let (part, inode, from) = spawn_blocking(read).await.expect("reading does not panic")?;
        (self.sent, self.inode) = (from, inode);
        (!part.is_empty()).then(|| part.into())
    }
}

/// What there is after `sent`, or all of it if it is another file; which file it is; and where that begins.
fn read(path: &PathBuf, sent: u64, inode: u64) -> io::Result<(Vec<u8>, u64, u64)> {
    // What takes its place meanwhile must not hold us up, or lead elsewhere.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let is = file.metadata()?;
    if !is.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let from = if is.ino() == inode && is.len() >= sent { sent } else { 0 };
    file.seek(SeekFrom::Start(from))?;
    let mut part = Vec::new();
    file.take(PART_BYTES_MAX).read_to_end(&mut part)?;
    part.truncate(part.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
    Ok((part, is.ino(), from))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_appended_is_read_as_far_as_its_lines_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        fs::write(&path, "one\ntw").unwrap();
        let (part, inode, from) = read(&path, 0, 0).unwrap();
        assert_eq!((&*part, from), (&b"one\n"[..], 0));
        fs::write(&path, "one\ntwo\nthree").unwrap();
        assert_eq!(read(&path, 4, inode).unwrap(), (b"two\n".to_vec(), inode, 4));
        assert_eq!(read(&path, 8, inode).unwrap(), (Vec::new(), inode, 8));
        // One that has become shorter, or is another, comes anew.
        fs::write(&path, "new\n").unwrap();
        assert_eq!(read(&path, 8, inode).unwrap(), (b"new\n".to_vec(), inode, 0));
        assert_eq!(read(&path, 4, inode + 1).unwrap().2, 0);
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("t"), folder.path().join("l"));
        fs::write(&target, "secret\n").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(read(&link, 0, 0).is_err());
        let pipe = folder.path().join("p");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert!(read(&pipe, 0, 0).is_err());
    }
}
