//! Commits what the files have more than a commit, as much of it as there is time and room for.
//!
//! First what is tracked, then what is new, the smallest first, a batch at a time, so that a large file or a folder of
//! what was built costs nothing but itself. What is not in the commit is named: a folder by its name if nothing of it
//! is. Bounds: [`NEW_BYTES_MAX`] of new files, and the caller's time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_core::{amount, causes};
use mayfly_wire::api::Collected;
use mayfly_wire::worker::UNCOMMITTED;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::contents::{Contents, Named};
use super::dense::is_dense_at;
use super::git::{Feed, Git, GitError, List};
use super::nested::{Found, dissolve, look_through, tell};
use super::submodule::Submodule;
use crate::setup::made::Made;

/// The most bytes of new files that are kept; a tracked file that has become longer than this is not kept either.
const NEW_BYTES_MAX: u64 = 1536 * 1024 * 1024;
/// The most bytes, and files, of a batch: what a lack of time can cost.
const BATCH_BYTES: u64 = 32 * 1024 * 1024;
const BATCH_FILES: usize = 5000;
/// The fewest files of a batch that becomes a pack at once.
const PACKED_FILES_MIN: usize = 64;
/// The most lines that name what is left out, and the most names in a note.
const LEFT_OUT_MAX: usize = 20;
const NAMES_MAX: usize = 3;

/// A file, relative to the workspace, and its length.
pub(crate) type Sized = (u64, PathBuf);

/// The files of a workspace and the index that they are taken into.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    pub(crate) git: &'a Git<'a>,
    /// What the files began with; none is an empty folder.
    pub(crate) base: Option<&'a str>,
    /// The time for reading files.
    pub(crate) read_by: Instant,
    /// The time for all of it.
    pub(crate) deadline: Instant,
    /// Takes in what git need not. None: git has to have all.
    pub(crate) contents: Option<&'a Arc<Contents>>,
    /// What is not taken, since it is not the agent's.
    pub(crate) made: &'a Made,
}

/// How files are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take<'a> {
    /// What git is told.
    pub(crate) how: &'a [&'a str],
    /// What the index has of plain files, where those that are the same need not be taken.
    pub(crate) known: Option<&'a HashMap<PathBuf, Named>>,
    /// The most bytes.
    pub(crate) most: u64,
}

impl Files<'_> {
    /// Commits what the files have more than `parent`, and gives the last commit.
    pub(super) async fn commit(
        &self,
        parent: Option<&str>,
        collected: &mut Collected,
    ) -> Result<Option<String>, GitError> {
        if let Some(parent) = parent {
            self.git.run(["read-tree", parent], self.deadline).await?;
        }
        let before = self.git.run(["write-tree"], self.deadline).await?;
        if let Err(error) = self.take_all(collected).await {
            self.git.unlock_index();
            collected.unsaved.push(format!("uncommitted work, or some of it: {}", causes(&error)));
        }
        // The contents that were taken in without git are not there; what else is not is found when all is packed.
        let tree = self.git.run(["write-tree", "--missing-ok"], self.deadline).await?;
        if tree == before {
            return Ok(parent.map(str::to_owned));
        }
        let mut arguments = vec!["commit-tree", "-m", UNCOMMITTED];
        arguments.extend(parent.into_iter().flat_map(|parent| ["-p", parent]));
        arguments.push(&tree);
        self.git.run(arguments, self.deadline).await.map(Some)
    }

    async fn take_all(&self, collected: &mut Collected) -> Result<(), GitError> {
        let tracked = self.tracked().await?;
        self.open_up(&tracked, collected).await?;
        self.take_tracked(tracked, collected).await?;
        let new = self.list(&["ls-files", "-z", "--others", "--exclude-standard"], collected).await?;
        // A repository inside that is still one ends with a slash, and has been told of.
        let files =
            new.into_iter().filter(|path| !path.as_encoded_bytes().ends_with(b"/")).map(PathBuf::from);
        let (mut kept, files): (Vec<_>, Vec<_>) =
            files.filter(|path| !self.made.has(path)).partition(|path| self.made.is_kept(path));
        kept.sort();
        if !kept.is_empty() {
            let names = some_of(&kept);
            collected
                .notes
                .push(format!("in a folder that is kept for later tasks, and left behind: {names}"));
        }
        let new = self.measure(files).await?;
        let how = &["update-index", "--add", "--replace", "-z", "--stdin"];
        let take = Take { how, known: None, most: NEW_BYTES_MAX };
        let taken = self.take(take, &new, collected).await;
        self.tell_left_out(new, collected).await?;
        taken?;
        let made = self.made.untouched();
        if !made.is_empty() {
            let names = some_of(&made);
            collected.notes.push(format!("made by the set-up commands alone, and left behind: {names}"));
        }
        self.tell_ignored(collected).await
    }

    async fn list(&self, arguments: &[&str], collected: &mut Collected) -> Result<Vec<OsString>, GitError> {
        let List { entries, whole } = self.git.list(arguments, self.read_by).await?;
        if !whole {
            collected.unsaved.push("some files: there are too many to list".to_owned());
        }
        Ok(entries)
    }

    async fn tracked(&self) -> Result<Vec<Tracked>, GitError> {
        let list = self.git.list(&["ls-files", "-z", "--stage"], self.read_by).await?;
        let tracked = list.entries.iter().filter_map(|entry| Tracked::parse(entry));
        Ok(tracked.filter(|entry| !self.made.has(&entry.path)).collect())
    }

    /// Sees to it that git finds all files, and tells of what it cannot keep.
    async fn open_up(&self, tracked: &[Tracked], collected: &mut Collected) -> Result<(), GitError> {
        let workspace = self.git.work_tree.to_owned();
        let Found { inner, lost } = self.blocking(move || look_through(&workspace)).await?;
        collected.unsaved.extend(lost);
        let unchanged = self.unchanged(tracked, &inner).await;
        let inner: Vec<_> = inner.into_iter().filter(|path| !unchanged.contains(path)).collect();
        let submodules = tracked.iter().filter(|entry| entry.is_submodule()).map(|entry| entry.path.clone());
        let submodules: HashSet<_> = submodules.filter(|path| !unchanged.contains(path)).collect();
        dissolve(self.git.work_tree, &inner, &submodules, collected);
        for path in submodules.iter().filter(|path| !inner.contains(path)) {
            // It was empty: what is in it is no repository, and git does not look into it.
            let folder = self.git.work_tree.join(path);
            let entries =
                if folder.is_symlink() { 0 } else { fs::read_dir(folder).map_or(0, Iterator::count) };
            if entries > 0 {
                let lost =
                    format!("{entries} files or folders that were made in the place of this submodule");
                collected.unsaved.push(tell(path, &lost));
            }
        }
        Ok(())
    }

    /// The repositories inside that are submodules as they were handed over.
    async fn unchanged(&self, tracked: &[Tracked], inner: &[PathBuf]) -> HashSet<PathBuf> {
        let mut unchanged = HashSet::new();
        for Tracked { path, object, .. } in tracked.iter().filter(|entry| entry.is_submodule()) {
            let submodule = Submodule { path, commit: object };
            if let Some(base) = self.base.filter(|_| inner.contains(path))
                && submodule.is_unchanged(self.git, base, self.read_by).await
            {
                unchanged.insert(path.clone());
            }
        }
        unchanged
    }

    async fn take_tracked(&self, tracked: Vec<Tracked>, collected: &mut Collected) -> Result<(), GitError> {
        let workspace = self.git.work_tree.to_owned();
        let (gone, tracked) = self.blocking(move || split_beyond_links(&workspace, tracked)).await?;
        if !gone.is_empty() {
            let remove = ["update-index", "--force-remove", "-z", "--stdin"];
            self.git.feed(&remove, gone.iter().map(|entry| &entry.path), Feed::Loose, self.read_by).await?;
        }
        let sized = self.measure(tracked.iter().map(|entry| entry.path.clone()).collect()).await?;
        let mut files = Vec::new();
        for ((length, path), Tracked { object, .. }) in sized.into_iter().zip(&tracked) {
            // One that is as long as it was is compared.
            if length > NEW_BYTES_MAX
                && self.git.run(["cat-file", "-s", object], self.read_by).await? != length.to_string()
            {
                collected.unsaved.push(tell(&path, &format!("its changes: it has {} now", amount(length))));
            } else {
                files.push((length, path));
            }
        }
        let known = tracked.into_iter().filter_map(Tracked::plain).collect();
        let how = &["update-index", "--remove", "-z", "--stdin"];
        self.take(Take { how, known: Some(&known), most: u64::MAX }, &files, collected).await
    }

    /// Takes files into the index, the smallest first, a batch at a time.
    pub(crate) async fn take(
        &self,
        take: Take<'_>,
        files: &[Sized],
        collected: &mut Collected,
    ) -> Result<(), GitError> {
        let mut files: Vec<_> = files.iter().collect();
        files.sort();
        let mut batches = batches(&files, take.most);
        batches.reverse();
        while let Some(batch) = batches.pop() {
            match self.take_batch(take, batch).await {
                Ok(()) => {}
                // Nothing of the batch was taken: the one that is to blame is found by halves.
                Err(GitError::Failed { .. }) if batch.len() > 1 => {
                    // A file that was cut off while it was read has killed git.
                    self.git.unlock_index();
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([second, first]);
                }
                Err(error @ GitError::Failed { .. }) => {
                    self.git.unlock_index();
                    collected.unsaved.push(tell(&batch[0].1, &causes(&error)));
                }
                Err(error) => {
                    self.git.unlock_index();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn take_batch(&self, take: Take<'_>, batch: &[&Sized]) -> Result<(), GitError> {
        let left = match self.contents {
            Some(contents) => self.take_plain(contents, take.known, batch).await?,
            None => batch.to_vec(),
        };
        if left.is_empty() {
            return Ok(());
        }
        let feed = self.feed_for(&left).await?;
        self.git.feed(take.how, left.iter().map(|(_, path)| path), feed, self.read_by).await
    }

    /// How a batch is best taken.
    async fn feed_for(&self, batch: &[&Sized]) -> Result<Feed, GitError> {
        match batch {
            [(length, path)] if *length > BATCH_BYTES => {
                let (length, path) = (*length, self.git.work_tree.join(path));
                let is_dense = self.blocking(move || is_dense_at(&path, length)).await?;
                Ok(if is_dense { Feed::Stored } else { Feed::Loose })
            }
            _ if batch.len() >= PACKED_FILES_MIN => Ok(Feed::Packed),
            _ => Ok(Feed::Loose),
        }
    }

    /// Names which of these files are not in the index.
    async fn tell_left_out(&self, new: Vec<Sized>, collected: &mut Collected) -> Result<(), GitError> {
        let index = self.git.list(&["ls-files", "-z"], self.deadline).await?;
        let kept: HashSet<&Path> = index.entries.iter().map(Path::new).collect();
        let left: Vec<_> = new.into_iter().filter(|(_, path)| !kept.contains(&**path)).collect();
        collected.unsaved.extend(left_out(&left, &kept));
        Ok(())
    }

    /// Says what stays behind because the code has it ignored.
    async fn tell_ignored(&self, collected: &mut Collected) -> Result<(), GitError> {
        let ask = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"];
        let mut ignored = self.git.list(&ask, self.deadline).await?.entries;
        // A folder is followed by what is in it.
        ignored.dedup_by(|entry, before| {
            let (entry, before) = (entry.as_encoded_bytes(), before.as_encoded_bytes());
            before.ends_with(b"/") && entry.starts_with(before)
        });
        if !ignored.is_empty() {
            let names = some_of(&ignored);
            collected.notes.push(format!("ignored by the code's own rules, and left behind: {names}"));
        }
        Ok(())
    }

    /// These with their lengths; what is no file has none.
    pub(crate) async fn measure(&self, paths: Vec<PathBuf>) -> Result<Vec<Sized>, GitError> {
        let workspace = self.git.work_tree.to_owned();
        let length = move |path: &Path| {
            let metadata = workspace.join(path).symlink_metadata();
            metadata.ok().filter(fs::Metadata::is_file).map_or(0, |metadata| metadata.len())
        };
        let measure = move || paths.into_iter().map(|path| (length(&path), path)).collect();
        self.blocking(measure).await
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, GitError> {
        let done = timeout_at(self.read_by, spawn_blocking(work)).await;
        let done = done.map_err(|_| GitError::Late { verb: "add".to_owned() })?;
        Ok(done.expect("looking does not panic"))
    }
}

/// Those whose folder has become a symbolic link, or is below one, and so are gone, and the others.
fn split_beyond_links(workspace: &Path, tracked: Vec<Tracked>) -> (Vec<Tracked>, Vec<Tracked>) {
    let mut known: HashMap<PathBuf, bool> = HashMap::new();
    tracked.into_iter().partition(|entry| {
        let Some(folder) = entry.path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
            return false;
        };
        if let Some(is_beyond) = known.get(folder) {
            return *is_beyond;
        }
        let mut above = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty());
        let is_beyond = above.any(|folder| workspace.join(folder).is_symlink());
        known.insert(folder.to_owned(), is_beyond);
        is_beyond
    })
}

/// An entry of the index.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) path: PathBuf,
    mode: String,
    object: String,
}

impl Tracked {
    /// `<mode> <object> <stage>\t<path>`.
    pub(super) fn parse(entry: &OsStr) -> Option<Self> {
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = entry.as_bytes();
        let tab = bytes.iter().position(|&byte| byte == b'\t')?;
        let mut words = std::str::from_utf8(&bytes[..tab]).ok()?.split(' ');
        let (mode, object) = (words.next()?.to_owned(), words.next()?.to_owned());
        let path = OsStr::from_bytes(&bytes[tab + 1..]).into();
        Some(Self { path, mode, object })
    }

    pub(super) fn is_submodule(&self) -> bool {
        self.mode == "160000"
    }

    /// What it is, if it is a plain file.
    fn plain(self) -> Option<(PathBuf, Named)> {
        let executable = match &*self.mode {
            "100644" => false,
            "100755" => true,
            _ => return None,
        };
        Some((self.path, Named { executable, object: self.object }))
    }
}

/// Parts of a list of files that is sorted, up to where there is no room any more.
fn batches<'a>(files: &'a [&'a Sized], most: u64) -> Vec<&'a [&'a Sized]> {
    let (mut batches, mut from, mut bytes, mut total) = (Vec::new(), 0, 0, 0_u64);
    for (at, (length, _)) in files.iter().enumerate() {
        total = total.saturating_add(*length);
        if total > most {
            batches.push(&files[from..at]);
            from = files.len();
            break;
        }
        if at - from >= BATCH_FILES || (bytes + length > BATCH_BYTES && at > from) {
            batches.push(&files[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += length;
    }
    batches.push(&files[from..]);
    batches.retain(|batch| !batch.is_empty());
    batches
}

/// A line for each file that is left out, or for the folder of which nothing is kept.
fn left_out(left: &[Sized], kept: &HashSet<&Path>) -> Vec<String> {
    let folders: HashSet<&Path> = kept.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    let mut groups = BTreeMap::<&Path, (usize, u64)>::new();
    for (length, path) in left {
        let above: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        let group = above.into_iter().rev().find(|folder| !folders.contains(folder));
        let (files, bytes) = groups.entry(group.unwrap_or(path)).or_default();
        (*files, *bytes) = (*files + 1, bytes.saturating_add(*length));
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let line = |(path, (files, bytes)): &(&Path, (usize, u64))| match files {
        1 => tell(path, &format!("{}, left out", amount(*bytes))),
        _ => tell(path, &format!("{files} files with {} in all, left out", amount(*bytes))),
    };
    let more = groups.len().saturating_sub(LEFT_OUT_MAX);
    let mut lines: Vec<_> = groups.iter().take(LEFT_OUT_MAX).map(line).collect();
    lines.extend((more > 0).then(|| format!("and {more} more files or folders, left out")));
    lines
}

/// The first of some names, and how many more there are.
pub(crate) fn some_of(names: &[impl AsRef<Path>]) -> String {
    let first: Vec<_> = names.iter().take(NAMES_MAX).map(|name| shown(name.as_ref())).collect();
    let more = names.len() - first.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}
