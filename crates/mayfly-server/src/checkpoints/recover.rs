//! Makes of what a machine that is gone had handed over what its worker would have brought out.
//!
//! ```text
//! results/<task>/<attempt>/bundle   the worker's own, which counts before every checkpoint; searched first, if it was not
//!        └─ none, or damaged ──► the last checkpoint and those before it ──► one bundle, searched as any other
//!                                        └─ damaged ──► the one before it, and so on
//! ```
//!
//! What is damaged is set aside and told of, never thrown away. Trouble of this host's own, such as a full disk, says nothing
//! about a checkpoint: then none is set aside. All of it can be done again after an interruption.
//!
//! Bound: [`JOINS_MAX`] checkpoints that are tried.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};

use async_trait::async_trait;
use jiff::Timestamp;
use mayfly_core::{AttemptId, causes};
use mayfly_engine::{ARTIFACTS, BUNDLE, TRANSCRIPT, WITHHELD, result_folder};
use mayfly_failpoint::failpoint;
use mayfly_git::{Announced, Base, GitError, Pack, Work, announced, join};
use mayfly_library::artifacts::{Member, list};
use mayfly_wire::api::{Artifacts, Collected, Repository, Workspace};
use mayfly_wire::worker::{Checkpoint, OTHER_REFS, WORK_REF};
use tracing::warn;

use super::{BadCheckpoint, Checkpoints, Link, NOT_TAKEN, absent_is_fine, blocking, parse_name, read_head};
use crate::began::Began;
use crate::data::sync_folder;
use crate::http::{UNSEARCHED, search_bundle};

/// The name as a result of a checkpoint that was not taken.
const WITHHELD_RESULT: &str = "checkpoint.withheld";
/// The name of what was made of all checkpoints and is not given out: beside what the worker itself brought out.
const JOINED_WITHHELD: &str = "checkpoints.withheld";
/// The names of a bundle and of checkpoints that are damaged.
const BUNDLE_DAMAGED: &str = "bundle.damaged";
const DAMAGED: &str = "checkpoints.damaged";
/// The most checkpoints that are tried, the last first: each takes all of those before it.
const JOINS_MAX: usize = 8;
/// What is said of work that its worker could not tell of.
const BROUGHT_OUT: &str = "this is the work as its worker brought it out: the machine was gone before it said what it \
                           left out, if anything";

/// A checkpoint that can be read.
#[derive(Debug)]
struct Kept {
    link: Link,
    of: Checkpoint,
    pack: Pack,
}

#[async_trait]
impl mayfly_engine::Checkpoints for Checkpoints {
    async fn recover(&self, attempt: AttemptId, began: Option<&Workspace>) -> io::Result<Option<Collected>> {
        // An upload that is under way ends here, and none begins: its machine is not let in any more.
        let _turn = self.0.turns.upload(attempt).await;
        self.search_again(attempt, began).await?;
        let there = self.brought_out(attempt).await?;
        let kept = self.kept(attempt)?;
        let mut collected = match (there, kept.last()) {
            // It was made before an interruption.
            (Some(there), Some(last)) if is_made_of(&there, &last.of) => {
                as_of_checkpoint(last.link.as_of, last.of.clone(), None)
            }
            (Some(there), last) => {
                let repository = last.and_then(|last| last.of.repository.clone());
                let repository = self.later(attempt, began, &there, repository).await?;
                brought_out_as(there, repository)
            }
            (None, _) => self.last_of_use(attempt, began, kept).await?,
        };
        let damaged = self.damaged(attempt)?;
        let is_nothing = collected == Collected::default() && damaged.is_empty();
        collected.unsaved.extend(damaged);
        collected.unsaved.extend(self.withheld(attempt)?);
        collected.transcript = self.transcript(attempt).await?;
        collected.artifacts = self.artifacts(attempt).await?;
        if collected == Collected::default() {
            return Ok(None);
        }
        if is_nothing {
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

impl Checkpoints {
    /// Searches work that was not searched while its machine was there. None waits for it any more, so it has the time that
    /// it takes.
    async fn search_again(&self, attempt: AttemptId, began: Option<&Workspace>) -> io::Result<()> {
        let kept = &*self.0;
        let folder = result_folder(&kept.results, attempt);
        let unsearched = folder.join(UNSEARCHED);
        if !unsearched.exists() {
            return Ok(());
        }
        let scratch = tempfile::tempdir_in(&kept.incoming)?;
        let began = began.map(|from| Began::of(&kept.workspaces, from));
        let base = began.as_ref().map(Began::base);
        let _room = kept.turns.recovery().await;
        let redactor = kept.secrets.redactor();
        let name = match search_bundle(&kept.git, scratch.path(), base, &unsearched, &redactor).await {
            Ok(false) => BUNDLE,
            Err(error) if error.may_pass() => return Err(io::Error::other(error)),
            Ok(true) | Err(_) => WITHHELD,
        };
        let to = folder.join(name);
        blocking(move || {
            fs::rename(&unsearched, &to)?;
            sync_folder(&to)
        })
        .await
    }

    /// What the bundle says that is there already: the worker's own, or ours where we were interrupted. One that does not
    /// say so is set aside.
    async fn brought_out(&self, attempt: AttemptId) -> io::Result<Option<Announced>> {
        let folder = result_folder(&self.0.results, attempt);
        blocking(move || match announced(&folder.join(BUNDLE)) {
            Ok(there) => Ok(Some(there)),
            Err(GitError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error @ GitError::File { .. }) => Err(io::Error::other(error)),
            Err(error) => {
                warn!(error = causes(&error), "what a worker brought out is no bundle that can be read");
                let aside = folder.join(BUNDLE_DAMAGED);
                fs::rename(folder.join(BUNDLE), &aside)?;
                sync_folder(&aside).map(|()| None)
            }
        })
        .await
    }

    /// A checkpoint's repository with the commit of the work that came out after it: its branch went on. Where that cannot
    /// be seen, nothing is known of it.
    async fn later(
        &self,
        attempt: AttemptId,
        began: Option<&Workspace>,
        there: &Announced,
        repository: Option<Repository>,
    ) -> io::Result<Option<Repository>> {
        let Some(repository) = repository else { return Ok(None) };
        let kept = &*self.0;
        let scratch = tempfile::tempdir_in(&kept.incoming)?;
        let began = began.map(|from| Began::of(&kept.workspaces, from));
        let (base, bundle) =
            (began.as_ref().map(Began::base), result_folder(&kept.results, attempt).join(BUNDLE));
        let committed = async {
            let work = Work::open(&kept.git, scratch.path(), base, &bundle, &there.head).await?;
            work.committed().await
        };
        match committed.await {
            Ok(commit) => Ok(Some(Repository { commit: Some(commit), index: None, ..repository })),
            Err(error) => {
                warn!(error = causes(&error), "what a worker brought out cannot be looked at");
                Ok(None)
            }
        }
    }

    /// Those of an attempt, in their order. What cannot be read is set aside.
    fn kept(&self, attempt: AttemptId) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for link in self.links(attempt)? {
            match read_head(&link.file) {
                Err(BadCheckpoint::Disk(error)) => return Err(error),
                Ok((of, begins_at)) => {
                    let pack = Pack { file: link.file.clone(), begins_at };
                    kept.push(Kept { link, of, pack });
                }
                Err(error) => self.set_aside(attempt, &link, &causes(&error))?,
            }
        }
        Ok(kept)
    }

    /// Makes a result of the last checkpoint of which one can be made; those after it are set aside.
    async fn last_of_use(
        &self,
        attempt: AttemptId,
        began: Option<&Workspace>,
        mut kept: Vec<Kept>,
    ) -> io::Result<Collected> {
        let began = began.map(|from| Began::of(&self.0.workspaces, from));
        let base = began.as_ref().map(Began::base);
        let mut tried = 0;
        while let Some(last) = kept.last() {
            let (link, of) = (&last.link, last.of.clone());
            let Some(refs) = work_refs(&of) else { return Ok(as_of_checkpoint(link.as_of, of, None)) };
            let packs: Vec<_> = kept.iter().map(|kept| kept.pack.clone()).collect();
            tried += 1;
            match self.bundle(attempt, base, &packs, &refs).await? {
                Ok(withheld) => return Ok(as_of_checkpoint(link.as_of, of, withheld)),
                Err(error) => self.set_aside(attempt, link, &causes(&error))?,
            }
            kept.pop();
            if tried == JOINS_MAX {
                kept.iter()
                    .try_for_each(|kept| self.set_aside(attempt, &kept.link, "too many are damaged"))?;
                break;
            }
        }
        Ok(Collected::default())
    }

    /// Makes the bundle of what the last of `packs` names, and puts it where it belongs. `Some`: it is not given out, and
    /// why. An error of git's: none can be made of them, however often it is tried.
    async fn bundle(
        &self,
        attempt: AttemptId,
        base: Option<Base<'_>>,
        packs: &[Pack],
        refs: &BTreeMap<String, String>,
    ) -> io::Result<Result<Option<String>, GitError>> {
        let kept = &*self.0;
        let scratch = tempfile::tempdir_in(&kept.incoming)?;
        let _room = kept.turns.recovery().await;
        let made = scratch.path().join("bundle");
        match join(&kept.git, scratch.path(), base, packs, refs, &made).await {
            Ok(()) => {}
            Err(error) if error.may_pass() => return Err(io::Error::other(error)),
            Err(error) => return Ok(Err(error)),
        }
        let redactor = kept.secrets.redactor();
        let found = search_bundle(&kept.git, scratch.path(), base, &made, &redactor).await;
        let (name, why) = match found {
            Ok(false) => (BUNDLE, None),
            Ok(true) => (JOINED_WITHHELD, Some("it has a configured secret in it".to_owned())),
            Err(error) if error.may_pass() => return Err(io::Error::other(error)),
            Err(error) => (JOINED_WITHHELD, Some(format!("it could not be searched: {}", causes(&error)))),
        };
        let to = result_folder(&kept.results, attempt).join(name);
        blocking(move || {
            File::open(&made)?.sync_all()?;
            failpoint("recover-joined");
            fs::rename(&made, &to)?;
            failpoint("recover-named");
            sync_folder(&to)
        })
        .await?;
        Ok(Ok(why.map(|why| format!("{why}, and it is {}", kept_as(attempt, name)))))
    }

    fn set_aside(&self, attempt: AttemptId, link: &Link, why: &str) -> io::Result<()> {
        warn!(number = link.number, error = why, "a checkpoint is damaged");
        let folder = result_folder(&self.0.results, attempt).join(DAMAGED);
        let name = link.file.file_name().expect("it was listed by its name");
        fs::create_dir_all(&folder)?;
        fs::rename(&link.file, folder.join(name))?;
        sync_folder(&folder.join(name))?;
        sync_folder(&folder)
    }

    /// Tells of what was set aside or withheld, a line each.
    fn damaged(&self, attempt: AttemptId) -> io::Result<Vec<String>> {
        let folder = result_folder(&self.0.results, attempt);
        let brought_out = [
            (BUNDLE_DAMAGED, "it cannot be read as a git bundle"),
            (WITHHELD, "it has a configured secret in it, or could not be searched for one"),
        ];
        let bundles = brought_out.into_iter().filter(|(name, _)| folder.join(name).exists());
        let bundles = bundles.map(|(name, why)| {
            let kept = kept_as(attempt, name);
            format!("what the worker brought out at its end: {why}, and is {kept}")
        });
        let names = match fs::read_dir(folder.join(DAMAGED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => entries?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?,
        };
        let mut checkpoints: Vec<_> = names.iter().filter_map(|name| parse_name(name.to_str()?)).collect();
        checkpoints.sort_unstable();
        let line = |(number, as_of): (u64, Timestamp)| {
            let kept = kept_as(attempt, &format!("{DAMAGED}/{number}-{}", as_of.as_millisecond()));
            format!("the checkpoint of {as_of}: it is damaged, and {kept}")
        };
        Ok(bundles.chain(checkpoints.into_iter().map(line)).collect())
    }

    /// Moves what was not taken to the results, and tells of it if there is such.
    fn withheld(&self, attempt: AttemptId) -> io::Result<Option<String>> {
        let to = result_folder(&self.0.results, attempt).join(WITHHELD_RESULT);
        absent_is_fine(fs::rename(self.folder(attempt).join(NOT_TAKEN), &to))?;
        Ok(to.exists().then(|| {
            let kept = kept_as(attempt, WITHHELD_RESULT);
            format!("a later checkpoint has a configured secret in it, or could not be searched for one, and is {kept}")
        }))
    }

    /// Counts the artifacts that came out. Those that cannot be read are in the way of nothing else.
    async fn artifacts(&self, attempt: AttemptId) -> io::Result<Option<Artifacts>> {
        let archive = result_folder(&self.0.results, attempt).join(ARTIFACTS);
        blocking(move || {
            let members = match File::open(archive) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                archive => list(archive?),
            };
            let count = |members: Vec<Member>| Artifacts {
                files: members.len() as u64,
                bytes: members.iter().map(|member| member.bytes).sum(),
            };
            let unreadable = |error| warn!(error = causes(&error), "artifacts that came out cannot be read");
            Ok(members.map(count).map_err(unreadable).ok())
        })
        .await
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
}

fn kept_as(attempt: AttemptId, name: &str) -> String {
    let (task, number) = (attempt.task, attempt.attempt.0);
    format!("kept in the orchestrator's data folder as `results/{task}/{number}/{name}`")
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

/// What a checkpoint holds, unless its work is not given out, and why.
fn as_of_checkpoint(as_of: Timestamp, of: Checkpoint, withheld: Option<String>) -> Collected {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use futures_util::FutureExt as _;
    use mayfly_core::{Attempt, Secrets, TaskId};
    use mayfly_engine::Checkpoints as _;
    use mayfly_git::Git;

    use super::*;
    use crate::http::Turns;

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

    /// G11: what comes of an upload is settled before its attempt is; and one that comes later waits for that.
    #[tokio::test]
    async fn settling_and_uploads_of_one_machine_take_turns() {
        let attempt = TaskId::new(uuid::Uuid::from_u128(1)).attempt(Attempt(1));
        let (data, turns) = (tempfile::tempdir().expect("a folder"), Turns::default());
        let place = || data.path().to_owned();
        let git = Git::new("/usr/bin".into(), None, None);
        let checkpoints =
            Checkpoints::new((place(), place(), place()), git, Secrets::default(), turns.clone());
        let under_way = turns.upload(attempt).await;
        let mut settling = checkpoints.recover(attempt, None);
        assert!(settling.as_mut().now_or_never().is_none(), "the upload has not ended yet");
        let cut = under_way.take(std::future::pending::<()>()).await;
        assert!(cut.is_err(), "and has to, whatever of it is still to come");
        let mut later = Box::pin(turns.upload(attempt));
        assert!(later.as_mut().now_or_never().is_none());
        drop(under_way);
        assert!(later.as_mut().now_or_never().is_none(), "it was settled first that is in front");
        assert_eq!(settling.await.expect("a disk that works"), None);
        later.await;
    }

    /// What a full disk or a git that is not there is in the way of is as good as before.
    #[tokio::test]
    async fn trouble_of_the_host_s_own_sets_no_checkpoint_aside() {
        let attempt = TaskId::new(uuid::Uuid::from_u128(1)).attempt(Attempt(1));
        let (data, turns) = (tempfile::tempdir().expect("a folder"), Turns::default());
        let place = || data.path().to_owned();
        let with = |git: &Path| {
            let git = Git::new(git.into(), None, None);
            Checkpoints::new((place(), place(), place()), git, Secrets::default(), turns.clone())
        };
        let bin = data.path().join("bin");
        let checkpoints = with(&bin);
        let folder = checkpoints.make_folder(attempt).await.expect("made");
        let of = Checkpoint { head: Some("a".repeat(40)), ..Checkpoint::default() };
        let damaged = format!("{}\nno pack", serde_json::to_string(&of).expect("JSON"));
        fs::write(folder.join("1-0"), damaged).expect("written");
        let full = "#!/bin/sh\necho 'fatal: write error: No space left on device' >&2\nexit 128\n";
        for git in [None, Some(full)] {
            if let Some(git) = git {
                fs::create_dir(&bin).expect("made");
                fs::write(bin.join("git"), git).expect("written");
                fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).expect("set");
            }
            checkpoints.recover(attempt, None).await.expect_err("no git, or no room");
            assert!(folder.join("1-0").exists(), "{git:?}");
        }
        let told = with(Path::new("/usr/bin")).recover(attempt, None).await.expect("a disk that works");
        assert!(told.expect("it is told of").unsaved[0].contains("it is damaged"));
        assert!(!folder.join("1-0").exists());
    }
}
