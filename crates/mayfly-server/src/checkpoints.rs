//! What machines hand over while they work: kept beside the attempt's result until that is settled.
//!
//! ```text
//! results/<task>/<attempt>/checkpoints/<number>-<ms>   a checkpoint as it came, and the time that it is of
//!                                      transcript      the session file as far as it came, with secrets masked
//!                                      withheld        the last checkpoint that was not taken: a secret is in it
//! ```
//!
//! Each builds on those before it, or takes the place of all of them. What becomes of them once a machine is gone is the
//! business of [`recover`].
//!
//! Bounds: [`BYTES_MAX`] for all of an attempt, [`NUMBER_MAX`] for how many there are, and [`CHECKPOINTS_MAX`] that build on one another.

mod recover;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use mayfly_core::{AttemptId, Secrets};
use mayfly_engine::{TRANSCRIPT, result_folder};
use mayfly_failpoint::failpoint;
use mayfly_git::Git;
use mayfly_wire::worker::{
    CHECKPOINT_HEAD_BYTES_MAX, CHECKPOINTS_MAX, Checkpoint, OTHERS_MAX, is_commit, is_other_name,
};
use tokio::task::spawn_blocking;

use crate::data::sync_folder;
use crate::http::Turns;
use crate::incoming::Incoming;

/// The most bytes of an attempt's checkpoints.
pub(crate) const BYTES_MAX: u64 = 2 << 30;
/// The last number that one can have: each is told of.
const NUMBER_MAX: u64 = 100_000;
/// The name of a checkpoint that was not taken.
const NOT_TAKEN: &str = "withheld";
/// The most lines, and characters of one, that a checkpoint may say of what it does not hold.
const LEFT_OUT_MAX: usize = 100;
const LEFT_OUT_CHARS_MAX: usize = 600;

/// Those of all attempts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    results: PathBuf,
    workspaces: PathBuf,
    incoming: PathBuf,
    git: Git,
    secrets: Secrets,
    turns: Turns,
}

/// A checkpoint that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) number: u64,
    as_of: Timestamp,
    file: PathBuf,
    pub(crate) bytes: u64,
}

#[cfg(test)]
impl Link {
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        Self { number: 1, as_of: Timestamp::UNIX_EPOCH, file: "1".into(), bytes }
    }
}

/// Why a file is no checkpoint that can be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCheckpoint {
    #[error(
        "its head is no line of at most {CHECKPOINT_HEAD_BYTES_MAX} bytes that says what a checkpoint is"
    )]
    Head,
    #[error("it names what is no commit, or no good name for one")]
    Name,
    #[error("its number is {found}, and the last that is kept is {last}")]
    Old { found: u64, last: u64 },
    #[error("it builds on the checkpoint {0}, which is not kept")]
    Unfounded(u64),
    #[error("{CHECKPOINTS_MAX} build on one another already")]
    TooMany,
    #[error("its number is not from 1 to {NUMBER_MAX}")]
    Number,
    #[error("it cannot be read")]
    Disk(#[from] io::Error),
}

/// Where a file that is to be a checkpoint fits.
#[derive(Debug)]
pub(crate) struct Fit {
    /// The same again is told of again: who asks may not have heard the answer.
    replaced: Vec<PathBuf>,
}

impl Checkpoints {
    /// Those in the folder `results`, of tasks that began with what is in `workspaces`.
    pub(crate) fn new(
        (results, workspaces, incoming): (PathBuf, PathBuf, PathBuf),
        git: Git,
        secrets: Secrets,
        turns: Turns,
    ) -> Self {
        Self(Arc::new(Kept { results, workspaces, incoming, git, secrets, turns }))
    }

    fn folder(&self, attempt: AttemptId) -> PathBuf {
        result_folder(&self.0.results, attempt).join("checkpoints")
    }

    /// Those of an attempt, in their order.
    pub(crate) fn links(&self, attempt: AttemptId) -> io::Result<Vec<Link>> {
        let entries = match fs::read_dir(self.folder(attempt)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut links = Vec::new();
        for entry in entries {
            let entry = entry?;
            let named = entry.file_name().to_str().and_then(parse_name);
            if let Some((number, as_of)) = named {
                links.push(Link { number, as_of, file: entry.path(), bytes: entry.metadata()?.len() });
            }
        }
        links.sort_by_key(|link| link.number);
        Ok(links)
    }

    /// Whether a checkpoint can be taken after `links`, and of what it takes the place.
    pub(crate) fn fit(links: &[Link], number: u64, head: &Checkpoint) -> Result<Fit, BadCheckpoint> {
        if !(1..=NUMBER_MAX).contains(&number) {
            return Err(BadCheckpoint::Number);
        }
        let (before, again): (Vec<_>, Vec<_>) = links.iter().partition(|link| link.number < number);
        if let Some(last) = again.iter().find(|link| link.number > number) {
            return Err(BadCheckpoint::Old { found: number, last: last.number });
        }
        if head.after > 0 && !before.iter().any(|link| link.number == head.after) {
            return Err(BadCheckpoint::Unfounded(head.after));
        }
        let (stay, go) = if head.after == 0 { (Vec::new(), before) } else { (before, Vec::new()) };
        if stay.len() >= CHECKPOINTS_MAX {
            return Err(BadCheckpoint::TooMany);
        }
        Ok(Fit { replaced: go.into_iter().chain(again).map(|link| link.file.clone()).collect() })
    }

    /// Keeps one: durable when this returns.
    pub(crate) async fn keep(
        &self,
        attempt: AttemptId,
        number: u64,
        as_of: Timestamp,
        file: Incoming,
        fit: Fit,
    ) -> io::Result<()> {
        let folder = self.make_folder(attempt).await?;
        let kept = folder.join(format!("{number}-{}", as_of.as_millisecond()));
        failpoint("checkpoint-searched");
        file.keep(&kept).await?;
        failpoint("checkpoint-kept");
        let gone = fit.replaced.into_iter().filter(|file| *file != kept).chain([folder.join(NOT_TAKEN)]);
        gone.map(fs::remove_file).try_for_each(absent_is_fine)
    }

    /// Keeps one that is not taken, for whoever looks through it.
    pub(crate) async fn withhold(&self, attempt: AttemptId, file: Incoming) -> io::Result<()> {
        file.keep(&self.make_folder(attempt).await?.join(NOT_TAKEN)).await
    }

    /// Keeps a part of the session file, which begins at `from`. `false`: it does not follow what is kept.
    pub(crate) async fn append(&self, attempt: AttemptId, from: u64, part: Incoming) -> io::Result<bool> {
        let file = self.make_folder(attempt).await?.join(TRANSCRIPT);
        let append = move || {
            let opened = File::options().create(from == 0).truncate(false).read(true).write(true).open(&file);
            let mut kept = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                kept => kept?,
            };
            if kept.metadata()?.len() < from {
                return Ok(false);
            }
            kept.set_len(from)?;
            kept.seek(SeekFrom::Start(from))?;
            io::copy(&mut File::open(part.path())?, &mut kept)?;
            kept.sync_all()?;
            sync_folder(&file).map(|()| true)
        };
        blocking(append).await
    }

    async fn make_folder(&self, attempt: AttemptId) -> io::Result<PathBuf> {
        let folder = self.folder(attempt);
        make_folder(&folder, 3).await?;
        Ok(folder)
    }
}

/// Makes a folder, of which the last `new_max` parts may not be there yet, as durable as what will be in it.
pub(crate) async fn make_folder(folder: &Path, new_max: usize) -> io::Result<()> {
    let folder = folder.to_owned();
    blocking(move || {
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            folder.ancestors().take(new_max).try_for_each(sync_folder)?;
        }
        Ok(())
    })
    .await
}

/// The head of a checkpoint, and where its pack begins.
pub(crate) fn read_head(file: &Path) -> Result<(Checkpoint, u64), BadCheckpoint> {
    let most = u64::try_from(CHECKPOINT_HEAD_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    BufReader::new(File::open(file)?.take(most)).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(BadCheckpoint::Head);
    }
    let head: Checkpoint = serde_json::from_slice(&line).map_err(|_| BadCheckpoint::Head)?;
    let Checkpoint { head: work, others, left_out, .. } = &head;
    let named = others.keys().all(|name| is_other_name(name))
        && others.values().chain(work).all(|commit| is_commit(commit));
    let short = left_out.iter().all(|line| line.chars().count() <= LEFT_OUT_CHARS_MAX);
    // What has others has work: the first of them, if there is nothing else.
    let whole = others.is_empty() || work.is_some();
    if !named || !short || !whole || others.len() > OTHERS_MAX || left_out.len() > LEFT_OUT_MAX {
        return Err(BadCheckpoint::Name);
    }
    Ok((head, line.len() as u64))
}

/// The number and the time of a checkpoint's name.
fn parse_name(name: &str) -> Option<(u64, Timestamp)> {
    let (number, ms) = name.split_once('-')?;
    Some((number.parse().ok()?, Timestamp::from_millisecond(ms.parse().ok()?).ok()?))
}

pub(crate) fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u64) -> Link {
        Link { number, file: number.to_string().into(), ..Link::of_bytes(1) }
    }

    fn after(after: u64) -> Checkpoint {
        Checkpoint { after, ..Checkpoint::default() }
    }

    #[test]
    fn a_checkpoint_follows_one_that_is_kept_or_takes_the_place_of_all() {
        let links = [link(1), link(2), link(4)];
        let replaced = |number, head| Checkpoints::fit(&links, number, &head).map(|fit| fit.replaced);
        assert_eq!(replaced(5, after(4)).expect("it follows the last"), [""; 0].map(PathBuf::from));
        assert_eq!(replaced(5, after(2)).expect("it follows one before"), [""; 0].map(PathBuf::from));
        assert_eq!(replaced(4, after(2)).expect("it comes again"), ["4"].map(PathBuf::from));
        assert_eq!(replaced(5, after(0)).expect("a new beginning"), ["1", "2", "4"].map(PathBuf::from));
        assert!(matches!(replaced(5, after(3)), Err(BadCheckpoint::Unfounded(3))));
        assert!(matches!(replaced(5, after(5)), Err(BadCheckpoint::Unfounded(5))));
        assert!(matches!(replaced(3, after(2)), Err(BadCheckpoint::Old { found: 3, last: 4 })));
        assert!(matches!(replaced(0, after(0)), Err(BadCheckpoint::Number)));
        assert!(matches!(replaced(NUMBER_MAX + 1, after(0)), Err(BadCheckpoint::Number)));
        let many: Vec<_> = (1..=CHECKPOINTS_MAX as u64).map(link).collect();
        assert!(matches!(Checkpoints::fit(&many, 1000, &after(1)), Err(BadCheckpoint::TooMany)));
        assert!(Checkpoints::fit(&many, 1000, &after(0)).is_ok());
    }

    /// The head comes from a machine.
    #[test]
    fn a_head_that_is_not_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x");
        let read = |bytes: &[u8]| {
            fs::write(&file, bytes).expect("written");
            read_head(&file)
        };
        let commit = "a".repeat(40);
        let good =
            format!(r#"{{"after":0,"head":"{commit}","others":{{"x":"{commit}"}},"files":1,"left_out":[]}}"#);
        let (head, at) = read(format!("{good}\nPACK").as_bytes()).expect("a head");
        assert_eq!((head.head, at), (Some(commit.clone()), good.len() as u64 + 1));
        let long = format!("{{\"x\":\"{}\"}}\n", "x".repeat(CHECKPOINT_HEAD_BYTES_MAX));
        for bad in [
            good.as_str(),
            "",
            "PACK\n",
            &long,
            &format!("{}\n", good.replacen(&commit, "--all", 1)),
            &format!("{}\n", good.replace("\"x\"", "\"../x\"")),
            &format!("{}\n", good.replacen(&format!("\"{commit}\""), "null", 1)),
            &format!("{}\n", good.replace("[]", &format!("[\"{}\"]", "y".repeat(601)))),
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
