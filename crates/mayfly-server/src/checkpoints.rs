//! What machines hand over while they work: kept beside the attempt's result until that is settled.
//!
//! ```text
//! results/<task>/<attempt>/checkpoints/<number>-<ms>   a checkpoint as it came, and the time that it is of
//!                                      transcript      the session file as far as it came, with secrets masked
//!                                      withheld        the last checkpoint that was not taken: a secret is in it
//! ```
//!
//! Each builds on those before it, or takes the place of all of them. [`recover`](Checkpoints::recover) makes of them
//! what a worker would have brought out: one bundle, searched as any other, and the session file.
//!
//! Bounds: [`BYTES_MAX`] for all of an attempt, [`NUMBER_MAX`] for how many there are, and [`CHECKPOINTS_MAX`] that build on one another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mayfly_core::{AttemptId, Secrets, causes};
use mayfly_engine::{BUNDLE, TRANSCRIPT, result_folder};
use mayfly_git::{Announced, Base, Git, Pack, announced, join};
use mayfly_wire::api::{Collected, Repository, Workspace};
use mayfly_wire::worker::{
    CHECKPOINT_HEAD_BYTES_MAX, CHECKPOINTS_MAX, Checkpoint, OTHER_REFS, OTHERS_MAX, WORK_REF, is_commit,
    is_other_name,
};
use tokio::task::spawn_blocking;

use crate::began::Began;
use crate::data::sync_folder;
use crate::http::{Turns, search_bundle};
use crate::incoming::Incoming;

/// The most bytes of an attempt's checkpoints.
pub(crate) const BYTES_MAX: u64 = 2 << 30;
/// The last number that one can have: each is told of.
const NUMBER_MAX: u64 = 100_000;
/// The name of a checkpoint that was not taken, and of the same as a result.
const NOT_TAKEN: &str = "withheld";
const WITHHELD_RESULT: &str = "checkpoint.withheld";
/// The name of what was made of all checkpoints and is not given out: beside what the worker itself brought out.
const JOINED_WITHHELD: &str = "checkpoints.withheld";
/// What is said of work that its worker could not tell of.
const BROUGHT_OUT: &str = "this is the work as its worker brought it out: the machine was gone before it said what it \
                           left out, if anything";
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

/// A checkpoint, and the time that it is of.
type Dated = (Timestamp, Checkpoint);

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

    /// The last one, with its time, and the packs of all.
    fn last(&self, attempt: AttemptId) -> io::Result<(Option<Dated>, Vec<Pack>)> {
        let (mut last, mut packs) = (None, Vec::new());
        for Link { as_of, file, .. } in self.links(attempt)? {
            let (head, begins_at) = read_head(&file).map_err(io::Error::other)?;
            packs.push(Pack { file, begins_at });
            last = Some((as_of, head));
        }
        Ok((last, packs))
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
        file.keep(&kept).await?;
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

    /// The folders are durable too.
    async fn make_folder(&self, attempt: AttemptId) -> io::Result<PathBuf> {
        let folder = self.folder(attempt);
        let made = folder.clone();
        blocking(move || {
            if !made.is_dir() {
                fs::create_dir_all(&made)?;
                made.ancestors().take(3).try_for_each(sync_folder)?;
            }
            Ok(())
        })
        .await?;
        Ok(folder)
    }

    /// Makes the bundle of what the last of `links` names, and puts it where it belongs. `Some`: it is not given out, and why.
    async fn bundle(
        &self,
        attempt: AttemptId,
        base: Option<Base<'_>>,
        packs: &[Pack],
        refs: &BTreeMap<String, String>,
    ) -> io::Result<Option<String>> {
        let kept = &*self.0;
        let scratch = tempfile::tempdir_in(&kept.incoming)?;
        let _room = kept.turns.room().await;
        let made = scratch.path().join("bundle");
        join(&kept.git, scratch.path(), base, packs, refs, &made).await.map_err(io::Error::other)?;
        let redactor = kept.secrets.redactor();
        let found = search_bundle(&kept.git, scratch.path(), base, &made, &redactor).await;
        let (name, why) = match found {
            Ok(false) => (BUNDLE, None),
            Ok(true) => (JOINED_WITHHELD, Some("it has a configured secret in it".to_owned())),
            Err(error) => (JOINED_WITHHELD, Some(format!("it could not be searched: {}", causes(&error)))),
        };
        let to = result_folder(&kept.results, attempt).join(name);
        blocking(move || {
            File::open(&made)?.sync_all()?;
            fs::rename(&made, &to)?;
            sync_folder(&to)
        })
        .await?;
        Ok(why.map(|why| {
            let (task, number) = (attempt.task, attempt.attempt.0);
            format!(
                "{why}, and it is kept in the orchestrator's data folder as `results/{task}/{number}/{name}`"
            )
        }))
    }

    /// What the bundle says that is there already: the worker's own, or ours where we were interrupted.
    async fn brought_out(&self, attempt: AttemptId) -> io::Result<Option<Announced>> {
        let bundle = result_folder(&self.0.results, attempt).join(BUNDLE);
        let reading = move || match bundle.exists() {
            true => announced(&bundle).map(Some).map_err(io::Error::other),
            false => Ok(None),
        };
        blocking(reading).await
    }

    /// Makes the session file a result, if there is one: as far as its lines are whole.
    async fn transcript(&self, attempt: AttemptId) -> io::Result<bool> {
        let from = self.folder(attempt).join(TRANSCRIPT);
        let to = result_folder(&self.0.results, attempt).join(TRANSCRIPT);
        blocking(move || {
            if to.exists() {
                return Ok(true);
            }
            let kept = match File::options().read(true).write(true).open(&from) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                kept => kept?,
            };
            kept.set_len(whole_lines(&kept)?)?;
            kept.sync_all()?;
            fs::rename(&from, &to)?;
            sync_folder(&to).map(|()| true)
        })
        .await
    }

    /// Moves what was not taken to the results. Whether there is such.
    fn withheld(&self, attempt: AttemptId) -> io::Result<bool> {
        let to = result_folder(&self.0.results, attempt).join(WITHHELD_RESULT);
        absent_is_fine(fs::rename(self.folder(attempt).join(NOT_TAKEN), &to))?;
        Ok(to.exists())
    }
}

#[async_trait]
impl mayfly_engine::Checkpoints for Checkpoints {
    async fn recover(&self, attempt: AttemptId, began: Option<&Workspace>) -> io::Result<Option<Collected>> {
        // An upload that is under way ends here, and none begins: its machine is not let in any more.
        let _turn = self.0.turns.upload(attempt).await;
        let there = self.brought_out(attempt).await?;
        if there.is_none() && !self.folder(attempt).is_dir() {
            return Ok(None);
        }
        let (last, packs) = self.last(attempt)?;
        let has_checkpoint = last.is_some();
        let mut collected = match (there, last) {
            (Some(there), last) if !last.as_ref().is_some_and(|(_, of)| is_made_of(&there, of)) => {
                brought_out_as(there, last.and_then(|(_, of)| of.repository))
            }
            (there, Some(last)) => {
                let withheld = match (there, work_refs(&last.1)) {
                    // It was made before an interruption.
                    (Some(_), _) | (None, None) => None,
                    (None, Some(refs)) => {
                        let began = began.map(|from| Began::of(&self.0.workspaces, from));
                        let base = began.as_ref().map(Began::base);
                        self.bundle(attempt, base, &packs, &refs).await?
                    }
                };
                as_of_checkpoint(last, withheld)
            }
            (_, None) => Collected::default(),
        };
        if self.withheld(attempt)? {
            let (task, number) = (attempt.task, attempt.attempt.0);
            collected.unsaved.push(format!(
                "a later checkpoint has a configured secret in it, or could not be searched for one, and is kept in the \
                 orchestrator's data folder as `results/{task}/{number}/{WITHHELD_RESULT}`"
            ));
        }
        collected.transcript = self.transcript(attempt).await?;
        if collected == Collected::default() {
            return Ok(None);
        }
        if !has_checkpoint && !collected.bundle {
            collected.unsaved.push("the work: its machine was gone before any of it came out".to_owned());
        }
        Ok(Some(collected))
    }

    async fn discard(&self, attempt: AttemptId) -> io::Result<()> {
        let _turn = self.0.turns.upload(attempt).await;
        absent_is_fine(fs::remove_dir_all(self.folder(attempt)))
    }

    fn any(&self, attempt: AttemptId) -> io::Result<bool> {
        Ok(!self.links(attempt)?.is_empty())
    }
}

/// Whether a bundle holds what a checkpoint names.
fn is_made_of(there: &Announced, of: &Checkpoint) -> bool {
    of.head.as_ref() == Some(&there.head) && of.others == there.others
}

/// The refs of the bundle that is made of a checkpoint. `None`: there is no work in it.
fn work_refs(of: &Checkpoint) -> Option<BTreeMap<String, String>> {
    let head = of.head.clone()?;
    let others = of.others.iter().map(|(name, commit)| (format!("{OTHER_REFS}{name}"), commit.clone()));
    Some(others.chain([(WORK_REF.to_owned(), head)]).collect())
}

/// What the worker itself brought out, of which it could not tell.
fn brought_out_as(Announced { head, others }: Announced, repository: Option<Repository>) -> Collected {
    Collected {
        repository,
        notes: vec![BROUGHT_OUT.to_owned()],
        head: Some(head),
        bundle: true,
        others: others.into_keys().collect(),
        ..Collected::default()
    }
}

/// What the last checkpoint holds, unless its work is not given out, and why.
fn as_of_checkpoint((as_of, of): Dated, withheld: Option<String>) -> Collected {
    let Checkpoint { head, others, repository, left_out, .. } = of;
    let later = format!("what was changed after {as_of}: its machine was gone before it came out");
    let mut collected = Collected {
        repository,
        unsaved: std::iter::once(later).chain(left_out).collect(),
        notes: vec![format!("this is the work as it was at {as_of}, from the last checkpoint")],
        ..Collected::default()
    };
    match (head, withheld) {
        (None, _) => {}
        (Some(_), Some(why)) => collected.unsaved.push(format!("the work: {why}")),
        (head @ Some(_), None) => {
            (collected.head, collected.bundle) = (head, true);
            collected.others = others.into_keys().collect();
        }
    }
    collected
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

/// Where the last whole line ends.
fn whole_lines(mut file: &File) -> io::Result<u64> {
    const PIECE: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    while end > 0 {
        let from = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(from))?;
        let mut piece = Vec::new();
        file.take(end - from).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|&byte| byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
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

    #[test]
    fn of_a_session_file_the_whole_lines_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x");
        let long = "y".repeat(100_000);
        for (text, whole) in [("", 0), ("a", 0), ("a\n", 2), ("a\nb", 2), (&format!("a\n{long}"), 2)] {
            fs::write(&file, text).expect("written");
            assert_eq!(whole_lines(&File::open(&file).expect("open")).expect("read"), whole, "{text}");
        }
    }
}
