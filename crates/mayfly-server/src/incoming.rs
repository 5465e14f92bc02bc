//! Files that arrive: streamed to disk under a bound, and in their place all at once.
//!
//! A file is whole and durable before it has its name; one that does not arrive whole leaves nothing.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use mayfly_failpoint::failpoint;
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::data::sync_folder;

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    /// It is longer than allowed.
    #[error("the file is longer than {bytes_max} bytes")]
    TooLong { bytes_max: u64 },
    /// It stopped before its end.
    #[error("the file broke off before its end: send it again")]
    BrokeOff,
    /// It could not be written.
    #[error("the file could not be stored")]
    Disk(#[from] io::Error),
}

/// A whole file that has no name yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: TempPath,
}

impl Incoming {
    /// Writes all of `body` to a file in `folder`.
    pub(crate) async fn receive<E>(
        body: impl Stream<Item = Result<Bytes, E>>,
        folder: &Path,
        bytes_max: u64,
    ) -> Result<Self, IncomingError> {
        let (file, path) = tempfile::NamedTempFile::new_in(folder)?.into_parts();
        let (mut file, mut left) = (File::from_std(file), bytes_max);
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| IncomingError::BrokeOff)?;
            left = left.checked_sub(chunk.len() as u64).ok_or(IncomingError::TooLong { bytes_max })?;
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        Ok(Self { path })
    }

    /// Where it is for now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, in place of what had that name before.
    pub(crate) async fn keep(self, path: &Path) -> io::Result<()> {
        name(path, move |to| Ok(self.path.persist(to)?)).await
    }
}

/// Gives one that has arrived in parts, durable already, its name.
pub(crate) async fn keep_arrived(part: &Path, path: &Path) -> io::Result<()> {
    let part = part.to_owned();
    name(path, move |to| std::fs::rename(part, to)).await
}

async fn name(path: &Path, rename: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let to = path.to_owned();
    let kept = tokio::task::spawn_blocking(move || {
        failpoint("upload-unnamed");
        rename(&to)?;
        failpoint("upload-named");
        sync_folder(&to)
    });
    kept.await.expect("it does not panic")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures_util::stream;

    use super::*;

    async fn receive(
        chunks: Vec<Result<&'static str, ()>>,
        folder: &Path,
    ) -> Result<Incoming, IncomingError> {
        let chunks = chunks.into_iter().map(|chunk| chunk.map(Bytes::from));
        Incoming::receive(stream::iter(chunks), folder, 6).await
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[tokio::test]
    async fn a_file_arrives_whole_and_takes_the_place_of_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let incoming = receive(vec![Ok("abc"), Ok("def")], dir.path()).await.expect("short enough");
        let kept = dir.path().join("kept");
        fs::write(&kept, "before").expect("written");
        incoming.keep(&kept).await.expect("renamed");
        assert_eq!(fs::read_to_string(&kept).expect("there"), "abcdef");
        assert_eq!(count(dir.path()), 1);
    }

    #[tokio::test]
    async fn a_file_that_is_too_long_or_breaks_off_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let long = receive(vec![Ok("abc"), Ok("defg")], dir.path()).await;
        assert!(matches!(long, Err(IncomingError::TooLong { bytes_max: 6 })), "{long:?}");
        let broken = receive(vec![Ok("abc"), Err(())], dir.path()).await;
        assert!(matches!(broken, Err(IncomingError::BrokeOff)), "{broken:?}");
        drop(receive(vec![Ok("abc")], dir.path()).await.expect("whole, but not kept"));
        assert_eq!(count(dir.path()), 0);
    }
}
