//! Reads a task's log on this machine, and waits for what the tunnel appends to it.
//!
//! The file is read to its last whole line; then the reader waits for a newer position and reads on. So there is
//! no gap and no repeat between what was there and what comes, and a reader holds nobody up. Where a line is not the
//! task's next event, the log was damaged ([`is_damage`]): what is before is given, and nothing behind.
//!
//! Bounds: [`CHUNK_BYTES`] at once, and [`LINE_BYTES_MAX`] for a line that is longer.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use mayfly_core::TaskId;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;

use crate::logs::Told;
use crate::order::{LINE_BYTES_MAX, Order};

/// What is read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A reader of one log.
#[derive(Debug)]
pub(crate) struct LogReader {
    file: File,
    /// Where the next whole line begins.
    offset: u64,
    order: Order,
    /// Lines that are still to be passed over.
    skip: u64,
    ended: bool,
    /// Raised with each chunk that was appended to any log; none does not wait.
    appended: Option<watch::Receiver<u64>>,
}

impl LogReader {
    /// Reads the log of `task` at `path` from the event after `after` on. `None`: there is no such log.
    pub(crate) async fn open(
        (path, task): (&Path, TaskId),
        after: u64,
        appended: Option<watch::Receiver<u64>>,
    ) -> io::Result<Option<Self>> {
        match File::open(path).await {
            Ok(file) => {
                let (offset, order, ended) = (0, Order::of(task), false);
                Ok(Some(Self { file, offset, order, skip: after, ended, appended }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next whole lines. `None`: the task is over and all was given, or all that is there was given and the
    /// reader does not wait. Given up half-way, nothing is lost.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.ended {
                return Ok(None);
            }
            // What is appended from here on raises it again.
            if let Some(appended) = &mut self.appended {
                appended.borrow_and_update();
            }
            if let Some(lines) = self.now().await? {
                return Ok(Some(lines));
            }
            if let Some(appended) = self.appended.as_mut().filter(|_| !self.ended) {
                // Where the tunnel ends, whoever reads comes again.
                appended.changed().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            } else {
                return Ok(None);
            }
        }
    }

    /// The next whole lines that are there. `None`: all that is there was given.
    pub(crate) async fn now(&mut self) -> io::Result<Option<Bytes>> {
        while !self.ended {
            let mut lines = self.lines().await?;
            if lines.is_empty() {
                return Ok(None);
            }
            lines.truncate(self.order.take(&lines));
            if lines.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is not the next event"));
            }
            self.offset += lines.len() as u64;
            self.ended = last_line(&lines).and_then(Told::of).is_some_and(|told| told.is_last());
            let wanted = self.wanted(lines);
            if !wanted.is_empty() {
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }

    /// Whether it reads what is at `path` now: a log that was damaged was replaced there.
    pub(crate) async fn is_of(&self, path: &Path) -> io::Result<bool> {
        let ours = self.file.metadata().await?;
        match tokio::fs::metadata(path).await {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The whole lines that begin at the offset.
    async fn lines(&mut self) -> io::Result<Bytes> {
        self.file.seek(SeekFrom::Start(self.offset)).await?;
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            let more = (&mut self.file).take(CHUNK_BYTES as u64).read_buf(&mut bytes).await?;
            let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            if more == 0 || bytes.len() >= CHUNK_BYTES && end > 0 {
                bytes.truncate(end);
                return Ok(bytes.freeze());
            }
            if bytes.len() as u64 >= LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than an event"));
            }
        }
    }

    /// Without those that are to be passed over.
    fn wanted(&mut self, mut lines: Bytes) -> Bytes {
        while self.skip > 0 && !lines.is_empty() {
            let end = lines.iter().position(|&byte| byte == b'\n').map_or(lines.len(), |end| end + 1);
            drop(lines.split_to(end));
            self.skip -= 1;
        }
        lines
    }
}

/// Whether what was read is not the task's log any more.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn last_line(lines: &[u8]) -> Option<&[u8]> {
    let lines = lines.strip_suffix(b"\n")?;
    Some(lines.rsplit(|&byte| byte == b'\n').next().unwrap_or(lines))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const FINISHED: &str = "{\"seq\":4,\"event\":{\"type\":\"finished\"}}\n";

    fn task() -> TaskId {
        TaskId::new(uuid::Uuid::from_u128(1))
    }

    struct Written {
        path: std::path::PathBuf,
        file: std::fs::File,
        appended: watch::Sender<u64>,
        _folder: tempfile::TempDir,
    }

    impl Written {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("t.ndjson");
            let file = std::fs::File::create(&path).expect("made");
            Self { path, file, appended: watch::channel(0).0, _folder: folder }
        }

        fn write(&mut self, text: &str) {
            self.file.write_all(text.as_bytes()).expect("written");
            self.appended.send_modify(|position| *position += 1);
        }

        async fn reader(&self, after: u64, waits: bool) -> LogReader {
            let appended = waits.then(|| self.appended.subscribe());
            LogReader::open((&self.path, task()), after, appended).await.expect("opened").expect("there")
        }
    }

    async fn rest(reader: &mut LogReader) -> String {
        let mut all = Vec::new();
        while let Some(lines) = reader.next().await.expect("read") {
            all.extend_from_slice(&lines);
        }
        String::from_utf8(all).expect("text")
    }

    /// R12: from every number on, the same bytes.
    #[tokio::test]
    async fn a_log_is_read_from_any_event_on() {
        let mut log = Written::new();
        let lines: Vec<String> =
            (1..=3).map(|seq| format!("{{\"seq\":{seq}}}\n")).chain([FINISHED.into()]).collect();
        log.write(&lines.concat());
        for after in 0..=5 {
            let whole = lines[after.min(4)..].concat();
            assert_eq!(rest(&mut log.reader(after as u64, true).await).await, whole, "after {after}");
            assert_eq!(rest(&mut log.reader(after as u64, false).await).await, whole, "after {after}");
        }
    }

    #[tokio::test]
    async fn what_is_appended_follows_and_half_a_line_waits() {
        let mut log = Written::new();
        log.write("{\"seq\":1}\n{\"se");
        let mut reader = log.reader(0, true).await;
        assert_eq!(reader.next().await.expect("read").expect("there"), "{\"seq\":1}\n");
        let mut waiting = tokio::spawn(async move {
            let next = reader.next().await.expect("read");
            (reader, next)
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "half a line is none");
        log.write("q\":2}\n{\"seq\":3}\n");
        let (mut reader, next) = (&mut waiting).await.expect("it does not panic");
        assert_eq!(next.expect("there"), "{\"seq\":2}\n{\"seq\":3}\n");
        log.write(FINISHED);
        assert_eq!(rest(&mut reader).await, FINISHED);
    }

    /// Whatever is in the log behind it.
    #[tokio::test]
    async fn what_is_before_a_foreign_line_is_given_and_nothing_behind() {
        for foreign in ["{\"seq\":1}\n", "{\"a\":1}\n", "{\"seq\":4}\n", "notes\n"] {
            let mut log = Written::new();
            log.write(&["{\"seq\":1}\n{\"seq\":2}\n", foreign, "{\"seq\":3}\n", FINISHED].concat());
            for (after, before) in [(0, "{\"seq\":1}\n{\"seq\":2}\n"), (1, "{\"seq\":2}\n")] {
                let mut reader = log.reader(after, true).await;
                assert_eq!(reader.next().await.expect("read").expect("there"), before);
                assert!(is_damage(&reader.next().await.expect_err("foreign")), "{foreign}");
            }
            for after in 2..6 {
                let error = log.reader(after, false).await.next().await.expect_err("foreign");
                assert!(is_damage(&error), "{foreign}, after {after}");
            }
        }
    }

    #[tokio::test]
    async fn a_line_longer_than_a_chunk_comes_whole() {
        let mut log = Written::new();
        let line = format!("{{\"seq\":1,\"text\":\"{}\"}}\n", "z".repeat(3 * CHUNK_BYTES));
        log.write(&line);
        assert_eq!(rest(&mut log.reader(0, false).await).await, line);
    }

    /// Whatever writes into a log may write no line at all.
    #[tokio::test]
    async fn a_line_that_is_longer_than_an_event_is_damage() {
        let log = Written::new();
        log.file.set_len(LINE_BYTES_MAX - 1).expect("a hole");
        assert_eq!(log.reader(0, false).await.next().await.expect("read"), None, "it may come to its end");
        log.file.set_len(LINE_BYTES_MAX).expect("a hole");
        assert!(is_damage(&log.reader(0, true).await.next().await.expect_err("no line")));
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_none() {
        let log = Written::new();
        let none = LogReader::open((&log.path.with_extension("x"), task()), 0, None).await;
        assert!(none.expect("looked").is_none());
    }
}
